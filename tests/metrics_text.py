"""Reads the answer to ``GET /metrics``.

Used by tests. ``Scrape`` refuses lines that are not in the text format, and ``promtool`` judges the
whole where it is installed.
"""

from __future__ import annotations

import re
import shutil
import subprocess

_LINE = re.compile(r"(?P<name>[a-zA-Z_:][\w:]*)(?:\{(?P<labels>.*)\})? (?P<value>\S+)")
_LABEL = re.compile(r'([a-zA-Z_]\w*)="((?:[^"\\]|\\.)*)"')


class Scrape:
    """All numbers of one answer."""

    def __init__(self, text: str) -> None:
        self.text = text
        self.types: dict[str, str] = {}
        self.samples: dict[tuple[str, frozenset[tuple[str, str]]], float] = {}
        for line in text.splitlines():
            if line.startswith("# TYPE "):
                _, _, name, kind = line.split(" ")
                assert name not in self.types, f"two families have the name {name}"
                self.types[name] = kind
            elif not line.startswith("# HELP "):
                found = _LINE.fullmatch(line)
                assert found, line
                key = found["name"], frozenset(_LABEL.findall(found["labels"] or ""))
                assert key not in self.samples, line
                self.samples[key] = float(found["value"])

    def __getitem__(self, name: str) -> float:
        """The number that has no label."""
        return self.samples[name, frozenset()]

    def sum(self, name: str, **labels: str) -> float:
        """The sum of all series with this name and at least these labels."""
        wanted = set(labels.items())
        return sum(value for (found, has), value in self.samples.items() if found == name and wanted <= has)

    def requests(self, **labels: str) -> float:
        """How many requests have been counted, as ``requests(route="/score", status="200")``."""
        names = {"method": "http_request_method", "route": "http_route", "status": "http_response_status_code"}
        renamed = {names[name]: value for name, value in labels.items()}
        return self.sum("http_server_request_duration_seconds_count", **renamed)

    def growing(self) -> dict[tuple[str, frozenset[tuple[str, str]]], float]:
        """The numbers that must never become less while the server runs."""
        families = {name for name, kind in self.types.items() if kind in ("counter", "histogram")}
        suffix = re.compile("_(bucket|sum|count)$")
        return {key: value for key, value in self.samples.items() if {key[0], suffix.sub("", key[0])} & families}


def assert_not_less(before: Scrape, after: Scrape) -> None:
    """Fails if a counter has become less or has disappeared."""
    later = after.growing()
    less = {key: (value, later.get(key)) for key, value in before.growing().items() if later.get(key, -1) < value}
    assert not less


def has_promtool() -> bool:
    """True if Prometheus' own tool is installed."""
    return shutil.which("promtool") is not None


def promtool(*arguments: str, text: str = "") -> str:
    """What promtool complains about. Empty if all is right."""
    done = subprocess.run(["promtool", *arguments], input=text, capture_output=True, text=True, timeout=60)
    return "" if done.returncode == 0 and not done.stderr else f"{done.returncode}: {done.stdout}{done.stderr}"
