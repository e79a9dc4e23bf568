"""Compares the items of two servers, field by field.

Owns how items are brought into pairs, what is not compared because it differs from run to run, and the list of the
differences that are meant (``differences.toml``).
"""

from __future__ import annotations

import dataclasses
import fnmatch
import re
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import tomllib

FILE = Path(__file__).parent / "differences.toml"
# What the published server sends besides, or does not send: compared as a whole.
WHOLE = "(item)"
_CHANGES = (
    (re.compile(r"0x[0-9a-f]{6,}"), "«address»"),
    (re.compile(r"127\.0\.0\.1:\d+"), "«host»"),
    (re.compile(r'File "[^"]*/(\w+\.py)", line \d+'), r'File "\1"'),
    (re.compile(r"^\s+[~^]+$", re.MULTILINE), ""),
    (re.compile(r"^/.*/(?=\w+\.py$)"), "«folder»/"),
    (re.compile(r"/tmp/azt-\w+"), "«folder»"),
)
_TIMES = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d+)?Z")


class Difference(NamedTuple):
    """One field that is not the same in both servers."""

    setup: str
    item: str
    facet: str
    published: object
    here: object

    def __str__(self) -> str:
        values = f"\n    published: {_short(self.published)}\n    here:      {_short(self.here)}"
        return f"{self.setup} {self.item} {self.facet}{values}"


@dataclasses.dataclass
class Entry:
    """A difference that is meant. ``items`` and ``facets`` may have wildcards."""

    items: list[str]
    facets: list[str]
    reason: str
    is_used: bool = False


def load() -> list[Entry]:
    """The differences that are meant."""
    return [Entry(**entry) for entry in tomllib.loads(FILE.read_text("utf-8"))["difference"]]


def entry_for(difference: Difference, entries: list[Entry]) -> Entry | None:
    """The entry that this difference belongs to."""
    name = f"{difference.setup} {difference.item}"
    for entry in entries:
        if any(fnmatch.fnmatchcase(name, pattern) for pattern in entry.items) and any(
            fnmatch.fnmatchcase(difference.facet, pattern) for pattern in entry.facets
        ):
            entry.is_used = True
            return entry
    return None


def differences(setup: str, published: list[dict[str, Any]], here: list[dict[str, Any]]) -> list[Difference]:
    """All fields that are not the same."""
    theirs, ours = _named(published), _named(here)
    found: list[Difference] = []
    for name in [*theirs, *(name for name in ours if name not in theirs)]:
        old, new = theirs.get(name), ours.get(name)
        if old is None or new is None:
            found.append(Difference(setup, name, WHOLE, old and "sent", new and "sent"))
            continue
        for facet in [*old, *(facet for facet in new if facet not in old)]:
            if old.get(facet) != new.get(facet):
                found.append(Difference(setup, name, facet, old.get(facet), new.get(facet)))
    return found


def _named(items: list[dict[str, Any]]) -> dict[str, dict[str, object]]:
    """Items by names that say which belong together: requests by their id, others by their text and number."""
    counts: defaultdict[str, int] = defaultdict(int)
    named: dict[str, dict[str, object]] = {}
    for item in sorted(items, key=lambda item: str(item["time"])):
        kind = str(item["name"]).rsplit(".", 1)[-1].lower()
        data = item["data"]["baseData"]
        name = f"{kind} {_title(kind, data)}"
        counts[name] += 1
        if counts[name] > 1:
            name += f" {counts[name]}"
        named[name] = dict(_facets("", item))
    return named


def _title(kind: str, data: dict[str, Any]) -> str:
    if kind == "request":
        return str(data["properties"]["Request Id"]) or str(data["properties"]["url"]).rsplit("/", 1)[-1]
    if kind == "exception":
        return str(data["exceptions"][0]["typeName"])
    if kind == "metric":
        return str(data["metrics"][0]["name"])
    return _changed(str(data.get("message") or data.get("name") or ""))[:40].replace("\n", "|")


def _facets(prefix: str, value: object) -> Iterator[tuple[str, object]]:
    if isinstance(value, dict):
        yield f"{prefix} (order)", list(value)
        for key, inner in value.items():
            yield from _facets(f"{prefix}.{key}" if prefix else key, inner)
    elif isinstance(value, list):
        for number, inner in enumerate(value):
            yield from _facets(f"{prefix}[{number}]", inner)
    else:
        yield prefix, _changed(value) if isinstance(value, str) else value


def _changed(text: str) -> str:
    """A text without what differs from run to run."""
    if re.fullmatch(r"[0-9a-f]{32}|[0-9a-f]{16}", text):
        return "«zeros»" if set(text) == {"0"} else "«id»"
    if _TIMES.fullmatch(text):
        return "«time»"
    if re.fullmatch(r"(\d+\.)?\d\d:\d\d:\d\d\.\d{3}(\d{3})?", text):
        return f"«duration with {len(text.rpartition('.')[2])} digits»"
    for pattern, replacement in _CHANGES:
        text = pattern.sub(replacement, text)
    return text


def _short(value: object) -> str:
    text = repr(value)
    return text if len(text) <= 300 else f"{text[:300]}… ({len(text)})"
