"""The source files: none is longer than 400 lines, unless its head says why."""

from __future__ import annotations

import ast
import re
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
FOLDERS = ["azureml_inference_server_http", "benches", "benchmarks", "examples", "fuzz", "src", "tests", "tools"]
MOST_LINES = 400
REASON = re.compile(r"\bmore than 400 lines, because \S+")


def sources() -> list[Path]:
    found = [path for folder in FOLDERS for path in (ROOT / folder).rglob("*") if path.suffix in (".py", ".rs")]
    return sorted(path for path in found if "target" not in path.relative_to(ROOT).parts)


def head(path: Path) -> str:
    """The text at the top of a file that says what the file owns, on one line."""
    text = path.read_text(encoding="utf-8")
    if path.suffix == ".py":
        return " ".join((ast.get_docstring(ast.parse(text)) or "").split())
    lines = re.match(r"(?://!.*\n)*", text)
    return " ".join(lines[0].replace("//!", "").split()) if lines else ""


def is_short_or_explained(path: Path) -> bool:
    return len(path.read_text(encoding="utf-8").splitlines()) <= MOST_LINES or REASON.search(head(path)) is not None


def test_a_file_is_short_or_its_head_says_why_not() -> None:
    assert len(sources()) > 400
    unexplained = {path.relative_to(ROOT).as_posix() for path in sources() if not is_short_or_explained(path)}
    assert not unexplained, (
        f"split these by role, or end the head with 'One file of more than {MOST_LINES} lines, because ...'"
    )


def test_only_a_reason_in_the_head_counts(tmp_path: Path) -> None:
    reason, body = "One file of more than 400\n{}lines, because it is data.\n", "#\n" * 401
    cases = {
        "long.py": (f'"""A table."""\n# {reason.format("# ")}{body}', False),
        "explained.py": (f'"""A table.\n\n{reason.format("")}"""\n{body}', True),
        "short.py": ("#\n" * 400, True),
        "long.rs": (f"//! A table.\n\n// {reason.format('// ')}{body.replace('#', '//')}", False),
        "explained.rs": (f"//! A table.\n//!\n//! {reason.format('//! ')}{body.replace('#', '//')}", True),
    }
    for name, (text, expected) in cases.items():
        (tmp_path / name).write_text(text)
        assert is_short_or_explained(tmp_path / name) is expected, name
