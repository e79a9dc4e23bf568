"""Metrics of a scoring script: ``counter``, ``gauge`` and ``histogram``.

A script may call them anywhere, in ``run()`` too::

    from azureml_inference_server_http.api import metrics

    def run(data):
        metrics.counter("predictions", "Predictions made.", model="large").inc()

``GET /metrics`` shows the values of all workers together (docs/metrics.md). Outside the server, for
example in a unit test of the script, the same calls count in the process that makes them, and
``value`` tells how much.
"""

from __future__ import annotations

import logging
import math
import re
from collections.abc import Iterable
from typing import Any

from .._core import Counter, Gauge, Histogram

__all__ = ["DEFAULT_BUCKETS", "Counter", "Gauge", "Histogram", "counter", "gauge", "histogram"]

# Upper bounds of the buckets of a histogram, made for seconds.
DEFAULT_BUCKETS = (0.005, 0.01, 0.025, 0.05, 0.075, 0.1, 0.25, 0.5, 0.75, 1.0, 2.5, 5.0, 7.5, 10.0)
_MAX_BUCKETS = 16

_NAME = re.compile(r"[a-zA-Z_:][a-zA-Z0-9_:]*")
_LABEL = re.compile(r"(?!__)[a-zA-Z_][a-zA-Z0-9_]*")
# The server's own metrics begin with these.
_TAKEN = ("azmlinfsrv_", "http_server_", "process_")
_PROBLEMS = {
    "full": "the server has as many series as it can show. Use fewer values of labels",
    "conflict": "the server has a metric of this name with another type or other buckets, or a histogram and another"
    " metric whose names differ by _bucket, _sum or _count alone. Restart the server to change them, or use another"
    " name",
}

_logger = logging.getLogger("azmlinfsrv")
# All series of this process, by name and labels.
_known: dict[tuple[Any, ...], Counter | Gauge | Histogram] = {}
# Problems and names that the log has told about.
_told: set[tuple[str, str]] = set()


def counter(name: str, help: str = "", /, **labels: str) -> Counter:
    """The counter with this name and these labels: a number that only grows, such as predictions
    made.

    ``inc(amount=1)`` adds to it. ``_total`` is added to a name that does not end in it. Raises
    ValueError for a name, a label or an amount that Prometheus does not allow, TypeError for a
    wrong type.
    """
    found = _known.get((name, *labels.items()))
    if type(found) is Counter:
        return found
    full = name if not name or (isinstance(name, str) and name.endswith("_total")) else f"{name}_total"
    made = _make(Counter, name, full, help, labels)
    assert isinstance(made, Counter)
    return made


def gauge(name: str, help: str = "", /, **labels: str) -> Gauge:
    """The gauge with this name and these labels: a number that goes up and down, such as entries of
    a cache.

    ``set(value)``, ``inc(amount=1)`` and ``dec(amount=1)`` change it. Each worker has its own
    number, and ``/metrics`` shows the sum over the workers that serve. Raises like ``counter``.
    """
    found = _known.get((name, *labels.items()))
    if type(found) is Gauge:
        return found
    made = _make(Gauge, name, name, help, labels)
    assert isinstance(made, Gauge)
    return made


def histogram(name: str, help: str = "", /, *, buckets: Iterable[float] = DEFAULT_BUCKETS, **labels: str) -> Histogram:
    """The histogram with this name and these labels: it counts values by their size.

    ``observe(value)`` counts one. ``buckets`` are the upper bounds of its buckets, at most 16, and
    count when the histogram is made first. Raises like ``counter``.
    """
    found = _known.get((name, *labels.items()))
    if type(found) is Histogram:
        return found
    bounds = [float(bound) for bound in buckets]
    if not 1 <= len(bounds) <= _MAX_BUCKETS or sorted(set(bounds)) != bounds or not all(map(math.isfinite, bounds)):
        raise ValueError(f"metric {name}: buckets must be 1 to {_MAX_BUCKETS} finite numbers in rising order")
    made = _make(Histogram, name, name, help, labels, bounds)
    assert isinstance(made, Histogram)
    return made


def follow_fork() -> None:
    """Give this process gauges of its own. The server calls this in a worker that was forked from a
    process that had loaded the script."""
    for series in _known.values():
        if isinstance(series, Gauge):
            series.follow_fork()


def _refuse_names_of_parts(name: str, kind: Any) -> None:
    """Raise ValueError if a histogram has series of this name, or this is a histogram with a series of a name that is
    taken: ``/metrics`` would not be valid. Names of counters end in ``_total``, so they cannot be meant."""
    for key, known in _known.items():
        histograms = [(key[0], name)] if type(known) is Histogram else []
        if kind is Histogram and type(known) is not Counter:
            histograms.append((name, key[0]))
        for histogram, other in histograms:
            if other in (f"{histogram}_bucket", f"{histogram}_sum", f"{histogram}_count"):
                raise ValueError(f"metric {name}: histogram {histogram} has series of the name {other}")


def _make(
    kind: Any, name: str, full: str, help: str, labels: dict[str, str], *more: Any
) -> Counter | Gauge | Histogram:
    for what, text in (("name", name), ("help", help), *labels.items()):
        if not isinstance(text, str):
            raise TypeError(f"metric {name}: {what} must be a string, not {type(text).__name__}")
    if not _NAME.fullmatch(full) or full.startswith(_TAKEN):
        raise ValueError(
            f"{name!r} is no name for a metric: it may have letters, digits, _ and :, must not begin with a digit, and"
            f" {', '.join(_TAKEN)} are taken by the server"
        )
    for label, value in labels.items():
        if not _LABEL.fullmatch(label) or label == "le" or "\0" in value:
            raise ValueError(f"metric {name}: the label {label}={value!r} is not allowed")
    key = (name, *labels.items())
    other = next((known for known_key, known in _known.items() if known_key[0] == name), None)
    if other is not None and type(other) is not kind:
        raise ValueError(f"metric {name} is a {type(other).__name__.lower()} already")
    if kind is not Counter:
        _refuse_names_of_parts(name, kind)
    series: Counter | Gauge | Histogram = kind(full, help.replace("\0", " "), sorted(labels.items()), *more)
    _known[key] = series
    if series.problem is not None and (series.problem, name) not in _told:
        _told.add((series.problem, name))
        _logger.warning("GET /metrics does not show all of metric %s: %s.", name, _PROBLEMS[series.problem])
    return series
