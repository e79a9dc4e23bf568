"""Differences between two observations, and the list of those that are known.

An observation maps facets to texts (normalise.py). A difference must be covered by an entry of
known_differences.toml: the entry names checks (`case/check`, with wildcards), the facets that
differ, and optionally a pattern for what this server gives there (`expect`); or `lines`, patterns
of output lines that only one of the servers writes. An entry that covers nothing in the checks that
ran is an error too, so the list cannot rot.
"""

from __future__ import annotations

import fnmatch
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import tomllib

KINDS = ("decided", "improvement", "not-reproduced")
ENTRY_KEYS = {"title", "kind", "reason", "published", "here", "checks", "differs", "expect", "lines", "untested"}
Observation = Mapping[str, str]


@dataclass
class Entry:
    """One known difference. `covered` collects the checks where it was seen."""

    title: str
    kind: str
    reason: str
    published: str
    here: str
    checks: list[str] = field(default_factory=list)
    differs: list[str] = field(default_factory=list)
    expect: dict[str, str] = field(default_factory=dict)
    lines: list[str] = field(default_factory=list)
    untested: str = ""
    covered: set[str] = field(default_factory=set)

    def matches(self, check: str) -> bool:
        """True if the entry is about this check."""
        return any(fnmatch.fnmatchcase(check, pattern) for pattern in self.checks)

    def covers(self, facet: str) -> bool:
        """True if the entry allows this facet to differ."""
        return any(fnmatch.fnmatchcase(facet, pattern) for pattern in self.differs)


@dataclass(frozen=True)
class Difference:
    """One facet of a check that differs between the two servers."""

    facet: str
    reference: str
    candidate: str
    entry: Entry | None
    note: str = ""


def load(path: Path) -> list[Entry]:
    """Read the entries of the file. Raises ValueError for an entry that is not complete."""
    entries = []
    for raw in tomllib.loads(path.read_text("utf-8")).get("difference", []):
        _validate(raw)
        entries.append(Entry(**raw))
    return entries


def _validate(raw: Mapping[str, Any]) -> None:
    title = raw.get("title", raw)
    if unknown := set(raw) - ENTRY_KEYS:
        raise ValueError(f"{title}: unknown keys {sorted(unknown)}")
    if missing := {"title", "kind", "reason", "published", "here"} - set(raw):
        raise ValueError(f"{title}: missing {sorted(missing)}")
    if raw["kind"] not in KINDS:
        raise ValueError(f"{title}: kind {raw['kind']!r}")
    if bool(raw.get("checks")) == bool(raw.get("untested")):
        raise ValueError(f"{title}: either checks or untested (why no check shows it)")
    if raw.get("checks") and not (raw.get("differs") or raw.get("lines")):
        raise ValueError(f"{title}: differs or lines")


def differences(
    check: str, reference: Observation, candidate: Observation, entries: Iterable[Entry]
) -> list[Difference]:
    """Find every facet that differs, with the entry that covers it, if any. Marks these entries as
    seen."""
    own = [entry for entry in entries if entry.matches(check)]
    found: list[Difference] = []
    for facet in sorted({*reference, *candidate}):
        left, right = reference.get(facet, "«absent»"), candidate.get(facet, "«absent»")
        if left != right:
            found += _facet(check, facet, left, right, own)
    return found


def _facet(check: str, facet: str, left: str, right: str, entries: list[Entry]) -> list[Difference]:
    found: list[Difference] = []
    if facet in ("log", "startup", "stderr"):
        for entry in entries:
            shorter = [_without(text, entry.lines) for text in (left, right)]
            if shorter[0] != left or shorter[1] != right:
                entry.covered.add(check)
                found.append(Difference(facet, left, right, entry))
                left, right = shorter
        if left == right:
            return found
    for entry in entries:
        if entry.covers(facet):
            entry.covered.add(check)
            wanted = entry.expect.get(facet)
            if wanted is not None and not re.fullmatch(wanted, right, re.DOTALL):
                return found + [Difference(facet, left, right, None, f"is known to differ, but should match {wanted}")]
            return found + [Difference(facet, left, right, entry)]
    return found + [Difference(facet, left, right, None)]


def _without(text: str, patterns: list[str]) -> str:
    return "\n".join(line for line in text.split("\n") if not any(re.search(pattern, line) for pattern in patterns))


def stale(entries: Iterable[Entry], checks: Iterable[str]) -> list[str]:
    """Find the patterns of entries that match no check, or only checks without a difference."""
    ran = list(checks)
    problems = []
    for entry in entries:
        for pattern in entry.checks:
            if not fnmatch.filter(sorted(entry.covered), pattern):
                known = "no longer differs" if fnmatch.filter(ran, pattern) else "matches no check"
                problems.append(f"{entry.title}: {pattern} {known}")
    return problems
