"""Calls run() with samples before a worker gets requests (``--warmup_samples``).

The first calls of a model are often much slower than all others, because libraries load code,
compile, and allocate memory then. Owns which samples are sent, and what is logged about them. Their
input is converted, and their result rendered, as that of requests. Nobody gets the answer: there is
no line of the request, no metric, and no telemetry. Runs in each worker process, on its main thread;
with ``--worker_class thread`` once, on the main thread.
"""

from __future__ import annotations

import json
import logging
import os
import time
from collections.abc import AsyncIterable
from typing import TYPE_CHECKING, Any
from urllib.parse import unquote

from .. import _core
from ..validation import samples
from . import tracebacks
from .inputs import InputError

if TYPE_CHECKING:
    from ..validation.samples import Sample
    from . import outputs
    from .script import Script

SCORE = "/score"
# Methods of requests that reach run(), and those that do if the script is raw.
_METHODS, _RAW_METHODS = ("GET", "POST"), ("GET", "POST", "HEAD", "OPTIONS")
_JSON_LENGTH = "inference-header-content-length"

_logger = logging.getLogger("azmlinfsrv")


class WarmupError(Exception):
    """A sample was answered with an error. The text says with which."""


def run(script: Script, folder: str) -> None:
    """Send all samples of the folder, one after the other. A sample that fails is logged, and the
    next one is sent."""
    began = time.monotonic()
    failed = left_out = 0
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
                left_out += 1
                continue
            _check(sample, _answer(script, sample, file))
        except BaseException as error:
            if os.getpid() != own:
                script.end_forked_child(error)
            failed += 1
            _log_failure(file, error)
        if os.getpid() != own:
            script.end_forked_child(None)
    count = len(files) - left_out
    if not count and left_out:
        _logger.warning(
            "There is no warm-up: none of the samples in %s would reach run(). Their paths must be %s.",
            folder,
            " or ".join(_paths(script)),
        )
        return
    if not count:
        _logger.warning(
            "There is no warm-up: the folder %s has no samples. Put requests into it, such as one.json "
            "(docs/placement.md).",
            folder,
        )
        return
    what = "1 sample" if count == 1 else f"{count} samples"
    others = f", {left_out} left out" if left_out else ""
    seconds = time.monotonic() - began
    _logger.info("Warm-up: %s of %s in %.1f s%s, %d failed.", what, folder, seconds, others, failed)


def _paths(script: Script) -> list[str]:
    """The paths of requests that reach run()."""
    return [SCORE, script.infer_path()] if script.model_description else [SCORE]


def _reaches(script: Script, sample: Sample) -> bool:
    """True if the request would reach run()."""
    if _has_tensors(script, sample):
        return sample.method == "POST"
    methods = _RAW_METHODS if script.mode == "raw" else _METHODS
    return _path(sample) == SCORE and sample.method in methods


def _has_tensors(script: Script, sample: Sample) -> bool:
    """True for a request of the Open Inference Protocol with the path of this model."""
    if not script.model_description:
        return False
    known = unquote(script.infer_path())
    return unquote(_path(sample)) in (known, known[: -len("infer")] + "versions/1/infer")


def _path(sample: Sample) -> str:
    return sample.target.partition("?")[0]


def _check(sample: Sample, status: int) -> None:
    """Raise WarmupError if the sample has another status than it should have."""
    expected = sample.expected.status if sample.expected is not None else None
    if status != expected and (expected is not None or status >= 400):
        wanted = "" if expected is None else f", and {expected} is expected"
        raise WarmupError(f"its status is {status}{wanted}")


def _answer(script: Script, sample: Sample, file: str) -> int:
    """The status of the answer, all of which is made. Raises what run() raises."""
    arguments: dict[str, Any] | None
    asked = None
    if _has_tensors(script, sample):
        try:
            arguments, asked = _tensors(script, sample)
        except InputError as refused:
            return _refused(sample, refused.status, refused.message)
    else:
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
            return _refused(sample, *problem)
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
        return _consume(script.call_with_request(*whole, arguments, asked=asked))
    result = _result(script, arguments or {})
    if asked is None:
        return _consume(script.render(result, sample.method))
    from .inference_model import whole as of_tensors  # imported here, because it needs numpy

    return _consume(of_tensors(script.render_tensors(result, asked)))


def _refused(sample: Sample, status: int, message: str) -> int:
    """The status of a request for which run() cannot be called. Raises WarmupError if another one is expected."""
    if sample.expected is None or sample.expected.status != status:
        raise WarmupError(f"its status is {status}: {message}")
    return status


def _tensors(script: Script, sample: Sample) -> tuple[dict[str, Any], Any]:
    """What ``Script.decode_inference`` makes of a request with tensors, with ``request_headers`` if run() has it.
    Raises InputError."""
    fields = {name.lower(): value for name, value in sample.headers.items()}
    text, memory = sample.body, None
    if _JSON_LENGTH in fields:
        length = int(fields[_JSON_LENGTH]) if fields[_JSON_LENGTH].strip().isdecimal() else -1
        if not 0 <= length <= len(sample.body):
            raise InputError(400, "Inference-Header-Content-Length must be the length of the JSON in bytes.")
        # A bytearray, because run() may change its arguments.
        text, memory = sample.body[:length], bytearray(sample.body[length:])
    is_bare = bool(memory and not text)
    try:
        document = None if is_bare else json.loads(text)
    except (ValueError, RecursionError) as error:
        raise InputError(400, f"The inference request is not JSON: {error}") from error
    arguments, asked = script.decode_inference(document, memory, is_bare)
    if script.pass_headers:
        arguments["request_headers"] = {name.title(): value for name, value in fields.items()}
    return arguments, asked


def _result(script: Script, arguments: dict[str, Any]) -> Any:
    if not script.is_async:
        return script.run(**arguments)
    from . import event_loop

    result = event_loop.complete(script.loop, script.run(**arguments))
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
        # A SampleError names the file itself, or the expected answer beside it.
        text = str(error).removeprefix(f"{name}: ")
        _logger.warning("The warm-up sample %s has failed: %s. The worker serves without it.", name, text)
    else:
        text = tracebacks.text_of(error)
        _logger.warning("The warm-up sample %s has failed. The worker serves without it.\n%s", name, text.rstrip())
