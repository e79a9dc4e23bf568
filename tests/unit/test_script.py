"""Loading and inspecting the user's script, init(), and the records about its errors (contract
sections 4 and 8)."""

from __future__ import annotations

import logging
import os
import subprocess
import sys
import textwrap
from types import SimpleNamespace

import pytest
from inference_schema import schema_util

from azureml_inference_server_http.scripting import import_path, script
from azureml_inference_server_http.server import user_script

QUALIFIED = "azureml_inference_server_http.server.user_script."
GOOD = "def init(): pass\ndef run(data): return data\n"


@pytest.fixture
def settings(tmp_path, monkeypatch):
    root = tmp_path / "app"
    root.mkdir()
    monkeypatch.chdir(root)
    monkeypatch.setattr(sys, "path", [folder for folder in sys.path if folder != import_path.SPAWNED])
    monkeypatch.delitem(sys.modules, "entry_module", raising=False)
    monkeypatch.setattr(sys, "meta_path", sys.meta_path[:])
    monkeypatch.setattr(sys, "dont_write_bytecode", True)
    before = set(sys.modules)
    yield SimpleNamespace(
        app_root=str(root),
        entry_script="score.py",
        source_directory=None,
        model_dir=None,
        scoring_timeout_ms=400,
        host="0.0.0.0",
        port=5001,
        worker_class="process",
        worker_count=1,
        server_version="azmlinfsrv/1.5.1",
        error_details=False,
        client_errors=False,
    )
    for name in set(sys.modules) - before:
        if str(tmp_path) in str(getattr(sys.modules[name], "__file__", "")):
            del sys.modules[name]


@pytest.fixture(autouse=True)
def no_decorators(monkeypatch):
    from azureml_inference_server_http.api import aml_request

    monkeypatch.setattr(aml_request, "_raw_requested", False)
    for memory in (schema_util.__functions_schema__, schema_util.__versions__):  # keyed by "entry_module.run"
        memory.clear()


@pytest.fixture
def records(caplog, monkeypatch):
    monkeypatch.setattr(logging.getLogger("azmlinfsrv"), "propagate", True)
    caplog.set_level(logging.DEBUG, "azmlinfsrv")
    return lambda: [(record.levelname[0], record.name, record.getMessage()) for record in caplog.records]


def load(settings, text=GOOD, name="score.py"):
    path = os.path.join(settings.app_root, name)
    os.makedirs(os.path.dirname(path), exist_ok=True)
    with open(path, "w", encoding="utf-8") as file:
        file.write(textwrap.dedent(text))
    return script.load(settings)


def fail(settings, records, text, name="score.py"):
    with pytest.raises(user_script.ScriptLoadError):
        load(settings, text, name)
    errors = [(level, logger, message) for level, logger, message in records() if level == "E"]
    assert all(logger == "azmlinfsrv" for _, logger, _ in errors)
    return [message for _, _, message in errors]


# Finding and importing


def test_module_attributes(settings):
    loaded = load(
        settings,
        """
        facts = {"name": __name__, "spec": __spec__.name, "package": __package__, "file": __file__}
        def init(): pass
        def run(data): return facts
    """,
    )
    file = os.path.join(settings.app_root, "score.py")
    assert loaded.run("") == {"name": "entry_module", "spec": "entry_module", "package": "", "file": file}
    assert loaded.file == file
    assert sys.modules["entry_module"].run is loaded.run


def test_the_module_can_be_found_while_the_script_is_imported(settings):
    loaded = load(
        settings,
        """
        from __future__ import annotations
        import dataclasses, pickle, typing
        @dataclasses.dataclass
        class Row:
            value: typing.ClassVar[int] = 1
            text: str = "x"
        copy = pickle.loads(pickle.dumps(Row()))
        def init(): pass
        def run(data): return copy == Row()
    """,
    )
    assert loaded.run("") is True


def test_a_failing_import_leaves_the_module_of_the_script_before_it(settings, records):
    fail(settings, records, "1 / 0")
    assert "entry_module" not in sys.modules
    loaded = load(settings)
    fail(settings, records, "1 / 0")
    assert sys.modules["entry_module"].run is loaded.run


def test_load_again_imports_the_script_without_init(settings, monkeypatch):
    load(settings, "state = []\ndef init(): state.append(1)\ndef run(data): return state")
    monkeypatch.setenv("AZUREML_ENTRY_SCRIPT", "score.py")
    monkeypatch.setenv("AML_APP_ROOT", settings.app_root)
    first = sys.modules["entry_module"]
    script.load_again()
    assert sys.modules["entry_module"] is not first
    assert sys.modules["entry_module"].state == []


def test_absolute_entry_script_wins_over_the_app_root(settings, tmp_path):
    (tmp_path / "other.py").write_text(GOOD)
    settings.entry_script = str(tmp_path / "other.py")
    assert script.load(settings).file == str(tmp_path / "other.py")


def test_load_extends_sys_path(settings):
    before = sys.path[:]
    load(settings)
    script.load(settings)
    assert sys.path == [*before, import_path.SPAWNED, settings.app_root]


def test_folder_of_the_script_and_of_the_package_are_not_on_sys_path(settings):
    settings.entry_script = "code/score.py"
    load(settings, GOOD, "code/score.py")
    assert os.path.join(settings.app_root, "code") not in sys.path
    assert not any(path.rstrip("/").endswith(("azureml_inference_server_http", "server")) for path in sys.path)


def test_siblings_import_from_the_app_root(settings):
    with open(os.path.join(settings.app_root, "sibling_of_score.py"), "w") as file:
        file.write("x = 5")
    assert (
        load(settings, "import sibling_of_score\ndef init(): pass\ndef run(d): return sibling_of_score.x").run("") == 5
    )


NEIGHBOUR = "neighbour is beside the script, in {}, and scripts cannot import from their own folder unless"


@pytest.mark.parametrize("neighbour", ["neighbour.py", "neighbour/part.py"])
@pytest.mark.parametrize("statement", ["import neighbour", "from neighbour.part import x"])
def test_a_failing_import_of_something_beside_the_script_says_what_to_do(settings, records, statement, neighbour):
    folder = os.path.join(settings.app_root, "code")
    os.makedirs(os.path.dirname(os.path.join(folder, neighbour)))
    open(os.path.join(folder, neighbour), "w").close()
    settings.entry_script = "code/score.py"
    traceback_text, advice = fail(settings, records, statement, "code/score.py")
    assert "ModuleNotFoundError: No module named 'neighbour'" in traceback_text
    assert advice.startswith(NEIGHBOUR.format(folder))
    loaded = load(settings, f"def init(): {statement}\ndef run(data): pass", "code/score.py")
    with pytest.raises(user_script.ScriptLoadError):
        loaded.initialize()
    assert records()[-1][2].startswith(NEIGHBOUR.format(folder))


def test_other_failing_imports_are_left_alone(settings, records):
    settings.entry_script = "code/score.py"
    assert len(fail(settings, records, "import neighbour", "code/score.py")) == 1


def test_main_is_the_default(settings, records):
    settings.entry_script = None
    sys.modules.pop("main", None)
    loaded = load(settings, "def init(): pass\ndef run(data): return __name__", "main.py")
    assert loaded.run("") == "main"
    assert ("I", "azmlinfsrv.user_script", f"Found user script at {settings.app_root}/main.py") in records()


def test_main_that_raises(settings, records):
    settings.entry_script = None
    sys.modules.pop("main", None)
    (message,) = fail(settings, records, "\nraise SystemExit", "main.py")
    assert message.count("File ") == message.count(f'File "{settings.app_root}/main.py", line 2') == 1
    assert f"{QUALIFIED}UserScriptImportException: Failed to import user script" in message


def test_main_from_the_source_directory(settings):
    settings.entry_script, settings.source_directory = None, "src"
    sys.modules.pop("main", None)
    assert load(settings, GOOD, "src/main.py").file.endswith("src/main.py")


def test_main_missing(settings, records):
    settings.entry_script = None
    sys.modules.pop("main", None)
    assert fail(settings, records, "", "other.py") == [
        "No score script found. Expected score script main.py.",
        f"Expected script to be found in PYTHONPATH: {sys.path}",
        "Current contents of AML_APP_ROOT: ['other.py']",
    ]


def test_main_missing_without_app_root(settings, records):
    settings.entry_script, settings.app_root = None, "/no/such/folder"
    sys.modules.pop("main", None)
    with pytest.raises(user_script.ScriptLoadError):
        script.load(settings)
    assert records()[-1][2] == "The directory /no/such/folder not an accessible directory in the container."


def test_missing_file_names_the_path(settings, records):
    settings.entry_script = "nothing.py"
    messages = fail(settings, records, GOOD)
    path = os.path.join(settings.app_root, "nothing.py")
    assert messages[0] == "No such file or directory."
    assert messages[1].startswith(f"There is no file at {path}. A relative --entry_script starts from the current")
    assert f"FileNotFoundError: [Errno 2] No such file or directory: '{path}'" in messages[2]
    assert messages[2].endswith(
        f"{QUALIFIED}UserScriptImportException: Failed to import user script because it raised an unhandled exception\n"
    )


@pytest.mark.parametrize(
    ("text", "line", "error"),
    [
        ("x = 1\nraise ValueError('boom')", 2, "ValueError: boom"),
        ("import no_such_module_at_all", 1, "ModuleNotFoundError: No module named 'no_such_module_at_all'"),
        ("x = 1\n\ndef f(:", 3, "SyntaxError: "),
        ("raise SystemExit(0)", 1, "SystemExit: 0"),
        ("raise KeyboardInterrupt", 1, "KeyboardInterrupt"),
    ],
)
def test_import_error_shows_the_users_line_and_no_server_frame(settings, records, text, line, error):
    (message,) = fail(settings, records, text)
    own = f'File "{os.path.join(settings.app_root, "score.py")}", line {line}'
    assert own in message
    assert error in message
    assert message.count("File ") == message.count(own)
    assert message.endswith(
        "\nThe above exception was the direct cause of the following exception:\n\n"
        f"{QUALIFIED}UserScriptImportException: Failed to import user script because it raised an unhandled exception\n"
    )


@pytest.mark.parametrize("name", ["folder", "score.txt", "folder.py"])
def test_folder_or_other_suffix(settings, records, name):
    settings.entry_script = name
    if name.startswith("folder"):
        os.mkdir(os.path.join(settings.app_root, name))
        messages = fail(settings, records, GOOD)
    else:
        messages = fail(settings, records, GOOD, name)
    assert os.path.join(settings.app_root, name) in messages[0]
    assert "ends in .py" in messages[0]
    assert f"{QUALIFIED}UserScriptImportException: Failed" in messages[0]


def test_latin_1_in_a_comment_does_not_crash_the_server(settings):
    with open(os.path.join(settings.app_root, "score.py"), "wb") as file:
        file.write(b"# -*- coding: latin-1 -*-\n# caf\xe9\n" + GOOD.encode())
    assert script.load(settings).run("x") == "x"


# Inspecting


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("x = 1", "User script at {file} does not have a init() function defined."),
        ("def init(): pass", "User script at {file} does not have a run() function defined."),
        ("def init(): pass\ndef run(): pass", "run() needs to accept an argument for input data."),
        (
            "def init(): pass\ndef run(request_headers): pass",
            'run() needs to accept an argument other than "request_headers".',
        ),
        ("def init(): pass\ndef run(*a): pass", "run() cannot accept positional-only arguments, *args, or **kwargs."),
        (
            "def init(): pass\ndef run(x, **k): pass",
            "run() cannot accept positional-only arguments, *args, or **kwargs.",
        ),
        (
            "def init(): pass\nrun = eval('lambda x, /: x')",
            "run() cannot accept positional-only arguments, *args, or **kwargs.",
        ),
        ("def init(): pass\nrun = 5", "run() has to be a function, or an object with a signature that can be called."),
    ],
)
def test_scripts_that_cannot_be_called(settings, records, text, message):
    (logged,) = fail(settings, records, text)
    file = os.path.join(settings.app_root, "score.py")
    assert logged.endswith(f"{QUALIFIED}UserScriptError: {message.format(file=file)}\n")


ADDS_ARGUMENT = """
import functools
def adds(f):
    @functools.wraps(f)
    def wrapper({}): return f(*args, context=1, **kwargs)
    return wrapper
"""


@pytest.mark.parametrize(
    ("definition", "passed", "missing"),
    [
        ("def run(data, context): pass", '"data"', '"context"'),
        ("def run(data, *, b, c, d=1): pass", '"data"', '"b" and "c"'),
        ("def run(data, request_headers, context): pass", '"data" and "request_headers"', '"context"'),
        ("run = lambda data, context: data", '"data"', '"context"'),
        ("class C:\n    def __call__(self, data, context): pass\nrun = C()", '"data"', '"context"'),
        ("class C:\n    def run(self, data, context): pass\nrun = C().run", '"data"', '"context"'),
        ("import functools\ndef f(x, data, y): pass\nrun = functools.partial(f, 1)", '"data"', '"y"'),
        (
            "from azureml_inference_server_http.api.aml_request import rawhttp\n"
            "@rawhttp\ndef run(request, context): pass",
            '"request"',
            '"context"',
        ),
    ],
)
def test_run_with_parameters_that_nothing_is_passed_for(settings, records, definition, passed, missing):
    (logged,) = fail(settings, records, "def init(): pass\n" + definition)
    assert logged.endswith(
        f"UserScriptError: run() is called with {passed} only, and nothing is passed for {missing}. Give {missing} a "
        "default value, or remove it.\n"
    )


def test_run_behind_a_decorator_that_does_not_take_the_keyword(settings, records):
    decorator = "import functools\ndef d(f):\n    @functools.wraps(f)\n    def w({}): return f(*a)\n    return w\n"
    for parameters in ("*a", "x", "data, /"):
        text = "def init(): pass\n" + decorator.format(parameters) + "@d\ndef run(data): return data"
        logged = fail(settings, records, text)[-1]
        assert 'run() is called with the keyword "data", which its decorator does not take.' in logged


@pytest.mark.parametrize(
    "definition",
    [
        "def run(data, context=1, *, x=2): return data",
        ADDS_ARGUMENT.format("*args, **kwargs") + "@adds\ndef run(data, context): return data",
        ADDS_ARGUMENT.format("data, kwargs={}").replace("*args", "data") + "@adds\ndef run(data, context): return data",
        "import functools\ndef f(data, context): return data\nrun = functools.partial(f, context=1)",
        "import functools\nclass C:\n    def f(self, data, context): return data\n"
        "    run = functools.partialmethod(f, context=1)\nrun = C().run",
        "import wrapt\n@wrapt.decorator\ndef adds(f, instance, args, kwargs): return f(*args, context=1, **kwargs)\n"
        "@adds\ndef run(data, context): return data",
        "class C:\n    def __new__(cls, data): return data\n    def __init__(self, data, context): pass\nrun = C",
    ],
)
def test_arguments_that_others_add_are_no_reason_to_refuse(settings, definition):
    loaded = load(settings, "def init(): pass\n" + definition)
    assert loaded.run(**{loaded.input_name: 3}) == 3


@pytest.mark.parametrize(
    ("definition", "said"),
    [
        ("async def init(): pass", "init() is async, but it is called, not awaited, so none of its code will run."),
        ("def init(): yield", "init() is a generator function, as it contains yield, so none of its code will run."),
        ("async def init(): yield", "init() is a generator function"),
    ],
)
def test_an_init_whose_code_does_not_run_is_told_at_load(settings, records, definition, said):
    load(settings, definition + "\ndef run(data): pass")
    ((level, logger, text),) = [record for record in records() if record[0] == "W"]
    assert (level, logger) == ("W", "azmlinfsrv")
    assert text.startswith(said)


def test_run_that_is_not_callable_keeps_pythons_words(settings, records):
    (logged,) = fail(settings, records, "def init(): pass\nrun = 5")
    assert logged.startswith("TypeError: 5 is not a callable object\n")


@pytest.mark.parametrize(
    ("signature", "input_name", "pass_headers"),
    [
        ("data", "data", False),
        ("data, other=1", "data", False),
        ("request_headers, data", "data", True),
        ("data, *, request_headers", "data", True),
        ("*, data", "data", False),
    ],
)
def test_undecorated(settings, records, signature, input_name, pass_headers):
    loaded = load(settings, f"def init(): pass\ndef run({signature}): return {input_name}")
    assert (loaded.mode, loaded.input_name, loaded.pass_headers) == ("text", input_name, pass_headers)
    assert records()[-2:] == [
        ("I", "azmlinfsrv.user_script", f"Found user script at {loaded.file}"),
        ("I", "azmlinfsrv.user_script", "run() is not decorated. Server will invoke it with the input in JSON string."),
    ]


@pytest.mark.parametrize(
    "definition",
    [
        "import functools\ndef f(x, data): return data\nrun = functools.partial(f, 1)",
        "class C:\n    def __call__(self, data): return data\nrun = C()",
        "class C:\n    def run(self, data): return data\nrun = C().run",
        "run = lambda data: data",
    ],
)
def test_any_callable_works(settings, definition):
    loaded = load(settings, "def init(): pass\n" + definition)
    assert loaded.run(**{loaded.input_name: 3}) == 3


@pytest.mark.parametrize(
    ("definition", "said"),
    [
        ("async def run(data): return data", "run() is async, but it is called, not awaited"),
        ("async def run(data): yield data", "run() is an async generator function, whose result is no JSON"),
        ("def run(data): yield data", "run() is a generator function, whose result is no JSON"),
        ("async def f(data): return data\nimport functools\nrun = functools.partial(f)", "run() is async"),
        (
            "from inference_schema.schema_decorators import input_schema\n"
            "from inference_schema.parameter_types.standard_py_parameter_type import StandardPythonParameterType as P\n"
            "@input_schema('a', P(1))\nasync def run(a): return a",
            "run() is async",
        ),
    ],
)
def test_functions_whose_result_cannot_be_sent_are_told_at_load(settings, records, definition, said):
    load(settings, "def init(): pass\n" + definition)
    ((level, logger, text),) = [record for record in records() if record[0] == "W"]
    assert (level, logger) == ("W", "azmlinfsrv")
    assert text.startswith(said)


def test_plain_functions_are_not_warned_of(settings, records):
    load(settings, "import asyncio\nasync def f(d): return d\ndef init(): pass\ndef run(d): return asyncio.run(f(d))")
    assert not [record for record in records() if record[0] == "W"]


def test_run_is_taken_once(settings):
    loaded = load(
        settings,
        """
        def init():
            global run
            run = lambda data: "second"
        def run(data): return "first"
    """,
    )
    loaded.initialize()
    assert loaded.run("") == "first"


SCHEMA = """
from inference_schema.schema_decorators import input_schema, output_schema
from inference_schema.parameter_types.standard_py_parameter_type import StandardPythonParameterType as P
def init(): pass
"""


@pytest.mark.parametrize(
    ("definition", "names", "pass_headers"),
    [
        ("@input_schema('b', P(1))\n@input_schema('a', P(1))\ndef run(a, b=2): pass", ["a", "b"], False),
        ("@output_schema(P(1))\ndef run(y): pass", ["y"], False),
        ("@input_schema('b', P(1))\ndef run(request_headers, b): pass", ["b"], True),
    ],
)
def test_schema(settings, records, definition, names, pass_headers):
    loaded = load(settings, SCHEMA + definition)
    assert (loaded.mode, loaded.pass_headers) == ("schema", pass_headers)
    assert [parameter.name for parameter in loaded.parameters] == names
    assert records()[-1][2] == (
        "run() is decorated with @input_schema. Server will invoke it with the following arguments: "
        f"{', '.join(names)}."
    )


def test_importing_inference_schema_alone_changes_nothing(settings):
    assert load(settings, SCHEMA + "def run(a): pass").mode == "text"


def test_raw(settings, records):
    loaded = load(
        settings,
        """
        from azureml.contrib.services.aml_request import AMLRequest, rawhttp
        def init(): pass
        @rawhttp
        def run(request): return request
    """,
    )
    assert (loaded.mode, loaded.input_name, loaded.needs_request) == ("raw", "request", True)
    assert records()[-1][2] == (
        "run() is decorated with @rawhttp. Server will invoke it with the flask request object."
    )


def test_raw_and_schema(settings, records):
    (message,) = fail(
        settings,
        records,
        SCHEMA
        + """
from azureml.contrib.services.aml_request import rawhttp
@rawhttp
@input_schema("a", P(1))
def run(a): pass
""",
    )
    assert message == f"{QUALIFIED}UserScriptError: run() cannot be decorated with both @rawhttp and @input_schema\n"


def test_driver_module(settings, records):
    with open(os.path.join(settings.app_root, "driver_of_score.py"), "w") as file:
        file.write("def init(): raise AssertionError\ndef run(x): return 'driver'")
    loaded = load(settings, "import driver_of_score as driver_module\ndef init(): pass\ndef run(y): return 'script'")
    loaded.initialize()
    assert (loaded.run(x=1), loaded.input_name) == ("driver", "x")
    assert (
        "I",
        "azmlinfsrv.user_script",
        f"Found driver script at {settings.app_root}/score.py and the score script at "
        f"{settings.app_root}/driver_of_score.py",
    ) in records()
    assert not any("Found user script" in message for _, _, message in records())


@pytest.mark.parametrize("value", ["5", "__import__('json')"])
def test_other_driver_modules_are_ignored(settings, value):
    assert load(settings, f"driver_module = {value}\n" + GOOD).input_name == "data"


def test_flask_is_imported_only_if_the_script_wants_it(tmp_path):
    code = textwrap.dedent("""
        import sys
        from types import SimpleNamespace
        from azureml_inference_server_http.scripting import import_path, script
        loaded = script.load(SimpleNamespace(app_root=sys.argv[1], entry_script="score.py", source_directory=None,
                                             model_dir=None, scoring_timeout_ms=1, host="", port=1,
                                             worker_class="process", worker_count=1, server_version=""))
        loaded.initialize()
        print(loaded.needs_request, bool({"flask", "inference_schema", "numpy"} & set(sys.modules)))
    """)
    in_init = GOOD.replace("pass", "import flask")
    in_run = GOOD.replace("return", "from flask import request; return")
    assert GOOD not in (in_init, in_run)
    for text, expected in ((GOOD, "False False"), (in_init, "True True"), (in_run, "True True")):
        (tmp_path / "score.py").write_text(text)
        done = subprocess.run(
            [sys.executable, "-c", code, str(tmp_path)], capture_output=True, text=True, timeout=30, check=True
        )
        assert done.stdout.strip() == expected


# init()


def test_init_records(settings, records):
    load(settings).initialize()
    assert records()[-2:] == [
        ("I", "azmlinfsrv.user_script", "Invoking user's init function"),
        ("I", "azmlinfsrv.user_script", "Users's init has completed successfully"),
    ]


@pytest.mark.parametrize(
    ("definition", "error"),
    [
        ("def init(): raise ValueError('boom')", "ValueError: boom"),
        ("def init(): raise SystemExit(4)", "SystemExit: 4"),
        ("def init(): raise KeyboardInterrupt", "KeyboardInterrupt"),
        ("def init(x): pass", "init() missing 1 required positional argument: 'x'"),
        ("init = 5", "TypeError: 'int' object is not callable"),
    ],
)
def test_init_failure(settings, records, definition, error):
    loaded = load(settings, definition + "\ndef run(data): pass")
    with pytest.raises(user_script.ScriptLoadError):
        loaded.initialize()
    first, second = [message for level, _, message in records() if level == "E"]
    assert first == "User's init function failed"
    assert second.startswith("Encountered Exception ")
    assert error in second
    assert second.endswith(f"\n{QUALIFIED}UserScriptException: Caught an unhandled exception from the user script\n")
    assert "azureml_inference_server_http/" not in second


def test_init_failure_lists_the_model_folder(settings, records, tmp_path):
    for name in ("m/z.txt", "m/a/b.txt", "m/A.bin"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text("")
    settings.model_dir = str(tmp_path / "m") + "/"
    loaded = load(settings, "def init(): 1/0\ndef run(data): pass")
    with pytest.raises(user_script.ScriptLoadError):
        loaded.initialize()
    listing = ["Model Directory Contents:", "m/", "    A.bin", "    a/", "        b.txt", "    z.txt"]
    assert records()[-6:] == [("I", "azmlinfsrv", line) for line in listing]


def test_model_folder_listing_is_cut(settings, records, tmp_path):
    for number in range(250):
        (tmp_path / "app" / f"f{number:03}").write_text("")
    settings.model_dir = "."
    loaded = load(settings, "def init(): 1/0\ndef run(data): pass")
    with pytest.raises(user_script.ScriptLoadError):
        loaded.initialize()
    listing = [message for _, _, message in records()]
    listing = listing[listing.index("Model Directory Contents:") :]
    assert listing[1] == "./"
    assert listing[2:4] == ["    f000", "    f001"]
    assert len(listing) == 202
    assert listing[-1] == "Output Truncated. First 200 lines shown."


def test_missing_model_folder_is_not_listed(settings, records):
    settings.model_dir = "/no/such/folder"
    loaded = load(settings, "def init(): 1/0\ndef run(data): pass")
    with pytest.raises(user_script.ScriptLoadError):
        loaded.initialize()
    assert not any("Model Directory" in message for _, _, message in records())


# Errors in run()


def failure_of(loaded, *arguments):
    try:
        loaded.run(*arguments)
    except BaseException as exc:
        return loaded.script_failed(exc)
    raise AssertionError("run() did not raise")


def test_script_failed_logs_the_contract_record(settings, records):
    loaded = load(settings, "def init(): pass\ndef run(data):\n    return 1 / 0")
    assert failure_of(loaded, "") == "score.py:3 ZeroDivisionError"
    assert records()[-2] == ("D", "azmlinfsrv", "Run function exception caught")
    level, name, message = records()[-1]
    assert (level, name) == ("E", "azmlinfsrv")
    assert message.startswith("Encountered Exception: Traceback (most recent call last):\n")
    assert f'File "{loaded.file}", line 3, in run' in message
    assert message.endswith(
        "ZeroDivisionError: division by zero\n"
        "\nThe above exception was the direct cause of the following exception:\n\n"
        f"{QUALIFIED}UserScriptException: Caught an unhandled exception from the user script\n"
    )


@pytest.mark.parametrize("error", ["SystemExit(3)", "KeyboardInterrupt()", "GeneratorExit()"])
def test_base_exceptions_are_script_errors(settings, records, error):
    loaded = load(settings, f"def init(): pass\ndef run(data): raise {error}")
    assert failure_of(loaded, "") == f"score.py:2 {error.partition('(')[0]}"
    assert "UserScriptException: Caught" in records()[-1][2]


def test_timeout_is_logged_as_such(settings, records):
    loaded = load(settings, "def init(): pass\ndef run(data): raise TimeoutError")
    assert failure_of(loaded, "") == "score.py:2 TimeoutError"
    assert records()[-1][2].endswith(
        f"{QUALIFIED}UserScriptTimeout: Script failed to finish execution within the allocated time: 400ms\n"
    )


def test_location_is_the_deepest_own_frame(settings):
    with open(os.path.join(settings.app_root, "helper_of_score.py"), "w") as file:
        file.write("import json\ndef parse(text):\n    return json.loads(text)\n")
    loaded = load(
        settings, "import helper_of_score\ndef init(): pass\ndef run(data):\n    return helper_of_score.parse(data)"
    )
    assert failure_of(loaded, "{") == "helper_of_score.py:3 JSONDecodeError"


def test_location_ignores_packages_installed_under_the_app_root(settings):
    package = os.path.join(settings.app_root, "venv", "lib", "site-packages")
    os.makedirs(package)
    with open(os.path.join(package, "installed_for_score.py"), "w") as file:
        file.write("def f(): raise KeyError\n")
    loaded = load(
        settings,
        f"""
        import sys
        sys.path.append({package!r})
        import installed_for_score
        def init(): pass
        def run(data): installed_for_score.f()
    """,
    )
    assert failure_of(loaded, "") == "score.py:6 KeyError"


def test_location_in_the_scripts_own_folder_and_ascii_only(settings):
    settings.entry_script = "code/été.py"
    loaded = load(
        settings,
        """
        class Fehlör(Exception): pass
        def init(): pass
        def run(data): raise Fehlör("secret")
    """,
        settings.entry_script,
    )
    assert failure_of(loaded, "") == "?t?.py:4 Fehl?r"


def test_location_without_own_frame(settings):
    assert failure_of(load(settings)) == "TypeError"


def test_internal_failed(settings, records):
    loaded = load(settings)
    try:
        loaded.render({"predictions": [1, {2}]}, "POST")
    except TypeError as exc:
        loaded.internal_failed(exc)
    level, name, message = records()[-1]
    assert (level, name) == ("E", "azmlinfsrv")
    # The test's own frame is first. The worker loop has none, and frames of json are left out.
    assert message.startswith("Encountered Exception: Traceback (most recent call last):\n")
    assert "json/" not in message
    assert message.endswith(
        "ResultTypeError: Object of type set is not JSON serializable, found at $.predictions[1]: set\n"
    )


def test_worker_loop_methods_delegate(settings):
    loaded = load(settings)
    assert loaded.query_input(b"a=1") == '{"a": 1}'
    assert loaded.render(None, "GET")[3] == b"{}"


def test_schema_arguments_and_call_with_request(settings):
    loaded = load(
        settings,
        SCHEMA
        + """
import flask
@input_schema("a", P(1))
def run(a, b=2): return [flask.request.path, a, b]
""",
    )
    loaded.initialize()
    kwargs = loaded.schema_arguments("POST", "application/json", b"", b'{"a": 5}')
    assert loaded.bind_parameters({"a": 5}) == kwargs == {"a": 5, "b": 2}
    answer = loaded.call_with_request("POST", "/score", 1, [("host", "h")], b"", "127.0.0.1:1", "id", kwargs)
    assert answer.body == b'["/score", 5, 2]'


def test_errors_inside_a_request_context_show_no_server_frames(settings, records):
    loaded = load(
        settings,
        """
        from azureml.contrib.services.aml_request import rawhttp
        def init(): pass
        @rawhttp
        def run(request):
            return 1 / 0
    """,
    )
    answer = loaded.call_with_request("POST", "/score", 1, [], b"", "127.0.0.1:1", "id", None)
    assert (answer.status, answer.location) == (500, "score.py:6 ZeroDivisionError")
    message = records()[-1][2]
    assert message.count("File ") == message.count(f'File "{loaded.file}"') == 1
