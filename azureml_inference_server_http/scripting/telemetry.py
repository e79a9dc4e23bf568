"""What a worker reports to the front's exporters: log records, exceptions and model data.

Owns which records are reported and what is in them; names and lengths are those of 1.5.1 (docs/telemetry.md). Does not
own how they are sent on (``src/telemetry``). A report is one JSON object. It goes to the front by ``Channel``, which
never waits for longer than a tenth of a second. Runs in workers, on any thread of the script. Only made when something
is exported.
"""

from __future__ import annotations

import contextlib
import json
import logging
import os
import select
import sys
import time
import traceback
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, Callable

from . import tracebacks
from .current_request import current_request, ids

if TYPE_CHECKING:
    from ..launch.settings import Settings

PRINT_LOGGER = "azmlinfsrv.print"
TRACE_LOGGER = "azmlinfsrv.trace"
# Longest text of a property and of a message, in characters.
MAX_VALUE = 8192
MAX_MESSAGE = 32768
# Longest key of a property; Application Insights drops what has a longer one.
MAX_KEY = 150
# Longest report in bytes: a socket takes it as one message.
MAX_REPORT = 200_000
# Milliseconds that a log record waits for the front to read those before it.
PATIENCE_MS = 100
EVENT = "microsoft.custom_event.name"
_NOT_EXTRA = frozenset(vars(logging.makeLogRecord({}))) | {"message", "asctime", "taskName"}
_NO_FAULT = "Error logging to Application Insights:"
# Python's own functions. A script may have gevent replace those of modules.
_write, _poll, _POLLOUT, _getpid = os.write, getattr(select, "poll", None), getattr(select, "POLLOUT", 0), os.getpid


class Channel:
    """Sends reports to the front through a socket that takes whole messages.

    If the front is slow, one report waits for ``PATIENCE_MS``. Those after it are dropped at once until the front reads
    again, so that a front that has gone costs the script nothing. ``lost`` is told with the next report.
    """

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor
        self._is_behind = False

    def __call__(self, report: bytes) -> bool:
        """Send; False if the report is dropped."""
        for may_wait in (not self._is_behind, False):
            try:
                _write(self._descriptor, report)
                self._is_behind = False
                return True
            except (BlockingIOError, InterruptedError):
                if not may_wait or _poll is None:
                    break
                poll = _poll()
                poll.register(self._descriptor, _POLLOUT)
                poll.poll(PATIENCE_MS)
            except OSError:
                # The script has closed a descriptor that it did not open, or the server has gone.
                break
        self._is_behind = True
        return False


class Reporter:
    """Reports what happens in one worker.

    ``send`` takes a report, and returns False if it is dropped. ``takes_children``: whether reports of processes that
    the script has forked are sent as well; they cannot use the memory that worker threads share with the front.
    """

    def __init__(self, settings: Settings, send: Callable[[bytes], bool], takes_children: bool) -> None:
        self._container = settings.hostname
        self._names = {"Workspace Name": settings.workspace_name, "Service Name": settings.service_name}
        self._model_dir = settings.model_dir
        self._send = send
        self._pid = None if takes_children else _getpid()
        self._lost = 0
        self._all_loggers = settings.otlp.logs is not None
        self.collects_model_data = settings.mdc_storage_enabled and settings.app_insights_enabled
        self._models: tuple[str, ...] | None = None

    def install(self) -> None:
        """From now on, report the records of the two loggers and their children, and for OTLP those of all loggers."""
        handlers = {PRINT_LOGGER: Handler(self), TRACE_LOGGER: Handler(self)}
        if self._all_loggers:
            handlers[""] = OtherLoggersHandler(self)
        for name, handler in handlers.items():
            logger = logging.getLogger(name)
            if not any(isinstance(existing, Handler) for existing in logger.handlers):
                logger.addHandler(handler)

    def report(self, fields: dict[str, Any]) -> None:
        """Send one report. Never raises, and never logs: that would report again."""
        if self._pid is not None and _getpid() != self._pid:
            return
        request = current_request()
        own = (request.trace_id or "", request.span_id or "") if request else ("", "")
        trace_id, span_id = _active_span() or own
        text = json.dumps({**fields, "trace": trace_id, "span": span_id, "lost": self._lost}, ensure_ascii=False)
        encoded = text.encode("utf-8", "replace")
        if len(encoded) > MAX_REPORT:
            encoded = _shortened(fields, trace_id, span_id, self._lost)
        if self._send(encoded):
            self._lost = 0
        else:
            self._lost += 1

    def exception(self, failure: BaseException, cause: BaseException, stack: str) -> None:
        """Report that the script has raised ``cause``. ``failure`` is what 1.5.1 calls it, ``stack`` the traceback as
        it is logged."""
        text = tracebacks.ending_of(cause)
        exception = {"type": type(failure).__name__, "message": text[:MAX_MESSAGE], "stack": stack[:MAX_MESSAGE]}
        self._report_own(logging.ERROR, text, self.dimensions(), exception=exception)

    def fault(self, fault: BaseException) -> None:
        """Log, and report, that telemetry itself has failed for a request."""
        logging.getLogger(TRACE_LOGGER).error(_NO_FAULT, exc_info=fault)

    def _report_own(self, level: int, message: str, dimensions: dict[str, Any], **more: Any) -> None:
        """Report something that no record of the script's log says."""
        properties = _properties({"custom_dimensions": dimensions, **dimensions})
        fields = {"time": time.time(), "level": level, "logger": TRACE_LOGGER, "message": message}
        self.report({**fields, "properties": properties, **more})

    def model_data(self, given: Any, prediction: Any) -> None:
        """Report input and output of a run() that has succeeded (``AML_MDC_STORAGE_ENABLED``)."""
        try:
            dimensions = {
                **self.dimensions(),
                **self._names,
                "Models": self._model_ids(),
                "Input": json.dumps(given),
                "Prediction": json.dumps(prediction),
            }
        except Exception as exc:
            self.fault(exc)
            return
        self._report_own(logging.INFO, "model_data_collection", dimensions)

    def dimensions(self) -> dict[str, Any]:
        """What belongs to every exception: whose request it was."""
        request = current_request()
        return {
            "Container Id": self._container,
            "Request Id": request.request_id if request else "Unknown",
            "Client Request Id": (request.client_request_id or "") if request else "",
        }

    def _model_ids(self) -> tuple[str, ...]:
        if self._models is None:
            self._models = tuple(model_ids(self._model_dir))
        return self._models


class Handler(logging.Handler):
    """Reports the records of a logger."""

    def __init__(self, reporter: Reporter) -> None:
        super().__init__(logging.INFO)
        self._reporter = reporter

    def emit(self, record: logging.LogRecord) -> None:
        try:
            self._reporter.report(fields_of(record))
        except Exception:
            self.handleError(record)


class OtherLoggersHandler(Handler):
    """Reports the records of all other loggers. Application Insights does not get them, as with 1.5.1."""

    def emit(self, record: logging.LogRecord) -> None:
        if any(f"{record.name}.".startswith(f"{name}.") for name in (PRINT_LOGGER, TRACE_LOGGER)):
            return  # a logging.json lets these reach the root logger, too
        try:
            self._reporter.report({**fields_of(record), "for_app_insights": False})
        except Exception:
            self.handleError(record)


def fields_of(record: logging.LogRecord) -> dict[str, Any]:
    """A report of a log record."""
    added = ids()
    extra = {
        name: value
        for name, value in vars(record).items()
        if name not in _NOT_EXTRA and (name not in added or value != added[name])
    }
    event = extra.pop(EVENT, None)
    message = _message(record)
    dimensions = extra.get("custom_dimensions")
    properties = {
        **extra,
        "code.file.path": record.pathname,
        "code.function.name": record.funcName,
        "code.line.number": record.lineno,
        # People query these as columns, which a dict as one text does not allow.
        **(dimensions if isinstance(dimensions, dict) else {}),
    }
    fields: dict[str, Any] = {
        "time": record.created,
        "level": record.levelno,
        "logger": record.name,
        "message": message[:MAX_MESSAGE],
    }
    exc_info = record.exc_info
    if isinstance(exc_info, tuple) and exc_info[1] is not None:
        exc = exc_info[1]
        stack = "".join(traceback.format_exception(exc_info[0], exc, exc_info[2]))
        fields["exception"] = {
            "type": type(exc).__name__,
            "message": _text(exc)[:MAX_MESSAGE],
            "stack": stack[:MAX_MESSAGE],
        }
        properties["Log Message"] = message
    elif event is not None:
        fields["event"] = _text(event)
    fields["properties"] = _properties(properties)
    return fields


def _message(record: logging.LogRecord) -> str:
    """The text of a record. A dict or list that is logged as such becomes JSON."""
    if isinstance(record.msg, (dict, list)) and not record.args:
        with contextlib.suppress(TypeError, ValueError):
            return json.dumps(record.msg)
    return record.getMessage()


def _properties(values: dict[Any, Any]) -> list[tuple[str, str]]:
    """Names and texts. Without what has no value, and without names that are too long."""
    return [
        (name, _text(value)[:MAX_VALUE])
        for name, value in values.items()
        if isinstance(name, str) and 0 < len(name) <= MAX_KEY and value is not None
    ]


def _text(value: Any) -> str:
    """A value as text, as OpenTelemetry made it in 1.5.1: lists are tuples there."""
    try:
        return str(_with_tuples(value))
    except Exception as exc:
        return f"<no text: {type(exc).__name__}>"


def _with_tuples(value: Any) -> Any:
    if type(value) in (list, tuple):
        return tuple(map(_with_tuples, value))
    if type(value) is dict:
        return {key: _with_tuples(inner) for key, inner in value.items()}
    return value


def _shortened(fields: dict[str, Any], trace_id: str, span_id: str, lost: int) -> bytes:
    """A report that fits, without its last properties, and with the beginning of its texts."""
    fields = {**fields, "trace": trace_id, "span": span_id, "lost": lost}
    limit = MAX_REPORT // 5
    for name in ("message", "event"):
        if name in fields:
            fields[name] = _beginning(fields[name], limit)
    if "exception" in fields:
        fields["exception"] = {name: _beginning(text, limit) for name, text in fields["exception"].items()}
    kept: list[tuple[str, str]] = []
    room = MAX_REPORT // 4
    for name, value in fields.get("properties", []):
        room -= len(json.dumps([name, value]))
        if room < 0:
            break
        kept.append((name, value))
    fields["properties"] = kept
    return json.dumps(fields, ensure_ascii=False).encode("utf-8", "replace")


def _beginning(text: str, limit: int) -> str:
    """As much of a text as takes up to ``limit`` bytes in JSON with escapes."""
    while len(json.dumps(text)) > limit:
        text = text[: len(text) // 2]
    return text


def _active_span() -> tuple[str, str] | None:
    """Ids of the span that the script has made by OpenTelemetry and that is active in this thread."""
    api = sys.modules.get("opentelemetry.trace")
    if api is None:
        return None
    try:
        context = api.get_current_span().get_span_context()
        return (f"{context.trace_id:032x}", f"{context.span_id:016x}") if context.is_valid else None
    except Exception:  # a script may put anything in the place of that module
        return None


def model_ids(folder: str) -> Iterator[str]:
    """``name:version`` of each model below AZUREML_MODEL_DIR (TELEMETRY of 1.5.1). Raises OSError, ValueError."""
    if not folder or not os.path.exists(folder):
        return
    name = os.path.basename(folder)
    if name.isdigit():
        yield f"{os.path.basename(os.path.dirname(folder))}:{name}"
        return
    for model in os.listdir(folder):
        for version in os.listdir(os.path.join(folder, model)):
            yield f"{model}:{int(version)}"
