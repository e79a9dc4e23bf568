"""Writes docs/settings.md and docs/findings.md from their tables, or checks that they are up to date.

Owns the layout of these pages, and the text about precedence, syntax and logging.json. Everything else
on them is in ``launch/settings_table.py`` and ``validation/findings.py``. Run it from anywhere:
``python tools/generate_docs.py`` writes, with ``--check`` it only compares and exits with 1 if a page is out of date.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
DOCS = ROOT / "docs"
sys.path.insert(0, str(ROOT))

from azureml_inference_server_http.launch import settings_table as table  # noqa: E402
from azureml_inference_server_http.launch.settings_table import (  # noqa: E402
    GROUPS,
    OTEL_VARIABLES,
    OTEL_WITHOUT_EFFECT,
    SETTINGS,
    Setting,
)
from azureml_inference_server_http.validation.findings import ERROR, KINDS, NOTE, WARNING, Kind  # noqa: E402

OPENING = """\
# Settings

<!-- Written by tools/generate_docs.py from azureml_inference_server_http/launch/settings_table.py: change that. -->

A setting is given by an option of `azmlinfsrv`, by an environment variable, or by a key of the configuration file. An
option counts before the environment, the environment before the file, and the file before the default. A value that
another one overrides is not looked at. A wrong value that counts stops the start with one line on stderr and exit
code 1; several wrong values give a line each. A wrong option shows the help as well.

The configuration file is UTF-8 text with one JSON object. It is the file named by `--config_file` or
`AZUREML_CONFIG_FILE` if that exists and is not empty, else `config.json` in `AML_APP_ROOT`, else `config.json` in the
folder of the entry script. A file that is there and cannot be used stops the start with exit code 3. Its values do not
reach the environment of the script. It may have the settings that have a file key below, such as

```json
{"SCORING_TIMEOUT_MS": 60000, "AZMLINFSRV_MAX_QUEUE": 100}
```

Whole numbers may have a sign, blanks around them, underscores between digits and, except in options, a fraction of
zeros (`500.0`). True or false is one of `true`, `yes`, `on`, `1`, `t`, `y` or `false`, `no`, `off`, `0`, `f`, `n` in
any case, unless a row says otherwise. `null` in the configuration file counts as absent. So does a blank value, in the
environment or the file, of any setting that is not free text or a path: `WORKER_COUNT=` in a compose file means the
default.

Variables marked † are found in any case (`scoring_timeout_ms`).
"""

LOGGING = """
## logging.json

A file of this name in `AML_APP_ROOT` (the current folder, unless it is set), else in the folder of the entry script, is
given to Python's `logging.config.dictConfig` at the start, after the server's own
[logging.json](../azureml_inference_server_http/logging.json). What it names it replaces, and the rest stays: the
server's loggers, which all begin with `azmlinfsrv`, the root logger, and `gunicorn.error`, which says on standard error
that a worker boots. `AZUREML_LOG_LEVEL` then has no effect. This one shows what a script says by `logging.info()`, and
what its libraries say, in the server's format:

```json
{
  "version": 1,
  "disable_existing_loggers": false,
  "formatters": {
    "line": {
      "class": "azureml_inference_server_http.log_config.AMLLogFormatter",
      "format": "%(asctime)s %(levelname).1s [%(process)d] %(name)s - %(message)s"
    }
  },
  "handlers": {
    "output": {"class": "logging.StreamHandler", "formatter": "line", "stream": "ext://sys.stdout"}
  },
  "root": {"level": "INFO", "handlers": ["output"]}
}
```

Formatters, filters and handlers may be classes of your own. They are imported like modules of the script: from
`AML_APP_ROOT`, `AZUREML_SOURCE_DIRECTORY` or the current folder. They run in every process of the server, each of which
writes its own lines. If one of them raises, the record is lost and the traceback is on standard error.

A file that names the logger `gunicorn.access` gets a second line for each request from it, with client, user agent and
bytes, in the default format of gunicorn; `record.args` has its atoms, such as `record.args["a"]`. As with 1.5.1, the
logger leaves out plain health checks (`GET / HTTP/1.1`) and does not propagate unless the file says so.

Records that are made while `run()` works have the [ids of their request](logs.md#in-log-records), for
`%(request_id)s` in a format.

In lines about requests, whatever logger writes them, control characters are written as `\\x1b`, and of a line above
8,192 bytes the middle is left out. What the script logs or prints stays as it is.

`AMLLogFormatter` writes the time in UTC. Without `"disable_existing_loggers": false`, `dictConfig` turns off every
logger that exists by then and is not named; the server's own stay on. A file that cannot be read, or that `dictConfig`
refuses, stops the start with exit code 3 and a record that says why.
"""


FINDINGS = """\
# Findings

<!-- Written by tools/generate_docs.py from azureml_inference_server_http/validation/findings.py: change the table. -->

What [`azmlinfsrv validate`](validate.md) can find. `azmlinfsrv validate --explain CODE` shows the same on a terminal. A
code never changes its meaning. Errors and warnings make a script invalid, and `--ignore CODE` leaves out one kind.

| severity | meaning |
| --- | --- |
| error | the server would not start, or a request would fail |
| warning | the server answers, but probably not as intended |
| note | for information; a script with notes alone is valid |
"""
# The titles of the groups, by the digit after AZ.
GROUPS_OF_FINDINGS = {
    "1": "Settings and files",
    "2": "Importing the script",
    "3": "init() and swagger",
    "4": "Calls of run()",
    "5": "Results",
    "6": "State between calls",
    "7": "Environment",
}


def findings_page() -> str:
    """The whole page about findings."""
    parts = [FINDINGS]
    for digit, title in GROUPS_OF_FINDINGS.items():
        kinds = [kind for kind in KINDS if kind.code[2] == digit]
        parts += [f"\n## {title}\n", *map(_finding, kinds)]
    return "".join(parts)


def _finding(kind: Kind) -> str:
    assert kind.severity in (ERROR, WARNING, NOTE)
    language = "bash" if "azmlinfsrv " in kind.example else "json" if kind.example.startswith("{") else "python"
    return (
        f"\n### {kind.code} {kind.name}\n\n{kind.severity.capitalize()}. {kind.explanation}\n\n{kind.remedy}\n\n"
        f"```{language}\n{kind.example}\n```\n"
    )


def settings_page() -> str:
    """The whole page about settings."""
    parts = [OPENING]
    for group, purpose in GROUPS.items():
        parts.append(f"\n## {group.capitalize()}\n\n{purpose}\n")
        parts += [_entry(setting) for setting in SETTINGS if setting.group == group]
        if group == "telemetry":
            parts.append(_opentelemetry())
    parts += [LOGGING, _written()]
    return "".join(parts)


def _entry(setting: Setting) -> str:
    rows = []
    if setting.flag:
        rows.append(("option", f"`{setting.flag}{f' {setting.metavar}' if setting.metavar else ''}`"))
    if setting.environment:
        rows.append(("environment", f"`{setting.environment}`{' †' if setting.any_case else ''}"))
    if setting.config_key:
        rows.append(("file key", f"`{setting.config_key}`"))
    rows.append(("default", table.default_text(setting)))
    rows.append(("allowed", _allowed(setting)))
    text = f"\n### {table.label(setting)}\n\n{setting.help}{f' {setting.note}' if setting.note else ''}\n\n"
    return text + "| | |\n| --- | --- |\n" + "".join(f"| {name} | {value} |\n" for name, value in rows)


def _opentelemetry() -> str:
    """The variables of OpenTelemetry. Those of one signal alone are named once, not described again."""
    signals = tuple(f"OTEL_EXPORTER_OTLP_{signal}_" for signal in ("TRACES", "LOGS", "METRICS"))
    names = {variable.name for variable in OTEL_VARIABLES}
    own = {
        name for name in names for signal in signals if name.replace(signal, "OTEL_EXPORTER_OTLP_") in names - {name}
    }
    rows = "".join(
        f"| `{variable.name}` | {variable.default or 'none'} | {variable.help} |\n"
        for variable in OTEL_VARIABLES
        if variable.name not in own
    )
    without = "".join(f"| `{name}` | {reason} |\n" for name, reason in OTEL_WITHOUT_EFFECT.items())
    of_signals = ", ".join(f"`{signal}…`" for signal in signals)
    return f"""
### OTEL_…

The variables by which OpenTelemetry is configured everywhere, as environment variables only. An empty value counts as
absent. A wrong one is a warning in the log, which says what is done instead. Those that begin with
`OTEL_EXPORTER_OTLP_` exist for each signal too, and then count more for it: {of_signals}.

| variable | default | meaning |
| --- | --- | --- |
{rows}
These mean nothing to the server. Each that is given is a warning in the log, if something is sent by OTLP. A script
with an OpenTelemetry of its own may need them.

| variable | why |
| --- | --- |
{without}"""


def _allowed(setting: Setting) -> str:
    if setting.kind == table.EXACT_TRUE:
        return "exactly `true` turns it on, every other text turns it off"
    if setting.kind == table.ANY_CASE_TRUE:
        return "`true` in any case turns it on, every other text turns it off"
    return table.allowed_text(setting)


def _written() -> str:
    rows = "".join(
        f"| `{setting.exports}` | {setting.exported} |\n" for setting in SETTINGS if setting.exports is not None
    )
    return f"""
## Variables that the script can read

The server writes these into the environment of the script. Everything else in it stays as it was.

| variable | written |
| --- | --- |
{rows}| `SERVER_SOFTWARE` | {table.ALWAYS} |
"""


PAGES = {DOCS / "settings.md": settings_page, DOCS / "findings.md": findings_page}


def main() -> int:
    """Write or check the pages. Returns the exit code."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--check", action="store_true", help="compare only; exit with 1 if a page is out of date")
    check = parser.parse_args().check
    outdated = [
        (path, page())
        for path, page in PAGES.items()
        if not path.exists() or path.read_text(encoding="utf-8") != page()
    ]
    for path, text in outdated:
        if check:
            print(f"{path.relative_to(ROOT)} is out of date: run python tools/generate_docs.py", file=sys.stderr)
        else:
            path.write_text(text, encoding="utf-8")
    return int(check and bool(outdated))


if __name__ == "__main__":
    sys.exit(main())
