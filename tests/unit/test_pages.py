"""The pages about the inside: the length of docs/design.md, its paths, the headings that links
name, the decisions.

``test_readme.py`` checks all pages for links, options, variables and make targets.
"""

from __future__ import annotations

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
PAGES = sorted([*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md")])
# Pages that describe the code as it is now. A page in docs/decisions names the files of its date.
CURRENT = ["CONTRIBUTING.md", "docs/design.md", "docs/failures.md", "docs/frames.md", "docs/threads.md"]
# A path begins in the repository, or in the Python package.
BASES = [ROOT, ROOT / "azureml_inference_server_http"]
NAMED = re.compile(r"`([\w./-]*[\w-](?:\.(?:rs|py|pyi|toml|txt|md)|/))`")
LINK = re.compile(r"\[[^\]]*\]\(([^)\s]*)#([^)\s]+)\)")
FENCE = re.compile(r"^```.*?^```", re.MULTILINE | re.DOTALL)


def text_of(page: Path) -> str:
    """The text of a page without its blocks of code."""
    return FENCE.sub("", page.read_text(encoding="utf-8"))


def files(page: Path) -> set[str]:
    """The paths of files and folders that a page names in code font."""
    return set(NAMED.findall(text_of(page))) - {"score.py"}


def anchors(page: Path) -> set[str]:
    """The names that a link can use for the headings of a page."""
    headings = re.findall(r"^#+ (.+)$", text_of(page), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).strip().replace(" ", "-") for heading in headings}


def broken(page: Path) -> list[str]:
    """The links of a page to headings that do not exist."""
    links = [(path, anchor) for path, anchor in LINK.findall(text_of(page)) if "://" not in path]
    targets = [((page.parent / path) if path else page, anchor) for path, anchor in links]
    return [anchor for target, anchor in targets if target.suffix == ".md" and anchor not in anchors(target)]


@pytest.mark.parametrize("name", CURRENT)
def test_each_path_on_the_page_exists(name: str) -> None:
    """The whole path, as the name of a file alone does not tell a reader where it is."""
    missing = [path for path in files(ROOT / name) if not any((base / path).exists() for base in BASES)]
    assert not missing


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_each_link_to_a_heading_leads_to_one(page: Path) -> None:
    assert not broken(page)


def test_a_wrong_path_and_a_wrong_heading_are_found(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text("# A title, once\n`src/no_such.rs` `src/` [a](#a-title-once) [b](#b) [d](http://d/#e)\n")
    assert files(page) == {"src/no_such.rs", "src/"}
    assert broken(page) == ["b"]


def test_the_design_page_is_short() -> None:
    """Reasons and measurements belong into docs/decisions."""
    assert len((ROOT / "docs/design.md").read_text(encoding="utf-8").split()) < 2500


def test_each_decision_has_its_date() -> None:
    folder = ROOT / "docs" / "decisions"
    index = (folder / "README.md").read_text(encoding="utf-8")
    for page in folder.glob("2*.md"):
        date = page.name[:10]
        assert re.search(rf"^\| {date} \| \[.+\]\({page.name}\) \|$", index, re.MULTILINE), page.name
        assert re.match(r"# .+\n\n\d{4}-\d\d-\d\d", page.read_text(encoding="utf-8")), page.name
