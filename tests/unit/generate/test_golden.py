"""The texts of all generated files, compared with those in ``tests/golden``.

``UPDATE_GOLDEN=1 pytest tests/unit/generate`` writes them; read the difference before it is committed.
``tests/generated`` lets other programs read the same files.
"""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from known import CASES

from azureml_inference_server_http.generate import rendering
from azureml_inference_server_http.generate.kinds import KINDS

GOLDEN = Path(__file__).resolve().parents[2] / "golden"


def texts(case: str) -> dict[str, str]:
    """The files of a case, and what the command says to do with them."""
    facts = CASES[case]
    files = {path: text for kind in KINDS for path, text in rendering.files(kind, facts).items()}
    steps = [rendering.next_steps(kind, facts, facts.out_from_app) for kind in KINDS]
    return {**files, "next.txt": "\n\n".join(steps) + "\n"}


@pytest.mark.parametrize("case", CASES)
def test_files_are_the_golden_ones(case: str) -> None:
    folder = GOLDEN / case
    made = texts(case)
    if os.environ.get("UPDATE_GOLDEN"):
        for path, text in made.items():
            (folder / path).parent.mkdir(parents=True, exist_ok=True)
            (folder / path).write_text(text, encoding="utf-8")
    kept = {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()}
    assert kept == set(made)
    for path, text in made.items():
        assert text == (folder / path).read_text(encoding="utf-8"), path


@pytest.mark.parametrize("case", CASES)
def test_files_end_with_one_line_break_and_have_no_blanks_at_line_ends(case: str) -> None:
    for path, text in texts(case).items():
        assert text.endswith("\n"), path
        assert not text.endswith("\n\n"), path
        assert [line for line in text.splitlines() if line != line.rstrip()] == [], path
        assert "\n\n\n" not in text, path


def test_no_template_is_unused() -> None:
    folder = Path(rendering.__file__).parent / "templates"
    used = {template for kind in KINDS.values() for template in kind.files}
    used |= {f"{kind}/next" for kind in KINDS} | {"memory"}
    assert {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()} == used
