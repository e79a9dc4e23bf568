"""The source files: none is longer than 400 lines, unless its head says why. Test files have names of their own, and
each test process collects the same tests in the same order."""

from __future__ import annotations

import ast
import re
from collections import Counter
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


# ---- Files with tests


def files_with_tests() -> list[Path]:
    return sorted((ROOT / "tests").rglob("test_*.py"))


def test_each_file_with_tests_has_its_own_name() -> None:
    """pytest imports such a file by its name alone, and refuses a second one of that name in the same run."""
    names = Counter(path.name for path in files_with_tests())
    assert len(names) > 150
    assert not [name for name, count in names.items() if count > 1]


def sets_in_parametrize(text: str) -> list[int]:
    """The lines in which a test is parametrised by the elements of a set."""
    calls = [node for node in ast.walk(ast.parse(text)) if isinstance(node, ast.Call)]
    return [call.lineno for call in calls if _name_of(call.func) == "parametrize" and any(map(_is_set, call.args[1:2]))]


def _name_of(node: ast.expr) -> str:
    return node.attr if isinstance(node, ast.Attribute) else node.id if isinstance(node, ast.Name) else ""


def _is_set(node: ast.expr) -> bool:
    """True if the order of the elements is that of a set. A name may stand for a set that this file does not show."""
    if isinstance(node, (ast.Set, ast.SetComp)):
        return True
    if isinstance(node, ast.BinOp):
        return _is_set(node.left) or _is_set(node.right)
    if isinstance(node, (ast.ListComp, ast.GeneratorExp)):
        return any(_is_set(loop.iter) for loop in node.generators)
    if isinstance(node, ast.Call):
        if _name_of(node.func) in ("set", "frozenset"):
            return True
        keeps_order = _name_of(node.func) in ("list", "tuple", "iter", "enumerate", "map", "filter", "zip", "product")
        return keeps_order and any(map(_is_set, node.args))
    return False


def test_no_test_is_parametrised_by_a_set() -> None:
    """A set of texts has another order in each process, and parallel test processes must collect the same tests."""
    found = {
        path.relative_to(ROOT).as_posix(): sets_in_parametrize(path.read_text("utf-8")) for path in files_with_tests()
    }
    assert not {path: lines for path, lines in found.items() if lines}, "sort the set"


def test_what_counts_as_a_set() -> None:
    for values, is_found in {
        "{'a', 'b'}": True,
        "set(A) - {'b'}": True,
        "list({x for x in A})": True,
        "[x for x in frozenset(A)]": True,
        "sorted({'a', 'b'})": False,
        "[{'a', 'b'}]": False,
        "{'a': 1}": False,
        "A": False,
    }.items():
        assert bool(sets_in_parametrize(f"@pytest.mark.parametrize('x', {values})\ndef test(x): ...")) is is_found, (
            values
        )
