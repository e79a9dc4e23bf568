"""The text of a chaos run: what was sent, what became of it, what was done to the servers, what was
not kept.

Runs in the test process, at the end.
"""

from __future__ import annotations

import dataclasses
from collections import Counter
from collections.abc import Iterator

from . import orders
from .evidence import Violation
from .health import Latency
from .memory import Memory
from .monkey import Deed
from .traffic import Note

OUTCOMES = (
    orders.ANSWERED,
    orders.REFUSED,
    orders.FAILED,
    orders.CUT,
    orders.LEFT,
    orders.SILENT,
    orders.WRONG,
)
# Violations that are printed in full.
MOST_SHOWN = 20


@dataclasses.dataclass
class Report:
    """The result of one run: figures and violations."""

    seconds: float
    seed: int
    group: str
    worker_class: str
    notes: list[Note]
    # The number of requests of each call of run().
    calls: list[int]
    diary: list[Deed]
    latency: dict[str, Latency]
    before: Memory
    after: Memory
    violations: list[Violation]

    def __str__(self) -> str:
        return "\n".join(
            [
                f"chaos: --scripts {self.group} --seconds {self.seconds:g} --seed {self.seed}"
                f" --worker_class {self.worker_class}",
                "",
                *_table(["requests", *OUTCOMES, "sum"], list(self._requests())),
                "",
                f"run() was called {len(self.calls)} times, {self.joint_calls()} times for several requests, the most"
                f" for {max(self.calls, default=0)}. Done to the servers: {self._deeds()}.",
                "",
                *_table(["health, ms", "answers", "p50", "p99", "max", "cut", "refused"], list(self._health())),
                "",
                *_table(["memory, MiB", "before", "after", "change"], list(self._memory())),
                "",
                *self._violations(),
            ]
        )

    def joint_calls(self) -> int:
        """How many calls were for several requests."""
        return sum(requests > 1 for requests in self.calls)

    def _requests(self) -> Iterator[list[str]]:
        counts = Counter((note.kind, note.outcome) for note in self.notes)
        kinds = sorted({note.kind for note in self.notes})
        for kind in kinds:
            row = [counts[kind, outcome] for outcome in OUTCOMES]
            yield [kind, *map(str, row), str(sum(row))]
        total = [sum(counts[kind, outcome] for kind in kinds) for outcome in OUTCOMES]
        yield ["all", *map(str, total), str(sum(total))]

    def _deeds(self) -> str:
        counts = Counter(deed.name for deed in self.diary)
        return ", ".join(f"{name} {count}" for name, count in counts.most_common()) or "nothing"

    def _health(self) -> Iterator[list[str]]:
        for script, latency in self.latency.items():
            times = [f"{value:.2f}" for value in (latency.p50, latency.p99, latency.worst)]
            yield [script, str(latency.answers), *times, str(latency.cut), str(latency.refused)]

    def _memory(self) -> Iterator[list[str]]:
        for name, before, after in (
            ("fronts and supervisors", self.before.front, self.after.front),
            ("workers", self.before.workers, self.after.workers),
            ("all", sum(self.before), sum(self.after)),
        ):
            # Worker threads have no memory of their own.
            if before:
                yield [name, f"{before:.1f}", f"{after:.1f}", f"{(after / before - 1) * 100:+.1f} %"]

    def _violations(self) -> Iterator[str]:
        counts = Counter(violation.promise for violation in self.violations)
        yield f"violations: {len(self.violations)}"
        yield from (f"  {count} x {promise}" for promise, count in counts.most_common())
        for violation in self.violations[:MOST_SHOWN]:
            yield f"- {violation}"
            yield from self._meanwhile(violation.note)

    def _meanwhile(self, note: Note | None) -> Iterator[str]:
        if note is None:
            return
        yield f"    opened {note.opened:.3f}, sent {note.sent or 0:.3f}, ended {note.ended:.3f}"
        for deed in self.diary:
            if deed.script == note.script and note.opened - 3 < deed.time < note.ended + 3:
                yield f"    {deed.time:.3f} {deed.name} {deed.detail}"


def _table(head: list[str], rows: list[list[str]]) -> list[str]:
    widths = [max(len(row[column]) for row in [head, *rows]) for column in range(len(head))]

    def line(row: list[str]) -> str:
        first, *others = row
        cells = [cell.rjust(width) for cell, width in zip(others, widths[1:])]
        return "  ".join([first.ljust(widths[0]), *cells])

    return [line(row) for row in [head, *rows]]
