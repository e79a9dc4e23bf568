"""The table of everything that ``azmlinfsrv validate`` can find: code, name, severity, what it means, how to mend it.

Owns the codes, which never change their meaning: pipelines name them in ``--ignore``. ``docs/findings.md`` is made
from this table (``tools/generate_docs.py``). Detecting is done by ``detection.py`` and ``command.py``. One file of more
than 400 lines, because it is data.
"""

from __future__ import annotations

from typing import NamedTuple

ERROR, WARNING, NOTE = "error", "warning", "note"

# The steps of a validation, as the report calls them.
SETTINGS, SCRIPT, IMPORT, SIGNATURES = "settings", "script", "import", "signatures"
INIT, SWAGGER, SAMPLE, ENVIRONMENT, MEMORY = "init()", "swagger", "sample", "environment", "memory"


class Kind(NamedTuple):
    """A kind of finding. ``example`` is Python code, a command or a file that leads to it."""

    code: str
    name: str
    severity: str
    explanation: str
    remedy: str
    example: str


class Place(NamedTuple):
    """A line in a file of the user."""

    file: str
    line: int | None


class Finding(NamedTuple):
    """One thing that was found. ``step`` is one of the constants above, ``sample`` the name of the sample that showed
    it. ``traceback`` ends in the user's own error."""

    kind: Kind
    message: str
    step: str
    place: Place | None = None
    sample: str | None = None
    traceback: str = ""


KINDS = (
    # ---- Settings and files
    Kind(
        "AZ101",
        "script-not-found",
        ERROR,
        "There is no file with the name that `--entry_script` gives, or it is a folder, or its name does not end in "
        "`.py`.",
        "Correct the path. A relative path starts from the current folder.",
        "azmlinfsrv validate --entry_script scroe.py",
    ),
    Kind(
        "AZ102",
        "setting-refused",
        ERROR,
        "A setting has a value that the server refuses, so it would not start.",
        "Change the value. The message names the option, variable or key, and what is allowed.",
        "WORKER_TIMEOUT=soon azmlinfsrv validate --entry_script score.py",
    ),
    Kind(
        "AZ103",
        "settings-file-unusable",
        ERROR,
        "A `config.json` or `logging.json` cannot be read, so the server would not start.",
        "Correct the file: it must be UTF-8 text with one JSON object. Or remove it.",
        '{"SCORING_TIMEOUT_MS": 60000,}',
    ),
    Kind(
        "AZ104",
        "setting-without-effect",
        WARNING,
        "A setting was given that the server does not use: its name is mistyped, or another setting makes it useless.",
        "Correct the name, or remove the setting.",
        "AZMLINFSRV_MAX_QEUE=10 azmlinfsrv validate --entry_script score.py",
    ),
    Kind(
        "AZ105",
        "model-dir-missing",
        ERROR,
        "The folder of `--model_dir` or `AZUREML_MODEL_DIR` does not exist.",
        "Correct the path, or download the model before the check.",
        "azmlinfsrv validate --entry_script score.py --model_dir modles",
    ),
    # ---- Importing the script
    Kind(
        "AZ201",
        "import-failed",
        ERROR,
        "The script raised an exception while Python imported it. The server would exit with code 3.",
        "Mend the line that the finding names. Code that needs the model belongs in `init()`.",
        "THRESHOLDS = {'low': 0.1}\nLIMIT = THRESHOLDS['high']",
    ),
    Kind(
        "AZ202",
        "syntax-error",
        ERROR,
        "The script, or a file that it imports, is not valid Python for the Python that runs it.",
        "Correct the line. If it is valid in a newer Python, use that Python.",
        "def run(data)\n    return data",
    ),
    Kind(
        "AZ203",
        "module-not-found",
        ERROR,
        "The script imports a module that is not installed.",
        "Install the package in this environment, and name it in the environment's file.",
        "import pandsa",
    ),
    Kind(
        "AZ204",
        "script-exits",
        ERROR,
        "The script called `sys.exit()` or raised `SystemExit` while it was imported or initialised.",
        "Remove the call, or put it under `if __name__ == '__main__':`.",
        "import sys\n\nif 'MODE' not in globals():\n    sys.exit('no mode')",
    ),
    Kind(
        "AZ205",
        "import-hangs",
        ERROR,
        "The import of the script did not end within `--timeout`.",
        "Move slow work into `init()`. If the import is slow by nature, give a longer `--timeout`.",
        "while not os.path.exists('/tmp/ready'):\n    time.sleep(1)",
    ),
    Kind(
        "AZ206",
        "import-crashes",
        ERROR,
        "The process ended while it imported the script: native code crashed, or the script called `os._exit()`.",
        "Look at the line that the finding names. Crashes in native code often come from packages that were built "
        "for other versions of each other.",
        "import ctypes\nctypes.string_at(0)",
    ),
    Kind(
        "AZ207",
        "module-beside-script",
        ERROR,
        "The script imports a file beside it. The server imports from the current folder and from `AML_APP_ROOT` only.",
        "Start the command in the script's folder, or set `AML_APP_ROOT` to that folder, as in the deployment.",
        "# azmlinfsrv validate --entry_script src/score.py, with a file src/features.py\nimport features",
    ),
    # ---- Signatures
    Kind(
        "AZ211",
        "no-init",
        ERROR,
        "The script has no `init()`, which the server calls once before the first request.",
        "Define `init()`. It may be empty.",
        "def run(data):\n    return data",
    ),
    Kind(
        "AZ212",
        "no-run",
        ERROR,
        "The script has no `run()`, which the server calls for each request.",
        "Define `run(data)`.",
        "def init():\n    pass",
    ),
    Kind(
        "AZ213",
        "signature-refused",
        ERROR,
        "`run()` has parameters that the server cannot fill, or decorators that exclude each other.",
        "Give `run()` one named parameter for the input, or one for each `@input_schema`, and perhaps "
        "`request_headers`.",
        "def run(*args):\n    return args",
    ),
    Kind(
        "AZ214",
        "run-not-awaited",
        ERROR,
        "`run()` is not `async` and contains `yield`, or returns a coroutine or a generator. The server does not await "
        "or iterate that, so every request is answered 500.",
        "Write `async def run()`, or a plain `run()` that returns `AMLResponse(generator, 200)`.",
        "def run(data):\n    yield predict(data)",
    ),
    Kind(
        "AZ215",
        "init-not-awaited",
        ERROR,
        "`init()` contains `yield`, so none of its code runs.",
        "Write `init()` without `yield`.",
        "def init():\n    yield load()",
    ),
    # ---- init()
    Kind(
        "AZ301",
        "init-failed",
        ERROR,
        "`init()` raised an exception. The server would exit with code 3.",
        "Mend the line that the finding names.",
        "def init():\n    global model\n    model = load(version=None)",
    ),
    Kind(
        "AZ302",
        "model-file-missing",
        ERROR,
        "`init()` failed because a file or folder is not there.",
        "Correct the path, or give the model's folder with `--model_dir`. Azure puts the files of a model version "
        "into a folder below `AZUREML_MODEL_DIR`.",
        "def init():\n    path = os.path.join(os.environ['AZUREML_MODEL_DIR'], 'modle.pkl')\n    open(path, 'rb')",
    ),
    Kind(
        "AZ303",
        "model-dir-not-set",
        ERROR,
        "The script reads `AZUREML_MODEL_DIR`, which is not set.",
        "Give the model's folder with `--model_dir`, as Azure does by this variable.",
        "def init():\n    folder = os.environ['AZUREML_MODEL_DIR']",
    ),
    Kind(
        "AZ304",
        "init-hangs",
        ERROR,
        "`init()` did not return within `--timeout`.",
        "Look at the line that the finding names. If `init()` is slow by nature, give a longer `--timeout`.",
        "def init():\n    requests.get('http://10.0.0.1/model')",
    ),
    Kind(
        "AZ305",
        "init-crashes",
        ERROR,
        "The process ended in `init()`: native code crashed, memory ran out, or the script called `os._exit()`.",
        "Look at the line that the finding names, and at the memory that the model needs.",
        "def init():\n    os._exit(1)",
    ),
    Kind(
        "AZ306",
        "model-file-missed",
        WARNING,
        "`init()` returned, but it tried to open a file in the model's folder that is not there.",
        "Correct the path, or let `init()` fail. A script that goes on without its model fails later, or answers "
        "wrongly.",
        "def init():\n    try:\n        load(os.path.join(folder, 'modle.pkl'))\n    except OSError:\n        pass",
    ),
    # ---- swagger
    Kind(
        "AZ351",
        "swagger-failed",
        ERROR,
        "The swagger documents cannot be made: a file of the user is not JSON, or a sample of the schema is not.",
        "Correct the file, or the sample that `@input_schema` or `@output_schema` has.",
        "@input_schema('data', StandardPythonParameterType({'when': object()}))\ndef run(data):\n    return data",
    ),
    # ---- Calls of run()
    Kind(
        "AZ401",
        "sample-unusable",
        ERROR,
        "A sample, or the expected answer beside it, is not written as this command needs it.",
        "Correct the file. The message names the part that is wrong.",
        '{"method": "POST", "bdoy": {"data": [1]}}',
    ),
    Kind(
        "AZ402",
        "run-failed",
        ERROR,
        "`run()` raised an exception. The client gets status 500.",
        "Mend the line that the finding names. If the sample is wrong on purpose, answer it with "
        "`AMLResponse(message, 400)`, and write the status that you expect into `NAME.response.json`.",
        "def run(data):\n    return json.loads(data)['rows']",
    ),
    Kind(
        "AZ403",
        "sample-refused",
        ERROR,
        "The server refused the sample before it called `run()`: it does not fit the script's schema, or exceeds a "
        "limit.",
        "Correct the sample, or the schema. The message has the server's answer.",
        '{"dta": [[1, 2]]}',
    ),
    Kind(
        "AZ404",
        "run-hangs",
        ERROR,
        "`run()` did not return within `--timeout`, or within the server's own limits.",
        "Look at the line that the finding names. Give every call of another service a time limit.",
        "def run(data):\n    while True:\n        time.sleep(1)",
    ),
    Kind(
        "AZ405",
        "run-crashes",
        ERROR,
        "The process ended in `run()`: native code crashed, memory ran out, or the script called `os._exit()`.",
        "Look at the line that the finding names. Every request that does this costs a restart of the worker.",
        "def run(data):\n    os._exit(1)",
    ),
    Kind(
        "AZ406",
        "not-called",
        NOTE,
        "`run()` was not called: no sample was given, and the script has no `@input_schema` to make one from.",
        "Give a request body with `--sample FILE`.",
        "azmlinfsrv validate --entry_script score.py",
    ),
    # ---- Results
    Kind(
        "AZ501",
        "status-in-tuple",
        ERROR,
        "`run()` returned a tuple such as `{...}, 400`. The server sends it as a JSON list with status 200.",
        "Return `AMLResponse({...}, 400, json_str=True)`.",
        "def run(data):\n    return {'error': 'no such flower'}, 404",
    ),
    Kind(
        "AZ502",
        "json-twice",
        WARNING,
        "`run()` returned text that is JSON already. The server writes it as JSON once more, so clients get a string "
        "and have to decode it twice.",
        "Return the object instead of its text. If clients rely on the text, use `--ignore AZ502`.",
        "def run(data):\n    return json.dumps({'score': 1})",
    ),
    Kind(
        "AZ503",
        "not-a-number",
        WARNING,
        "The result has a `NaN` or an infinity. They are no JSON: most clients fail to parse the answer.",
        "Replace them, for example by `None`.",
        "def run(data):\n    return {'score': float('nan')}",
    ),
    Kind(
        "AZ504",
        "not-renderable",
        ERROR,
        "The result has a value that cannot be written as JSON, so the client gets status 500.",
        "Convert the value: a set to a list, an object to a dict.",
        "def run(data):\n    return {'labels': {'a', 'b'}}",
    ),
    Kind(
        "AZ505",
        "response-from-dict",
        ERROR,
        "A response was made from a dict without `json_str=True`. Its body is the keys of the dict, one after the "
        "other.",
        "Write `AMLResponse({...}, 200, json_str=True)`.",
        "def run(data):\n    return AMLResponse({'score': 1}, 200)",
    ),
    Kind(
        "AZ506",
        "returns-nothing",
        WARNING,
        "`run()` returned `None`, which the server sends as `{}`.",
        "Return the result. A branch without `return` is the usual reason.",
        "def run(data):\n    model.predict(data)",
    ),
    Kind(
        "AZ507",
        "other-answer",
        ERROR,
        "The answer differs from the expected one in `NAME.response.json`.",
        "Mend the script; or correct the expected answer, allow a difference with `--rtol` or `--atol`, or leave a "
        "part out with `--ignore_path`.",
        '{"scores": [4.5]}',
    ),
    Kind(
        "AZ508",
        "error-status",
        ERROR,
        "The script answered with a status of 400 or above by itself, and no other status was expected.",
        "If the sample is wrong on purpose, write the status that you expect into `NAME.response.json`.",
        "def run(data):\n    return AMLResponse('no rows', 400)",
    ),
    Kind(
        "AZ511",
        "too-slow",
        ERROR,
        "A call of `run()` took longer than `--budget_ms`.",
        "Make `run()` faster, for example by loading in `init()` what does not change. Or raise the budget.",
        "azmlinfsrv validate --entry_script score.py --sample rows.json --budget_ms 50",
    ),
    Kind(
        "AZ512",
        "too-large",
        ERROR,
        "The process that runs the script used more memory than `--budget_mb`.",
        "Load a smaller model, free what `init()` no longer needs, or raise the budget.",
        "azmlinfsrv validate --entry_script score.py --budget_mb 500",
    ),
    # ---- State between calls
    Kind(
        "AZ601",
        "answers-differ",
        WARNING,
        "Two equal requests, one after the other, got different answers: the script keeps state between calls, or "
        "answers at random.",
        "Keep results in local variables. If the answers may differ, leave the part out with `--ignore_path`, or give "
        "`--once`.",
        "count = 0\n\ndef run(data):\n    global count\n    count += 1\n    return {'count': count}",
    ),
    Kind(
        "AZ602",
        "second-call-fails",
        ERROR,
        "The first of two equal requests was answered, and the second one failed.",
        "Do not consume in `run()` what `init()` made: a file that is read to its end, a generator, a list that is "
        "emptied.",
        "def init():\n    global rows\n    rows = iter([1])\n\ndef run(data):\n    return next(rows)",
    ),
    Kind(
        "AZ603",
        "state-grows",
        WARNING,
        "A list, dict or set of the script grew while the same request was answered again: what it holds stays for "
        "ever, and memory grows with each request.",
        "Use a local variable, or one with a bound such as `collections.deque(maxlen=...)`.",
        "history = []\n\ndef run(data):\n    history.append(data)\n    return {'ok': True}",
    ),
    # ---- Environment
    Kind(
        "AZ701",
        "package-not-named",
        WARNING,
        "The script imports a package that the file of `--requirements` does not name. In the deployed environment it "
        "may be missing, or have another version.",
        "Add the package to the file.",
        "import numpy  # requirements.txt has only scikit-learn",
    ),
    # ---- Logging
    Kind(
        "AZ801",
        "logging-lost",
        NOTE,
        "The script logs at INFO, which writes nothing: the root logger is at WARNING. `logging.basicConfig()` does "
        "not change that, because the root logger has a handler already.",
        "Call `logging.getLogger().setLevel(logging.INFO)`, or use a logger of the server, such as "
        '`logging.getLogger("azmlinfsrv.mine")`.',
        "import logging\n\ndef init():\n    logging.info('the model is loaded')",
    ),
)

BY_NAME = {kind.name: kind for kind in KINDS}
BY_CODE = {kind.code: kind for kind in KINDS}


def counts(found: Finding) -> bool:
    """Whether this finding makes the script invalid; notes do not."""
    return found.kind.severity != NOTE
