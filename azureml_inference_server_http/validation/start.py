"""The start of the script as steps of the report: import, signatures, init(), swagger.

Owns how the events of a start become steps and findings. Pure: events come from ``session.py``, rules from
``detection.py``. Runs in the command.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

from . import detection, findings
from .detection import Event, Stack
from .findings import Finding, Place
from .report import FAILED, PASSED, SKIPPED, Step

_ORDER = (findings.IMPORT, findings.SIGNATURES, findings.INIT, findings.SWAGGER)
_MODES = {
    "text": "gets the body as text",
    "schema": "gets arguments by @input_schema",
    "raw": "gets the request (@rawhttp)",
    "raw_v2": "gets tensors (@raw_v2)",
}


class Started(NamedTuple):
    """What came of a start. ``run``: where run() is defined; ``sample``: the body that the schema has as its example;
    ``sources``: the user's files; ``seconds``: in the script; ``peak``: bytes of memory."""

    steps: list[Step]
    findings: list[Finding]
    is_ready: bool
    run: Place | None = None
    sample: Any = None
    sources: Sequence[str] = ()
    seconds: float = 0.0
    peak: int = 0


def read(
    events: Sequence[Event],
    limit: float,
    model_dir: str | None,
    listing: str,
    stack: Stack | None,
    script: str | None = None,
) -> Started:
    """What these events say. ``listing``: what is in the model's folder; ``stack``: the last one in the log;
    ``script``: its file, if a setting names it."""
    begun = {detection.STEPS[each["name"]]: each for each in events if each["event"] == "step"}
    loaded = next((each for each in events if each["event"] == "loaded"), None)
    ready = next((each for each in events if each["event"] == "ready"), None)
    # The step that was not finished.
    last = next((name for name in reversed(_ORDER) if name in begun), findings.IMPORT)
    found = list(detection.of_loaded(loaded)) if loaded else []
    if ready:
        found += detection.of_missed(events)
        found += detection.of_lost_logging(events, findings.INIT)
    else:
        found.append(_of_end(events, last, limit, model_dir, listing, stack, script))
    ends = _ends(begun, loaded, ready, events)
    steps = []
    for name in _ORDER:
        failed = any(each.step == name and findings.counts(each) for each in found)
        seconds = ends[name] - begun[name]["at"] if name in begun and name in ends else None
        if not failed and (name not in ends if name != findings.SIGNATURES else loaded is None):
            steps.append(Step(name, SKIPPED))
        else:
            steps.append(
                Step(name, FAILED if failed else PASSED, _detail(name, seconds, loaded, ready, begun), seconds)
            )
    return Started(
        steps,
        found,
        ready is not None and not any(each.kind.name == "run-not-awaited" for each in found),
        Place(*loaded["run"]) if loaded and loaded["run"] else None,
        ready["sample"] if ready else None,
        ready["sources"] if ready else (),
        sum(step.seconds or 0.0 for step in steps if step.name in (findings.IMPORT, findings.INIT)),
        max((each.get("peak", 0) for each in events), default=0),
    )


def _of_end(
    events: Sequence[Event],
    step: str,
    limit: float,
    model_dir: str | None,
    listing: str,
    stack: Stack | None,
    script: str | None,
) -> Finding:
    """Why the script did not become ready."""
    end = events[-1] if events else {"event": "ended", "how": "did not start"}
    if end["event"] == "failed":
        return detection.of_failure(end, step, model_dir, listing, script)
    if end["event"] == "hung":
        return detection.of_hang(step, limit, stack)
    exiting = next((each for each in events if each["event"] == "exiting"), None)
    return detection.of_end(step, str(end.get("how", "ended")), exiting, stack)


def _ends(
    begun: dict[str, Event], loaded: Event | None, ready: Event | None, events: Sequence[Event]
) -> dict[str, float]:
    """When each step ended, for those that did, also by a failure."""
    ends = {}
    if loaded:
        ends[findings.IMPORT] = loaded["at"]
    if findings.SWAGGER in begun:
        ends[findings.INIT] = begun[findings.SWAGGER]["at"]
    if ready:
        ends[findings.SWAGGER] = ready["at"]
    failed = next((each for each in events if each["event"] == "failed"), None)
    if failed:
        unfinished = next((name for name in reversed(_ORDER) if name in begun), "")
        ends.setdefault(unfinished, failed["at"])
    return ends


def _detail(
    name: str, seconds: float | None, loaded: Event | None, ready: Event | None, begun: dict[str, Event]
) -> str:
    if name == findings.SIGNATURES:
        return f"run({', '.join(loaded['parameters'])}) {_MODES[loaded['mode']]}" if loaded else ""
    if name == findings.SWAGGER:
        return f"versions {', '.join(ready['versions'])}" if ready else ""
    after = loaded if name == findings.IMPORT else begun.get(findings.SWAGGER)
    memory = f", {after['rss'] / 1e6:.0f} MB" if after else ""
    return f"{seconds:.2f} s{memory}" if seconds is not None else ""
