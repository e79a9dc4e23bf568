"""Finding and importing the user's script (contract section 4)."""

from __future__ import annotations

import os
import sys

import pytest
from loading import GOOD, QUALIFIED, fail, load

from azureml_inference_server_http.scripting import import_path
from azureml_inference_server_http.scripting import loading as scripting
from azureml_inference_server_http.server import user_script

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


def test_a_failing_import_leaves_the_module_of_the_script_before_it(settings, log):
    fail(settings, log, "1 / 0")
    assert "entry_module" not in sys.modules
    loaded = load(settings)
    fail(settings, log, "1 / 0")
    assert sys.modules["entry_module"].run is loaded.run


def test_load_again_imports_the_script_without_init(settings, monkeypatch):
    load(settings, "state = []\ndef init(): state.append(1)\ndef run(data): return state")
    monkeypatch.setenv("AZUREML_ENTRY_SCRIPT", "score.py")
    monkeypatch.setenv("AML_APP_ROOT", settings.app_root)
    first = sys.modules["entry_module"]
    scripting.load_again()
    assert sys.modules["entry_module"] is not first
    assert sys.modules["entry_module"].state == []


def test_absolute_entry_script_wins_over_the_app_root(settings, tmp_path):
    (tmp_path / "other.py").write_text(GOOD)
    settings.entry_script = str(tmp_path / "other.py")
    assert scripting.load(settings).file == str(tmp_path / "other.py")


def test_load_extends_sys_path(settings):
    before = sys.path[:]
    load(settings)
    scripting.load(settings)
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
def test_a_failing_import_of_something_beside_the_script_says_what_to_do(settings, log, statement, neighbour):
    folder = os.path.join(settings.app_root, "code")
    os.makedirs(os.path.dirname(os.path.join(folder, neighbour)))
    open(os.path.join(folder, neighbour), "w").close()
    settings.entry_script = "code/score.py"
    traceback_text, advice = fail(settings, log, statement, "code/score.py")
    assert "ModuleNotFoundError: No module named 'neighbour'" in traceback_text
    assert advice.startswith(NEIGHBOUR.format(folder))
    loaded = load(settings, f"def init(): {statement}\ndef run(data): pass", "code/score.py")
    with pytest.raises(user_script.ScriptLoadError):
        loaded.initialize()
    assert log()[-1][2].startswith(NEIGHBOUR.format(folder))


def test_other_failing_imports_are_left_alone(settings, log):
    settings.entry_script = "code/score.py"
    assert len(fail(settings, log, "import neighbour", "code/score.py")) == 1


def test_main_is_the_default(settings, log):
    settings.entry_script = None
    sys.modules.pop("main", None)
    loaded = load(settings, "def init(): pass\ndef run(data): return __name__", "main.py")
    assert loaded.run("") == "main"
    assert ("I", "azmlinfsrv.user_script", f"Found user script at {settings.app_root}/main.py") in log()


def test_main_that_raises(settings, log):
    settings.entry_script = None
    sys.modules.pop("main", None)
    (message,) = fail(settings, log, "\nraise SystemExit", "main.py")
    assert message.count("File ") == message.count(f'File "{settings.app_root}/main.py", line 2') == 1
    assert f"{QUALIFIED}UserScriptImportException: Failed to import user script" in message


def test_main_from_the_source_directory(settings):
    settings.entry_script, settings.source_directory = None, "src"
    sys.modules.pop("main", None)
    assert load(settings, GOOD, "src/main.py").file.endswith("src/main.py")


def test_main_missing(settings, log):
    settings.entry_script = None
    sys.modules.pop("main", None)
    assert fail(settings, log, "", "other.py") == [
        "No score script found. Expected score script main.py.",
        f"Expected script to be found in PYTHONPATH: {sys.path}",
        "Current contents of AML_APP_ROOT: ['other.py']",
    ]


def test_main_missing_without_app_root(settings, log):
    settings.entry_script, settings.app_root = None, "/no/such/folder"
    sys.modules.pop("main", None)
    with pytest.raises(user_script.ScriptLoadError):
        scripting.load(settings)
    assert log()[-1][2] == "The directory /no/such/folder not an accessible directory in the container."


def test_missing_file_names_the_path(settings, log):
    settings.entry_script = "nothing.py"
    messages = fail(settings, log, GOOD)
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
def test_import_error_shows_the_users_line_and_no_server_frame(settings, log, text, line, error):
    (message,) = fail(settings, log, text)
    own = f'File "{os.path.join(settings.app_root, "score.py")}", line {line}'
    assert own in message
    assert error in message
    assert message.count("File ") == message.count(own)
    assert message.endswith(
        "\nThe above exception was the direct cause of the following exception:\n\n"
        f"{QUALIFIED}UserScriptImportException: Failed to import user script because it raised an unhandled exception\n"
    )


@pytest.mark.parametrize("name", ["folder", "score.txt", "folder.py"])
def test_folder_or_other_suffix(settings, log, name):
    settings.entry_script = name
    if name.startswith("folder"):
        os.mkdir(os.path.join(settings.app_root, name))
        messages = fail(settings, log, GOOD)
    else:
        messages = fail(settings, log, GOOD, name)
    assert os.path.join(settings.app_root, name) in messages[0]
    assert "ends in .py" in messages[0]
    assert f"{QUALIFIED}UserScriptImportException: Failed" in messages[0]


def test_latin_1_in_a_comment_does_not_crash_the_server(settings):
    with open(os.path.join(settings.app_root, "score.py"), "wb") as file:
        file.write(b"# -*- coding: latin-1 -*-\n# caf\xe9\n" + GOOD.encode())
    assert scripting.load(settings).run("x") == "x"
