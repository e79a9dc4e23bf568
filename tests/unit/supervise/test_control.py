"""What supervisor and front say to each other, with the examples that ``src/ipc/control.rs`` is
tested with, too."""

from __future__ import annotations

from pathlib import Path

import pytest

from azureml_inference_server_http.supervise import control, events

LINES = (Path(__file__).parents[2] / "control_lines.txt").read_text().splitlines()
ORDERS = [
    control.Exited(12, "was killed by signal 9 (SIGKILL)"),
    control.Stopped(12),
    control.Continued(12),
    control.Retire(12),
    control.Outdated("score.py:12 ZeroDivisionError"),
    control.Current(),
    control.Drain(),
    control.Stop(),
]
REPORTS = [
    control.Ready(12),
    control.Disconnected(12),
    control.Kill(12, "did not finish a request in time (WORKER_TIMEOUT 300 s)"),
    control.Recycle(12, control.SERVED, "has served 1000 requests"),
    control.Recycle(12, control.LEAVING, "was told to end"),
    control.Recycle(12, control.LARGE, "uses 300 MiB (--max_worker_rss 200)"),
    control.Released(),
]


def examples(kind):
    return [line.removeprefix(f"{kind} ") for line in LINES if line.startswith(f"{kind} ")]


def test_orders_are_written_as_the_front_reads_them():
    assert [control.write(order).decode() for order in ORDERS] == [f"{line}\n" for line in examples("order")]


def test_reports_are_read_as_the_front_writes_them():
    assert [control.read(line) for line in examples("report")] == REPORTS


def test_both_sides_are_tested_with_every_verb():
    assert {type(order) for order in ORDERS} == set(control.ORDERS)
    assert {type(report) for report in REPORTS} == set(control.REPORTS)
    for kind, messages in (("order", control.ORDERS), ("report", control.REPORTS)):
        assert {line.split()[0] for line in examples(kind)} == {message.__name__.lower() for message in messages}


def test_messages_of_different_kinds_are_never_equal():
    assert control.Drain() != control.Stop()
    assert control.Retire(1) != control.Stopped(1)
    assert control.Retire(1) == control.Retire(1) != control.Retire(2)
    assert len({control.Drain(), control.Stop(), control.Drain(), control.Retire(1), control.Continued(1)}) == 4
    assert events.SpawnFront() != events.SpawnTemplate()


def test_each_message_is_documented_by_its_line():
    for message in (*control.ORDERS, *control.REPORTS):
        fields = {"pid": "PID", "how": "TEXT", "reason": "TEXT", "kind": "KIND"}
        line = " ".join([message.__name__.lower(), *(fields[name] for name in message._fields)])
        assert message.__doc__.startswith(f"``{line}``: ")


@pytest.mark.parametrize(
    "line",
    [
        "",
        "ready",
        "ready x",
        "ready -1",
        "ready \u00b2",
        "kill x y",
        "recycle 1",
        "recycle 1 other x",
        "Ready 1",
        "drain",
    ],
)
def test_anything_else_is_no_report(line):
    assert control.read(line) is None


def test_a_text_stays_on_its_line_and_is_cut():
    assert control.write(control.Exited(1, "a\nb")) == b"exited 1 a b\n"
    line = control.write(control.Exited(1, "x" * 10_000))
    assert (len(line), line[-2:]) == (control.MAX_LINE, b"x\n")


def test_lines_are_cut_out_of_a_stream():
    lines = control.Lines()
    assert [lines.add(piece) for piece in (b"a", b"b\nc\n\xff", b"", b"\n")] == [[], ["ab", "c"], [], ["\ufffd"]]
