"""Log output that nobody has to wait for; ``e2e/test_standard_streams.py`` has closed and full
ones."""

from __future__ import annotations

import io
import logging
import os
import subprocess
import sys
from types import SimpleNamespace

import pytest
from surroundings import fill

from azureml_inference_server_http.launch import stdio
from azureml_inference_server_http.launch.stdio import PatientStream


def say(stream, *lines):
    for line in lines:
        stream.write(line)
        stream.flush()


def test_lines_are_written_at_once(pipe):
    reader, writer = pipe
    say(PatientStream(writer), "one\n", "zwei ü\n")
    assert os.read(reader, 100) == "one\nzwei ü\n".encode()


def test_what_the_encoding_does_not_have_is_shown_in_ascii(pipe):
    reader, writer = pipe
    say(PatientStream(writer, "ascii"), "ü\udcff\n")
    assert os.read(reader, 100) == b"\\xfc\\udcff\n"


def test_a_full_pipe_is_not_waited_for(pipe):
    reader, writer = pipe
    filled = fill(writer)
    stream = PatientStream(writer)
    say(stream, "one\n", "two\n")
    assert stream.is_waiting
    # A pipe takes more only when a whole page of it is free.
    assert len(os.read(reader, filled)) == filled
    stream.flush()
    assert not stream.is_waiting
    assert os.read(reader, 100) == b"one\ntwo\n"


def test_a_long_line_goes_out_in_pieces_and_unharmed(pipe):
    reader, writer = pipe
    line = "".join(map(str, range(40_000)))
    stream = PatientStream(writer)
    say(stream, line)
    assert stream.is_waiting
    found = b""
    while stream.is_waiting:
        found += os.read(reader, 65536)
        stream.flush()
    assert found + os.read(reader, 200_000) == line.encode()


def test_the_oldest_lines_are_dropped_and_counted(pipe, monkeypatch):
    monkeypatch.setattr(stdio, "_MAX_LINES", 3)
    reader, writer = pipe
    filled = fill(writer)
    stream = PatientStream(writer)
    say(stream, *"abcde")
    assert stream.dropped == 2
    os.read(reader, filled)
    stream.flush()
    assert os.read(reader, 100) == b"cde"


def test_a_reader_that_has_gone_away_gets_nothing_more(pipe):
    reader, writer = pipe
    os.close(reader)
    stream = PatientStream(writer)
    say(stream, "one\n", "two\n")
    assert not stream.is_waiting


def test_what_a_full_disk_costs_is_told_once_and_counted(pipe, capsys, monkeypatch):
    monkeypatch.setattr(sys, "__stderr__", sys.stderr)
    reader, writer = pipe
    with open("/dev/full", "wb") as full:
        stream = PatientStream(full.fileno())
        reported = []
        stream.report = reported.append
        say(stream, "one\n", "two\n")
    assert not stream.is_waiting
    stream.descriptor = writer
    say(stream, "three\n", "four\n")
    assert os.read(reader, 100) == b"\nthree\nfour\n"
    assert reported == ["2 log records were lost: standard output: No space left on device"]
    assert capsys.readouterr().err == (
        "azmlinfsrv: the log cannot be written to standard output: No space left on device. "
        "Free space there, or write elsewhere.\n"
    )


def test_what_nobody_read_is_reported_when_somebody_does(pipe, monkeypatch):
    monkeypatch.setattr(stdio, "_MAX_LINES", 1)
    reader, writer = pipe
    filled = fill(writer)
    stream = PatientStream(writer)
    reported = []
    stream.report = reported.append
    say(stream, *"abc")
    os.read(reader, filled)
    say(stream, "d")
    assert reported == ["3 log records were dropped: nobody read standard output"]


def test_patience_is_for_a_slow_reader_and_not_for_one_that_is_gone(pipe):
    _, writer = pipe
    fill(writer)
    stream = PatientStream(writer)
    waited = []
    stream._is_writable = lambda seconds: waited.append(seconds)
    stream.patience = 5.0
    say(stream, "one\n", "two\n")
    assert waited[0] == pytest.approx(5.0, abs=1.0)
    assert waited[1] == 0


def test_only_handlers_of_standard_output_are_taken_over():
    logger = logging.getLogger("test-stdio")
    ours, other = logging.StreamHandler(sys.stdout), logging.StreamHandler(sys.stderr)
    logger.handlers = [ours, other, logging.NullHandler()]
    assert stdio.stream_of_log(logger) is sys.stdout
    stream = stdio.take_over_log(logger)
    assert (ours.stream, other.stream) == (stream, sys.stderr)
    assert stdio.stream_of_log(logger) is stream


# ---- Windows

# Changes the standard streams to what Windows has for a pipe: code page 1252 and line ends of its own. Run in a process
# of its own, because pytest has replaced the streams of this one.
STREAMS_OF_WINDOWS = """
import sys
from azureml_inference_server_http.launch import stdio

for stream in (sys.stdout, sys.stderr):
    stream.reconfigure(encoding="cp1252", errors="strict", newline="\\r\\n")
sys.platform = sys.argv[1]
stdio.write_as_the_front_does()
for stream in (sys.stdout, sys.stderr):
    stream.write(sys.argv[2] + "\\n")
"""


def written(platform, text):
    command = [sys.executable, "-c", STREAMS_OF_WINDOWS, platform, text]
    found = subprocess.run(command, capture_output=True, timeout=30, check=True)
    return [found.stdout, found.stderr]


def test_standard_streams_of_windows_write_what_the_front_writes():
    assert written("win32", "\u03a9 \u20ac \udcff") == ["\u03a9 \u20ac \\udcff\n".encode()] * 2


def test_standard_streams_of_other_systems_stay_as_they_are():
    assert written("linux", "\u20ac") == [b"\x80\r\n"] * 2


def test_standard_streams_that_a_program_has_replaced_stay_as_they_are(monkeypatch):
    monkeypatch.setattr(stdio.sys, "platform", "win32")
    monkeypatch.setattr(sys, "stdout", io.StringIO())
    monkeypatch.setattr(sys, "stderr", None)
    stdio.write_as_the_front_does()


def test_a_closed_stream_gets_its_descriptor_even_if_another_one_is_free(monkeypatch):
    # In a program of Windows without a console the three are closed, and open() returns none of them.
    moved = []

    def fstat(descriptor):
        if descriptor == 1:
            raise OSError
        return os.stat_result(range(10))

    system = SimpleNamespace(
        fstat=fstat, open=lambda *_: 7, devnull="", O_RDWR=0, close=moved.append, set_inheritable=lambda *_: None
    )
    system.dup2 = lambda source, target: moved.append((source, target))
    monkeypatch.setattr(stdio, "os", system)
    stdio.open_missing()
    assert moved == [(7, 1), 7]
