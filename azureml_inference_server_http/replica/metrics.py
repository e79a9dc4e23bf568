"""Copies the metrics of a replica's server to the engine, whose exporter then shows them for every replica.

Owns reading Prometheus' text format, and the thread that reads ``/metrics`` every few seconds. What a gauge is, the
engine decides: ``ray.py`` passes Ray's. Every number becomes a gauge, because a histogram of Ray accepts observations
but no sums; ``rate()`` and ``histogram_quantile()`` of Prometheus work on gauges as well. Runs in the replica.
"""

from __future__ import annotations

import logging
import re
import threading
from collections.abc import Iterator, Sequence
from typing import Callable, NamedTuple, Protocol

# Seconds between two copies. Ray's exporter gets new values every ten seconds.
INTERVAL = 5.0
# Labels that the engine adds itself. A label of the script with such a name is renamed as Prometheus renames a label of
# a target that collides with one of its own.
_TAKEN = frozenset(("application", "deployment", "replica", "route"))
_SAMPLE = re.compile(r"(?P<name>[a-zA-Z_:][\w:]*)(?:\{(?P<labels>.*)\})? (?P<value>\S+)")
_LABEL = re.compile(r'([a-zA-Z_]\w*)="((?:[^"\\]|\\.)*)"')
_ESCAPED = re.compile(r"\\(.)")
# The parts of a histogram, which share the help text of its family.
_PART = re.compile(r"_(?:bucket|sum|count)$")
_logger = logging.getLogger("azmlinfsrv")


class Sample(NamedTuple):
    """One number of ``/metrics``."""

    name: str
    help: str
    labels: tuple[tuple[str, str], ...]
    value: float


class Gauge(Protocol):
    """A gauge of the engine."""

    def set(self, value: float, tags: dict[str, str]) -> None: ...


MakeGauge = Callable[[str, str, Sequence[str]], Gauge]


def samples(text: str) -> Iterator[Sample]:
    """The numbers of one answer to ``GET /metrics``."""
    helps: dict[str, str] = {}
    for line in text.split("\n"):  # not splitlines(), because a value of a label may have other separators, as U+2028
        if line.startswith("# HELP "):
            name, _, words = line[len("# HELP ") :].partition(" ")
            helps[name] = words
            continue
        found = _SAMPLE.fullmatch(line)
        if found is None:
            continue
        name = found["name"]
        labels = tuple((_renamed(key), _plain(value)) for key, value in _LABEL.findall(found["labels"] or ""))
        yield Sample(name, helps.get(name) or helps.get(_PART.sub("", name), ""), labels, float(found["value"]))


def _renamed(label: str) -> str:
    return f"exported_{label}" if label in _TAKEN else label


def _plain(value: str) -> str:
    return _ESCAPED.sub(lambda found: "\n" if found[1] == "n" else found[1], value)


class Copier:
    """The gauges of one replica. ``make``: makes a gauge of this name, help text and names of labels."""

    def __init__(self, make: MakeGauge) -> None:
        self._make = make
        self._gauges: dict[tuple[str, tuple[str, ...]], Gauge] = {}
        self._shown: set[tuple[str, tuple[tuple[str, str], ...]]] = set()
        # The metrics whose failure has been logged.
        self._failed: set[str] = set()

    def copy(self, text: str) -> None:
        """Set the gauges to the numbers of this answer. A series that has disappeared becomes 0, because gauges of Ray
        cannot be removed. A number that the engine refuses is left out, and logged once for each metric."""
        shown = set()
        for sample in samples(text):
            shown.add((sample.name, sample.labels))
            self._set(sample)
        for name, labels in self._shown - shown:
            self._set(Sample(name, "", labels, 0.0))
        self._shown = shown

    def _set(self, sample: Sample) -> None:
        try:
            self._gauge(sample.name, sample.help, sample.labels).set(sample.value, dict(sample.labels))
        except Exception:
            if sample.name not in self._failed:
                self._failed.add(sample.name)
                _logger.warning("The engine does not take the metric %s. It is left out.", sample.name, exc_info=True)

    def _gauge(self, name: str, words: str, labels: tuple[tuple[str, str], ...]) -> Gauge:
        names = tuple(label for label, _ in labels)
        key = name, names
        if key not in self._gauges:
            self._gauges[key] = self._make(name, words, names)
        return self._gauges[key]


def start_copying(read: Callable[[], str | None], make: MakeGauge, interval: float = INTERVAL) -> threading.Event:
    """Copy what ``read`` returns, at once and then every ``interval`` seconds, in a thread. ``read`` returns None while
    the server does not answer. A failure is logged, once in a row, and the next copy is made all the same. Returns the
    event that ends the thread."""
    done = threading.Event()
    copier = Copier(make)

    def copy() -> None:
        is_failing = False
        while True:
            try:
                text = read()
                if text is not None:
                    copier.copy(text)
                is_failing = False
            except Exception:
                if not is_failing:
                    _logger.warning("The metrics of the server cannot be copied at the moment.", exc_info=True)
                is_failing = True
            if done.wait(interval):
                return

    threading.Thread(target=copy, name="azmlinfsrv-metrics", daemon=True).start()
    return done
