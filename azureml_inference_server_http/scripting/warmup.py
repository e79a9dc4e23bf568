"""Calls run() with samples before a worker gets requests (``--warmup_samples``).

The first calls of a model are often much slower than all others, because libraries load code,
compile, and allocate memory then. Owns which samples are sent, and what is logged about them. Their
input is converted, and their result rendered, as that of requests. Nobody gets the answer: there is
no line of the request, no metric, and no telemetry. Runs in each worker process, on its main thread;
with ``--worker_class thread`` once, on the main thread.
"""

from __future__ import annotations

import logging
import os
import time
from collections.abc import AsyncIterable
from typing import TYPE_CHECKING, Any

from .. import _core
from ..validation import samples
from . import tracebacks

if TYPE_CHECKING:
    from ..validation.samples import Sample
    from . import outputs
    from .script import Script

SCORE = "/score"
# Methods of requests that reach run(), and those that do if the script is raw.
_METHODS, _RAW_METHODS = ("GET", "POST"), ("GET", "POST", "HEAD", "OPTIONS")

_logger = logging.getLogger("azmlinfsrv")


class WarmupError(Exception):
    """A sample was answered with an error. The text says with which."""


def run(script: Script, folder: str) -> None:
    """Send all samples of the folder, one after the other. A sample that fails is logged, and the
    next one is sent."""
    began = time.monotonic()
    count = failed = 0
    own = os.getpid()
    try:
        files = samples.in_folder(folder)
    except OSError as error:
        _logger.warning("There is no warm-up: the folder %s cannot be read (%s).", folder, error.strerror)
        return
    for file in files:
        try:
            sample = samples.read(file)
            if not _reaches(script, sample):
                continue
            count += 1
            _check(sample, _answer(script, sample, file))
        except BaseException as error:
            if os.getpid() != own:
                script.end_forked_child(error)
            failed += 1
            _log_failure(file, error)
        if os.getpid() != own:
            script.end_forked_child(None)
    what = "1 sample" if count == 1 else f"{count} samples"
    _logger.info("Warm-up: %s of %s in %.1f s, %d failed.", what, folder, time.monotonic() - began, failed)


def _reaches(script: Script, sample: Sample) -> bool:
    """True if the request would reach run()."""
    methods = _RAW_METHODS if script.mode == "raw" else _METHODS
    return sample.target.partition("?")[0] == SCORE and sample.method in methods


def _check(sample: Sample, status: int) -> None:
    """Raise WarmupError if the sample has another status than it should have."""
    expected = sample.expected.status if sample.expected is not None else None
    if status != expected and (expected is not None or status >= 400):
        wanted = "" if expected is None else f", and {expected} is expected"
        raise WarmupError(f"its status is {status}{wanted}")


def _answer(script: Script, sample: Sample, file: str) -> int:
    """The status of the answer, all of which is made. Raises what run() raises."""
    arguments, problem = _core.arguments(
        script,
        method=sample.method,
        query=sample.target.partition("?")[2].encode(),
        headers=list(sample.headers.items()),
        body=sample.body,
    )
    if isinstance(problem, Exception):
        raise problem
    if problem is not None:
        status, message = problem
        if sample.expected is None or sample.expected.status != status:
            raise WarmupError(f"its status is {status}: {message}")
        return status
    if script.needs_request:
        sender = ("127.0.0.1:0", "", None)
        whole = (
            sample.method,
            sample.target,
            1,
            list(sample.headers.items()),
            sample.body,
            sender,
            os.path.basename(file),
        )
        answer = script.call_with_request(*whole, arguments)
    else:
        answer = script.render(_result(script, arguments or {}), sample.method)
    return _consume(answer)


def _result(script: Script, arguments: dict[str, Any]) -> Any:
    if not script.is_async:
        return script.run(**arguments)
    from . import async_calls

    result = async_calls.complete(script.loop, script.run(**arguments))
    if isinstance(result, AsyncIterable):
        script.loop.run_until_complete(_exhaust(result))
        return None
    return result


async def _exhaust(stream: AsyncIterable[object]) -> None:
    async for _ in stream:
        pass


def _consume(answer: outputs.Answer) -> int:
    """Take all parts of a stream. Returns the status."""
    if not isinstance(answer.body, bytes):
        try:
            for _ in answer.body:
                pass
        finally:
            answer.body.close()
    return answer.status


def _log_failure(file: str, error: BaseException) -> None:
    name = os.path.basename(file)
    if isinstance(error, (WarmupError, samples.SampleError)):
        _logger.warning("The warm-up sample %s has failed: %s. The worker serves without it.", name, error)
    else:
        text = tracebacks.text_of(error)
        _logger.warning("The warm-up sample %s has failed. The worker serves without it.\n%s", name, text.rstrip())
