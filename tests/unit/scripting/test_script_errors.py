"""init(), errors of the script, and what is logged about them (contract sections 4 and 8)."""

from __future__ import annotations

import os
import sys

import pytest
from loading import QUALIFIED, SCHEMA, load

from azureml_inference_server_http.server import user_script

# init()


def test_init_records(settings, log):
    load(settings).initialize()
    assert log()[-2:] == [
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
def test_init_failure(settings, log, definition, error):
    loaded = load(settings, definition + "\ndef run(data): pass")
    with pytest.raises(user_script.ScriptLoadError):
        loaded.initialize()
    first, second = [message for level, _, message in log() if level == "E"]
    assert first == "User's init function failed"
    assert second.startswith("Encountered Exception ")
    assert error in second
    assert second.endswith(f"\n{QUALIFIED}UserScriptException: Caught an unhandled exception from the user script\n")
    assert "azureml_inference_server_http/" not in second


def test_init_failure_lists_the_model_folder(settings, log, tmp_path):
    for name in ("m/z.txt", "m/a/b.txt", "m/A.bin"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text("")
    settings.model_dir = str(tmp_path / "m") + "/"
    loaded = load(settings, "def init(): 1/0\ndef run(data): pass")
    with pytest.raises(user_script.ScriptLoadError):
        loaded.initialize()
    listing = ["Model Directory Contents:", "m/", "    A.bin", "    a/", "        b.txt", "    z.txt"]
    assert log()[-6:] == [("I", "azmlinfsrv", line) for line in listing]


def test_model_folder_listing_is_cut(settings, log, tmp_path):
    for number in range(250):
        (tmp_path / "app" / f"f{number:03}").write_text("")
    settings.model_dir = "."
    loaded = load(settings, "def init(): 1/0\ndef run(data): pass")
    with pytest.raises(user_script.ScriptLoadError):
        loaded.initialize()
    listing = [message for _, _, message in log()]
    listing = listing[listing.index("Model Directory Contents:") :]
    assert listing[1] == "./"
    assert listing[2:4] == ["    f000", "    f001"]
    assert len(listing) == 202
    assert listing[-1] == "Output Truncated. First 200 lines shown."


def test_missing_model_folder_is_not_listed(settings, log):
    settings.model_dir = "/no/such/folder"
    loaded = load(settings, "def init(): 1/0\ndef run(data): pass")
    with pytest.raises(user_script.ScriptLoadError):
        loaded.initialize()
    assert not any("Model Directory" in message for _, _, message in log())


# Errors in run()


def failure_of(loaded, *arguments):
    try:
        loaded.run(*arguments)
    except BaseException as exc:
        return loaded.script_failed(exc)
    raise AssertionError("run() did not raise")


def test_script_failed_logs_the_contract_record(settings, log):
    loaded = load(settings, "def init(): pass\ndef run(data):\n    return 1 / 0")
    assert failure_of(loaded, "") == "score.py:3 ZeroDivisionError"
    assert log()[-2] == ("D", "azmlinfsrv", "Run function exception caught")
    level, name, message = log()[-1]
    assert (level, name) == ("E", "azmlinfsrv")
    assert message.startswith("Encountered Exception: Traceback (most recent call last):\n")
    assert f'File "{loaded.file}", line 3, in run' in message
    assert message.endswith(
        "ZeroDivisionError: division by zero\n"
        "\nThe above exception was the direct cause of the following exception:\n\n"
        f"{QUALIFIED}UserScriptException: Caught an unhandled exception from the user script\n"
    )


@pytest.mark.parametrize("error", ["SystemExit(3)", "KeyboardInterrupt()", "GeneratorExit()"])
def test_base_exceptions_are_script_errors(settings, log, error):
    loaded = load(settings, f"def init(): pass\ndef run(data): raise {error}")
    assert failure_of(loaded, "") == f"score.py:2 {error.partition('(')[0]}"
    assert "UserScriptException: Caught" in log()[-1][2]


def test_timeout_is_logged_as_such(settings, log):
    loaded = load(settings, "def init(): pass\ndef run(data): raise TimeoutError")
    assert failure_of(loaded, "") == "score.py:2 TimeoutError"
    assert log()[-1][2].endswith(
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


def test_internal_failed(settings, log):
    loaded = load(settings)
    try:
        loaded.render({"predictions": [1, {2}]}, "POST")
    except TypeError as exc:
        loaded.internal_failed(exc)
    level, name, message = log()[-1]
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
    answer = loaded.call_with_request(
        "POST", "/score", 1, [("host", "h")], b"", ("127.0.0.1:1", "", None), "id", kwargs
    )
    assert answer.body == b'["/score", 5, 2]'


def test_errors_inside_a_request_context_show_no_server_frames(settings, log):
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
    answer = loaded.call_with_request("POST", "/score", 1, [], b"", ("127.0.0.1:1", "", None), "id", None)
    assert (answer.status, answer.location) == (500, "score.py:6 ZeroDivisionError")
    message = log()[-1][2]
    assert message.count("File ") == message.count(f'File "{loaded.file}"') == 1


@pytest.mark.parametrize(
    ("module", "package"), [("flask.views", "flask"), ("inference_schema", "inference-schema"), ("werkzeug", "flask")]
)
def test_a_package_that_the_server_requires_and_that_is_not_there_is_named(settings, log, monkeypatch, module, package):
    monkeypatch.setitem(sys.modules, module.partition(".")[0], None)
    with pytest.raises(user_script.ScriptLoadError):
        load(settings, f"import {module}\ndef init(): pass\ndef run(data): pass")
    assert log()[-1] == (
        "E",
        "azmlinfsrv",
        f"The script needs the package {package}, which azureml-inference-server-http requires, and which is not "
        f"installed. Install it: pip install {package}",
    )
