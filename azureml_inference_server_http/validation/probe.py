"""Watches the validated worker from inside, and tells the command what it saw.

Owns the events, which are JSON objects, one a line, on a pipe. The worker is the server's own, and nothing here changes
what it does. Steps of its start come through ``scripting/watch.py``, calls through the run() that the worker loop
calls. Imports only what the server imports anyway: a script must not find modules that it would not find in production.
Runs in the worker. Does not judge; ``detection.py`` does.
"""

from __future__ import annotations

import contextlib
import faulthandler
import inspect
import json
import os
import sys
import time
from collections.abc import Iterator, Mapping
from types import FrameType, ModuleType
from typing import TYPE_CHECKING, Any, Callable

from ..scripting import hints, own_files, traps
from ..scripting.watch import Watch
from . import errors, results, state

if TYPE_CHECKING:
    from ..launch.settings import Settings
    from ..scripting.script import Script

# How many missed files are told.
MOST_MISSED = 50
_CALLED = "called"
# The log, whatever the script has made of sys.stderr.
_STDERR = 2


class Probe(Watch):
    """Tells what happens in this worker. ``limit``: seconds after which a step or a call shows its stack in the log."""

    def __init__(self, settings: Settings, pipe: int, limit: float) -> None:
        self._settings = settings
        self._pipe = pipe
        self._limit = limit
        self._pid = 0
        self._folders = own_files.folders_of(settings)
        self._missed: list[str] = []
        self._watches_files = False
        self._has_told_lost_logging = False

    # ---- The start

    def begins(self, step: str) -> None:
        if step == "import":
            self._pid = os.getpid()
            os._exit = self._leaving(os._exit)  # type: ignore[assignment]
            sys.addaudithook(self._audit)
        self._watches_files = step == "init"
        self._tell("step", name=step, pid=self._pid)
        faulthandler.dump_traceback_later(self._limit, file=_STDERR)

    def failed(self, error: BaseException) -> None:
        faulthandler.cancel_dump_traceback_later()
        cause = error.__cause__ or error
        self._tell(
            "failed",
            error=errors.describe(cause, self._folders),
            kind=type(error).__name__,
            beside=hints.neighbour(cause, own_files.script_path(self._settings)),
        )

    def settings_failed(self, error: Exception) -> None:
        """The server cannot use a file of settings; in the process that has read it."""
        self._pid = os.getpid()
        self.failed(error)

    def loaded(self, script: Script) -> None:
        self._tell(
            "loaded",
            mode=script.mode,
            parameters=[parameter.name for parameter in script.parameters],
            run=_place_of(script.run),
            init=_place_of(script.init),
            run_is=_later(script.run, is_run=True),
            init_is=_later(script.init, is_run=False),
        )

    def is_ready(self, script: Script, documents: Mapping[str, str]) -> None:
        faulthandler.cancel_dump_traceback_later()
        self._watches_files = False
        self._tell_lost_logging()
        self._tell(
            "ready",
            versions=list(documents),
            sample=_schema_sample(documents) if script.mode == "schema" else None,
            sources=sorted({str(module.__file__) for module in self._own_modules()}),
        )
        script.watch_calls(self._watched_async if script.is_async else self._watched)

    # ---- Calls

    def _watched(self, run: Callable[..., Any]) -> Callable[..., Any]:
        """A function that does what ``run`` does, and tells of each call."""

        def call(*arguments: Any, **named: Any) -> Any:
            with self._call(run) as returned:
                returned.append(run(*arguments, **named))
            return returned[0]

        return call

    def _watched_async(self, run: Callable[..., Any]) -> Callable[..., Any]:
        """The same for an async ``run``, whose calls come one after the other here. Nothing is told of the parts of a
        stream."""

        async def call(*arguments: Any, **named: Any) -> Any:
            result = run(*arguments, **named)
            if not inspect.isawaitable(result):
                return result
            with self._call(run, may_stream=True) as returned:
                returned.append(await result)
            return returned[0]

        return call

    @contextlib.contextmanager
    def _call(self, run: Callable[..., Any], may_stream: bool = False) -> Iterator[list[Any]]:
        """Tell of the call of ``run`` in this block, which puts its result into the list. ``may_stream``: an async
        generator is a stream."""
        modules = self._own_modules()
        before = state.sizes(modules, run)
        self._watches_files = True
        faulthandler.dump_traceback_later(self._limit, file=_STDERR)
        started = time.perf_counter()
        returned: list[Any] = []
        try:
            yield returned
        except BaseException as error:
            seconds = time.perf_counter() - started
            self._tell(_CALLED, seconds=seconds, error=errors.describe(error, self._folders))
            raise
        finally:
            faulthandler.cancel_dump_traceback_later()
            self._watches_files = False
        seconds = time.perf_counter() - started
        grown = state.grown(before, state.sizes(modules, run))
        self._tell_lost_logging()
        self._tell(
            _CALLED,
            seconds=seconds,
            traps=[] if may_stream and inspect.isasyncgen(returned[0]) else results.traps_of(returned[0]),
            grown=[(held.file, held.name, *counts) for held, *counts in grown],
        )

    # ---- What the script does

    def _leaving(self, leave: Callable[[int], Any]) -> Callable[[int], Any]:
        """``os._exit`` that tells from where it was called: nothing else would be left of that."""

        def _exit(status: int) -> Any:
            place = self._caller(sys._getframe(1))
            if place is not None:
                self._tell("exiting", code=status, file=place[0], line=place[1])
            leave(status)

        return _exit

    def _audit(self, event: str, arguments: tuple[Any, ...]) -> None:
        """Notes files that are opened for reading and are not there."""
        if event != "open" or not self._watches_files or len(self._missed) >= MOST_MISSED:
            return
        path, mode, flags = (*arguments, None, None, 0)[:3]
        if not isinstance(path, (str, bytes)) or (mode and set(mode) & set("wxa+")) or (flags or 0) & os.O_CREAT:
            return
        path = os.path.abspath(os.fsdecode(path))
        if self._is_of_model(path) and path not in self._missed and not os.path.exists(path):
            self._missed.append(path)
            place = self._caller(sys._getframe(1))
            self._tell("missed", path=path, file=place and place[0], line=place and place[1])

    def _is_of_model(self, path: str) -> bool:
        folder = self._settings.model_dir
        return bool(folder) and path.startswith(os.path.join(os.path.abspath(folder), ""))

    def _caller(self, frame: FrameType | None) -> tuple[str, int] | None:
        while frame is not None:
            if self._is_own(frame.f_code.co_filename):
                return frame.f_code.co_filename, frame.f_lineno
            frame = frame.f_back
        return None

    def _is_own(self, file: str) -> bool:
        return own_files.name_of(file, self._folders) is not None

    def _own_modules(self) -> list[ModuleType]:
        modules = [sys.modules.get(name) for name, _ in own_files.loaded_modules(self._folders)]
        return [module for module in modules if isinstance(module, ModuleType)]

    # ---- Telling

    def _tell_lost_logging(self) -> None:
        """Tell once of a logger of the script whose records go nowhere."""
        files = {module.__name__: str(module.__file__) for module in self._own_modules()}
        logger = traps.lost_logger(files)
        if logger is not None and not self._has_told_lost_logging:
            self._has_told_lost_logging = True
            own = [files[logger]] if logger in files else sorted(files.values())
            self._tell("lost logging", logger=logger, files=own)

    def _tell(self, event: str, **facts: Any) -> None:
        if os.getpid() != self._pid:
            return  # a child of the script
        facts.update(event=event, at=time.monotonic(), **_memory())
        line = json.dumps(facts, default=str).encode() + b"\n"
        try:
            while line:
                line = line[os.write(self._pipe, line) :]
        except OSError:
            # The script has closed the pipe; the command notices that nothing comes.
            self._pid = 0


def _later(function: Any, is_run: bool) -> str | None:
    """What kind of function this is, if its code does not run when the server calls it."""
    if inspect.isasyncgenfunction(function) and not is_run:
        return "an async generator function"
    return "a generator function" if inspect.isgeneratorfunction(function) else None


def _place_of(function: Any) -> tuple[str, int] | None:
    code = getattr(inspect.unwrap(function), "__code__", None)
    return (code.co_filename, code.co_firstlineno) if code is not None else None


def _schema_sample(documents: Mapping[str, str]) -> Any:
    """The body that the schema of ``@input_schema`` has as its example."""
    if "3" in documents:
        schemas = json.loads(documents["3"]).get("components", {}).get("schemas", {})
    elif "2" in documents:
        schemas = json.loads(documents["2"]).get("definitions", {})
    else:
        return None
    return schemas.get("ServiceInput", {}).get("example")


def _memory() -> dict[str, int]:
    """Bytes of memory that this process has now (``rss``) and has had at most (``peak``)."""
    try:
        with open("/proc/self/status", "rb") as file:
            fields = dict(line.split(b":", 1) for line in file if b":" in line)
        return {"rss": int(fields[b"VmRSS"].split()[0]) * 1024, "peak": int(fields[b"VmHWM"].split()[0]) * 1024}
    except (OSError, KeyError):
        import resource

        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)
        return {"rss": peak, "peak": peak}
