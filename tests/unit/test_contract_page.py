"""Holds "contract section N" in sources, tests and pages against docs/contract.md: each N is a
heading there."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
SECTIONS = set(re.findall(r"^## (\d+)\. ", (ROOT / "docs" / "contract.md").read_text(encoding="utf-8"), re.MULTILINE))
FOLDERS = ("src", "azureml_inference_server_http", "tests", "docs", "benchmarks", "tools")
# One mention: "contract section 9", "docs/contract.md, section 9", "Contract sections 5, 7 and 8".
MENTION = re.compile(r"\bcontract(?:\.md)?,? sections? (\d+(?:(?:, | and )\d+)*)", re.IGNORECASE)


def mentioned(text: str) -> set[str]:
    """The numbers of all sections that a text names, also where a comment breaks the line between
    two words."""
    joined = re.sub(r"\n[ \t]*(?://[/!]?|#)?[ \t]*", " ", text)
    return {number for numbers in MENTION.findall(joined) for number in re.findall(r"\d+", numbers)}


def files() -> list[Path]:
    return sorted(
        path
        for folder in FOLDERS
        for path in (ROOT / folder).rglob("*")
        if path.suffix in {".rs", ".py", ".pyi", ".md"}
    )


def test_the_page_has_all_sections() -> None:
    assert {str(number) for number in range(1, 19)} == SECTIONS


def test_mentions_of_sections_are_found() -> None:
    text = (
        "// (contract section 99).\n    /// as contract\n    /// sections 5, 77 and 8, and 3\n# contract.md, section 6"
    )
    assert mentioned(text) == {"99", "5", "77", "8", "6"}
    assert sum(bool(mentioned(path.read_text(encoding="utf-8"))) for path in files()) > 50


@pytest.mark.parametrize("folder", FOLDERS)
def test_each_mentioned_section_is_on_the_page(folder: str) -> None:
    missing = {
        f"{path.relative_to(ROOT)}: section {number}"
        for path in files()
        if path.relative_to(ROOT).parts[0] == folder and path != Path(__file__)
        for number in mentioned(path.read_text(encoding="utf-8")) - SECTIONS
    }
    assert not missing


def test_no_page_is_named_that_is_not_in_the_repository() -> None:
    """``docs/design.md`` and ``docs/contract.md`` took the place of two pages that had names in
    capitals."""
    outside = re.compile(r"\b(?:DESIGN|CONTRACT)\b")
    named = [path for path in files() if path != Path(__file__) and outside.search(path.read_text(encoding="utf-8"))]
    assert not named
