"""Holds the pages that people read against the code: links, options, variables, defaults, files and
make targets.

Owns what can be checked without a server; ``e2e/test_examples.py`` runs the commands and requests
of the same pages.
"""

from __future__ import annotations

import ast
import json
import re
import subprocess
from pathlib import Path

import pytest

from azureml_inference_server_http.generate import options as generating
from azureml_inference_server_http.launch import thread_pools
from azureml_inference_server_http.launch.settings_table import OTEL_VARIABLES, OTEL_WITHOUT_EFFECT, SETTINGS
from azureml_inference_server_http.validation import options

ROOT = Path(__file__).resolve().parents[2]
README = ROOT / "README.md"
# Without the generated pages, and the contract, whose names are those of the published server.
PAGES = [
    path
    for pattern in ("*.md", "docs/*.md", "examples/*/*.md")
    for path in sorted(ROOT.glob(pattern))
    if path.name not in {"settings.md", "findings.md", "contract.md"}
]
FLAGS = {setting.flag: setting for setting in SETTINGS if setting.flag}
VARIABLES = {setting.environment: setting for setting in SETTINGS if setting.environment}
# Names in capitals that are not settings of this server.
OTHER_VARIABLES = {
    "ALL_PROXY",
    "HTTP_PROXY",
    "HTTPS_PROXY",
    "NO_PROXY",
    "SSL_CERT_FILE",
    "APPLICATIONINSIGHTS_AUTHENTICATION_STRING",
    *(variable.name for variable in OTEL_VARIABLES),
    *OTEL_WITHOUT_EFFECT,
    "NO_COLOR",
    "FORCE_COLOR",
    "GUNICORN_CMD_ARGS",
    "CUDA_VISIBLE_DEVICES",
    *thread_pools.NAMES,
    "SCRIPT_NAME",
    "RAW_URI",
    "TCP_NODELAY",
    "CHAOS_SCRIPTS",
    "CHAOS_SECONDS",
    "CHAOS_SEED",
    "TEST_PROCESSES",
    "UPDATE_GOLDEN",
    "CLEANING_UP",
    "DEPLOY_FAILED",
    "RAY_SERVE_ENABLE_HA_PROXY",
    "RAY_SERVE_THROUGHPUT_OPTIMIZED",
    "OMP_NUM_THREADS",
    "CTRL_BREAK_EVENT",
    "CREATE_NEW_PROCESS_GROUP",
    "SO_EXCLUSIVEADDRUSE",
}

# Options of the commands `validate`, `replay` and `generate`.
COMMAND_OPTIONS = {
    option
    for parser in (options.of_validate(), options.of_replay(), generating.parser())
    for action in parser._actions
    for option in action.option_strings
}
# Options of granian, with which docs/performance.md compares, of pytest, docker and Ray. The expression below
# ends at their hyphens.
OTHER_OPTIONS = {"--blocking", "--continue", "--env", "--shm", "--stop", "--tmpfs", "--working"}


def spans(path: Path) -> list[str]:
    """Everything set as code: in backticks, and the lines of blocks."""
    text = path.read_text(encoding="utf-8")
    blocks = re.findall(r"^```\w*\n(.*?)^```$", text, re.MULTILINE | re.DOTALL)
    rest = re.sub(r"^```.*?^```$", "", text, flags=re.MULTILINE | re.DOTALL)
    return [line for block in blocks for line in block.splitlines()] + re.findall(r"`([^`]+)`", rest)


def rows(path: Path, header: str) -> list[list[str]]:
    """The cells of the table that begins with this header line."""
    lines = path.read_text(encoding="utf-8").splitlines()
    below = lines[lines.index(header) + 2 :]
    table = below[: next((index for index, line in enumerate(below) if not line.startswith("|")), len(below))]
    return [[cell.strip() for cell in line[1:-1].split("|")] for line in table]


@pytest.fixture(params=PAGES, ids=lambda path: str(path.relative_to(ROOT)))
def page(request: pytest.FixtureRequest) -> Path:
    path: Path = request.param
    return path


def test_readme_is_short():
    assert len(README.read_text(encoding="utf-8").splitlines()) < 200


@pytest.mark.parametrize("page", [*PAGES, *sorted(ROOT.glob("docs/decisions/*.md"))], ids=lambda path: path.name)
def test_links_lead_somewhere(page: Path):
    targets = re.findall(r"\]\(([^)#\s]+)", page.read_text(encoding="utf-8"))
    missing = [target for target in targets if "://" not in target and not (page.parent / target).exists()]
    assert missing == []


def test_every_decision_is_listed():
    folder = ROOT / "docs" / "decisions"
    pages = {path.name for path in folder.glob("*.md")} - {"README.md"}
    assert set(re.findall(r"\]\(([^)/]+\.md)\)", (folder / "README.md").read_text(encoding="utf-8"))) == pages


def test_options_exist(page: Path):
    ours = [
        span for span in spans(page) if not re.match(r"(cargo|pip|make|python3?|curl|docker|\.venv/bin/pytest)\b", span)
    ]
    named = {option for span in ours for option in re.findall(r"(?<!\S)--\w+", span)}
    assert named - {*FLAGS, *COMMAND_OPTIONS, *OTHER_OPTIONS, "--help", "--version"} == set()


def test_variables_exist(page: Path):
    named = {name for span in spans(page) for name in re.findall(r"\b[A-Z]{2,}(?:_[A-Z]+)+\b", span)}
    assert named - {*VARIABLES, *OTHER_VARIABLES} == set()


def test_files_exist(page: Path):
    places = [ROOT, ROOT / "azureml_inference_server_http", page.parent]
    files = {span for span in spans(page) if re.fullmatch(r"[\w./-]+(\.(py|rs|toml)|/)", span) and span[0] != "."}
    absent = {"score.py", "gunicorn.conf.py", "models/iris/1/"}  # names that are only talked about
    by_name = {path.name for path in (ROOT / "src").rglob("*.rs")}
    missing = [
        name for name in files - absent if not any((place / name).exists() for place in places) and name not in by_name
    ]
    assert missing == []


def test_make_targets_exist(page: Path):
    known = set(re.findall(r"^([\w-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    named = {target for span in spans(page) for target in re.findall(r"^make ([a-z][\w-]*)", span)}
    assert named - known == set()


def test_make_alone_lists_every_target_for_people():
    listing = subprocess.run(["make"], cwd=ROOT, stdout=subprocess.PIPE, text=True, check=True).stdout
    for target in ("serve", "test", "check", "format", "conform", "test-all", "clean"):
        assert f"make {target} " in listing


def test_code_in_the_readme_is_the_example():
    shown = re.search(r"```python\n(.*?)```", README.read_text(encoding="utf-8"), re.DOTALL)
    assert shown
    example = ast.parse((ROOT / "examples/quickstart/score.py").read_text(encoding="utf-8"))
    example.body.pop(0)  # its docstring
    assert ast.dump(ast.parse(shown[1])) == ast.dump(example)


def test_settings_in_the_readme_have_their_variables_and_defaults():
    table = rows(README, "| option | environment | default | meaning |")
    assert len(table) > 10
    for option, variable, default, _ in table:
        setting = FLAGS[option.strip("`")] if option else VARIABLES[variable.strip("`")]
        if variable:
            assert setting.environment == variable.strip("`"), option
        own = str(setting.default)
        words = {"None": "none", "": "none", "True": "on", "False": "off"}
        assert default == words.get(own, own), option or variable


def test_frames_on_their_page_are_those_of_the_code():
    code = re.search(r"pub enum Kind \{(.*?)\n\}", (ROOT / "src/ipc/frame/mod.rs").read_text(), re.DOTALL)
    assert code
    kinds = [(number, name) for name, number in re.findall(r"^    (\w+) = (\d+),$", code[1], re.MULTILINE)]
    cells = " ".join(kind for kind, *_ in rows(ROOT / "docs/frames.md", "| kind | direction | meaning |"))
    assert re.findall(r"(\d+) (\w+)", cells) == kinds


def test_samples_are_json_for_their_scripts():
    for sample in ROOT.glob("examples/*/sample-request.json"):
        assert list(json.loads(sample.read_text())) == ["data"]


def test_make_serve_says_how_long_a_first_build_takes():
    rules = (ROOT / "Makefile").read_text(encoding="utf-8")
    (rule,) = re.findall(r"^\$\(VENV\)/\.done-server:.*\n((?:\t.*\n)+)", rules, re.MULTILINE)
    assert re.match(r"\t@test -d target/quick \|\| echo '.* \d+ to \d+ minutes", rule)
