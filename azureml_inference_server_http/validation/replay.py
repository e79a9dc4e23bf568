"""``azmlinfsrv replay``: send samples to a running server, and show how its answers differ from the expected ones.

Owns the run and its output. Samples and comparison are those of ``azmlinfsrv validate``. Runs in the command.
"""

from __future__ import annotations

import http.client
import sys
import time
from collections.abc import Sequence
from typing import Any

from . import client, comparing, options, samples
from .options import EXIT_FINDINGS, EXIT_USAGE, EXIT_VALID, UsageError

# Seconds that nothing may come from the server.
TIMEOUT = 60.0


def main(argv: Sequence[str]) -> int:
    """Replay with these options. Returns the exit code."""
    try:
        flags = options.parse(options.of_replay(), argv)
        files = options.sample_files(flags)
        if not files:
            raise UsageError("name the samples with --samples DIR or --sample FILE")
        connect, prefix = client.to_url(flags["url"], flags.get("timeout", TIMEOUT))
    except (UsageError, ValueError) as error:
        print(f"azmlinfsrv replay: error: {error}", file=sys.stderr)
        return EXIT_USAGE
    failed = 0
    for file in files:
        fault, told = _replay(file, connect, prefix, flags)
        failed += bool(fault)
        print(f"{'differs' if fault else 'ok':8} {file}{f': {told}' if told else ''}", flush=True)
        for line in fault:
            print(f"         {line}", flush=True)
    print(f"{len(files) - failed} of {len(files)} answers are as expected.")
    return EXIT_FINDINGS if failed else EXIT_VALID


def _replay(file: str, connect: client.Connect, prefix: str, flags: dict[str, Any]) -> tuple[list[str], str]:
    """What is wrong with the answer to this sample, and what it was like."""
    try:
        sample = samples.read(file)
        started = time.monotonic()
        answer = client.send(connect, sample, prefix, dict(flags.get("header", ())))
        seconds = time.monotonic() - started
        told = f"status {answer.status}, {seconds * 1000:.1f} ms, {comparing.counted(len(answer.body), 'byte')}"
        return differences(sample, answer, flags), told
    except samples.SampleError as error:
        return [str(error)], ""
    except (OSError, http.client.HTTPException) as error:
        return [f"no answer: {error or type(error).__name__}"], ""


def differences(sample: samples.Sample, answer: comparing.Answer, flags: dict[str, Any]) -> list[str]:
    """How an answer differs from the expected one; without one, any status below 400 will do."""
    if sample.expected is None or sample.expected.status is None:
        expected = sample.expected or samples.Expected("")
        if answer.status >= 400:
            return [f"status: expected below 400, got {answer.status}: {answer.body[:200].decode('utf-8', 'replace')}"]
    else:
        expected = sample.expected
    ignored = tuple(flags.get("ignore_path", ()))
    return list(map(str, comparing.with_expected(expected, answer, options.tolerance(flags), ignored)))
