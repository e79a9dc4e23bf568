"""Which run() and init() can be called, and what is known of their parameters (contract sections 4, 10
and 15)."""

from __future__ import annotations

import os
import subprocess
import sys
import textwrap

import pytest
from loading import GOOD, QUALIFIED, SCHEMA, fail, load

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
def test_scripts_that_cannot_be_called(settings, log, text, message):
    (logged,) = fail(settings, log, text)
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
def test_run_with_parameters_that_nothing_is_passed_for(settings, log, definition, passed, missing):
    (logged,) = fail(settings, log, "def init(): pass\n" + definition)
    assert logged.endswith(
        f"UserScriptError: run() is called with {passed} only, and nothing is passed for {missing}. Give {missing} a "
        "default value, or remove it.\n"
    )


def test_run_behind_a_decorator_that_does_not_take_the_keyword(settings, log):
    decorator = "import functools\ndef d(f):\n    @functools.wraps(f)\n    def w({}): return f(*a)\n    return w\n"
    for parameters in ("*a", "x", "data, /"):
        text = "def init(): pass\n" + decorator.format(parameters) + "@d\ndef run(data): return data"
        logged = fail(settings, log, text)[-1]
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
        ("def init(): yield", "init() is a generator function, as it contains yield, so none of its code will run."),
        ("async def init(): yield", "init() is a generator function"),
    ],
)
def test_an_init_whose_code_does_not_run_is_told_at_load(settings, log, definition, said):
    load(settings, definition + "\ndef run(data): pass")
    ((level, logger, text),) = [record for record in log() if record[0] == "W"]
    assert (level, logger) == ("W", "azmlinfsrv")
    assert text.startswith(said)


def test_run_that_is_not_callable_keeps_pythons_words(settings, log):
    (logged,) = fail(settings, log, "def init(): pass\nrun = 5")
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
def test_undecorated(settings, log, signature, input_name, pass_headers):
    loaded = load(settings, f"def init(): pass\ndef run({signature}): return {input_name}")
    assert (loaded.mode, loaded.input_name, loaded.pass_headers) == ("text", input_name, pass_headers)
    assert log()[-2:] == [
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
        ("def run(data): yield data", "run() is a generator function, whose result is no JSON"),
    ],
)
def test_functions_whose_result_cannot_be_sent_are_told_at_load(settings, log, definition, said):
    load(settings, "def init(): pass\n" + definition)
    ((level, logger, text),) = [record for record in log() if record[0] == "W"]
    assert (level, logger) == ("W", "azmlinfsrv")
    assert text.startswith(said)


@pytest.mark.parametrize(
    ("definition", "expected"),
    [
        ("async def run(data): return data", True),
        ("async def run(data): yield data", True),
        ("async def f(data): return data\nimport functools\nrun = functools.partial(f)", True),
        ("class C:\n    async def __call__(self, data): return data\nrun = C()", True),
        ("class C:\n    async def run(self, data): return data\nrun = C().run", True),
        (
            "from inference_schema.schema_decorators import input_schema\n"
            "from inference_schema.parameter_types.standard_py_parameter_type import StandardPythonParameterType as P\n"
            "@input_schema('a', P(1))\nasync def run(a): return a",
            True,
        ),
        (
            "import asyncio, functools\nasync def f(data): return data\n"
            "@functools.wraps(f)\ndef run(data): return asyncio.run(f(data))",
            False,
        ),
        ("def run(data): return data", False),
        ("class run:\n    def __init__(self, data): pass\n    async def __call__(self): pass", False),
    ],
)
def test_an_async_run_is_awaited(settings, log, definition, expected):
    assert load(settings, "def init(): pass\n" + definition).is_async is expected
    assert any("(--max_concurrency)" in text for _, _, text in log()) is expected
    assert not [record for record in log() if record[0] == "W"]


def test_max_concurrency_for_a_plain_run_is_warned_of(settings, log):
    settings.origins["max_concurrency"].kind = "option"
    load(settings)
    assert next(text for level, _, text in log() if level == "W").startswith("--max_concurrency has no effect")


def test_plain_functions_are_not_warned_of(settings, log):
    load(settings, "import asyncio\nasync def f(d): return d\ndef init(): pass\ndef run(d): return asyncio.run(f(d))")
    assert not [record for record in log() if record[0] == "W"]


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


@pytest.mark.parametrize(
    ("definition", "names", "pass_headers"),
    [
        ("@input_schema('b', P(1))\n@input_schema('a', P(1))\ndef run(a, b=2): pass", ["a", "b"], False),
        ("@output_schema(P(1))\ndef run(y): pass", ["y"], False),
        ("@input_schema('b', P(1))\ndef run(request_headers, b): pass", ["b"], True),
    ],
)
def test_schema(settings, log, definition, names, pass_headers):
    loaded = load(settings, SCHEMA + definition)
    assert (loaded.mode, loaded.pass_headers) == ("schema", pass_headers)
    assert [parameter.name for parameter in loaded.parameters] == names
    assert log()[-1][2] == (
        "run() is decorated with @input_schema. Server will invoke it with the following arguments: "
        f"{', '.join(names)}."
    )


def test_importing_inference_schema_alone_changes_nothing(settings):
    assert load(settings, SCHEMA + "def run(a): pass").mode == "text"


def test_raw(settings, log):
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
    assert log()[-1][2] == ("run() is decorated with @rawhttp. Server will invoke it with the flask request object.")


def test_raw_and_schema(settings, log):
    (message,) = fail(
        settings,
        log,
        SCHEMA
        + """
from azureml.contrib.services.aml_request import rawhttp
@rawhttp
@input_schema("a", P(1))
def run(a): pass
""",
    )
    assert message == f"{QUALIFIED}UserScriptError: run() cannot be decorated with both @rawhttp and @input_schema\n"


def test_driver_module(settings, log):
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
    ) in log()
    assert not any("Found user script" in message for _, _, message in log())


@pytest.mark.parametrize("value", ["5", "__import__('json')"])
def test_other_driver_modules_are_ignored(settings, value):
    assert load(settings, f"driver_module = {value}\n" + GOOD).input_name == "data"


def test_flask_is_imported_only_if_the_script_wants_it(tmp_path):
    code = textwrap.dedent("""
        import sys
        from types import SimpleNamespace
        from azureml_inference_server_http.scripting import import_path, loading
        loaded = loading.load(SimpleNamespace(app_root=sys.argv[1], entry_script="score.py", source_directory=None,
                                              model_dir=None, scoring_timeout_ms=1, host="", port=1,
                                              worker_class="process", worker_count=1, server_version="",
                                              max_concurrency=1, serves_v2=False,
                                              worker_threads=1,
                                              origins={"max_concurrency": SimpleNamespace(kind="default")}))
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
