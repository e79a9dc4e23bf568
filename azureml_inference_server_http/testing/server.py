"""Public: ``serve()``, the real command with a scoring script, for the length of a ``with`` block.

Owns the server's process: its command line, its environment, its log, the wait until it is ready, and its end. The
command takes a free port (``--port 0``) and reports it in its banner, so a port is never guessed. Runs in the test
process.
"""

from __future__ import annotations

import contextlib
import difflib
import os
import re
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator, Mapping
from typing import Any

from ..launch import settings_table as table
from .client import TestClient

# Seconds between two looks at a server that is starting.
_PAUSE = 0.02
# Seconds that a server may take to end, beyond its graceful timeout, before it is killed.
_STOP_GRACE = 10.0
if sys.platform == "win32":
    # There is no SIGTERM between programs. Ctrl-Break, which drains the server as well, goes to a group of them.
    _GROUP, _END = subprocess.CREATE_NEW_PROCESS_GROUP, signal.CTRL_BREAK_EVENT
else:
    _GROUP, _END = 0, signal.SIGTERM
# Most lines of the log that a message repeats.
_SHOWN_LINES = 400
# The line of the banner that reports the port, and a record of the log with an error (contract section 2). With
# --log_format json the banner is one text of JSON, whose ends of lines are written as \n.
_ADDRESS = re.compile(r'(?:^|\\n)Score: +POST +\S+?:(\d+)/score(?=\\n|"|$)', re.MULTILINE)
_ERROR = re.compile(r"^\d{4}-\d\d-\d\d \S+ [EC] \[\d+\] \S+ - (.*?)(?=^\d{4}-\d\d-\d\d \S+ [DIWEC] \[|\Z)", re.M | re.S)
_SETTINGS = {setting.name: setting for setting in table.SETTINGS}
# Given by other means: the first two are parameters of their own, the others are chosen here.
_RESERVED = frozenset({"entry_script", "model_dir", "port", "health_port", "host"})


class ServeError(Exception):
    """The server did not become ready. The message has the errors of its log, with the script's traceback; or, if there
    are none, the end of the log."""


class ScoringServer:
    """A server that is ready. ``client`` sends requests to it; ``log()`` is all that it has written."""

    def __init__(self, process: subprocess.Popen[bytes], log_file: str) -> None:
        self._process = process
        self._log_file = log_file
        self.port = 0
        self.url = ""
        self.client = TestClient("http://127.0.0.1")

    def __repr__(self) -> str:
        return f"<ScoringServer {self.url or 'starting'}, pid {self.pid}>"

    @property
    def pid(self) -> int:
        """The process id of the command."""
        return self._process.pid

    def log(self, start: int = 0) -> str:
        """What the server has written to standard output and standard error, from the byte ``start`` on."""
        with open(self._log_file, "rb") as file:
            file.seek(start)
            return file.read().decode("utf-8", "replace")

    def log_size(self) -> int:
        """How many bytes the log has by now."""
        return os.path.getsize(self._log_file)

    def _wait_until_ready(self, script: str, timeout: float) -> None:
        deadline = time.monotonic() + timeout
        while not self._is_ready():
            code = self._process.poll()
            if code is not None:
                raise ServeError(failure(f"{script} cannot be served: the server ended with code {code}.", self.log()))
            if time.monotonic() > deadline:
                problem = f"{script} was not ready within {timeout:g} seconds. serve(timeout=...) sets another limit."
                raise ServeError(failure(problem, self.log()))
            time.sleep(_PAUSE)

    def _is_ready(self) -> bool:
        if not self.port:
            found = _ADDRESS.search(self.log())
            if not found:
                return False
            self.port = int(found[1])
            self.url = f"http://127.0.0.1:{self.port}"
            self.client = TestClient(self.url)
        try:
            return self.client.health().status == 200
        except OSError:  # it has ended, which the caller notices
            return False

    def _stop(self, grace: float) -> None:
        if self._process.poll() is None:
            try:
                self._process.send_signal(_END)
            except (OSError, SystemError):
                # Windows sends it through a console, and this process has none.
                self._process.terminate()
        try:
            self._process.wait(grace)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()


@contextlib.contextmanager
def serve(
    entry_script: str | os.PathLike[str],
    *,
    model_dir: str | os.PathLike[str] | None = None,
    folder: str | os.PathLike[str] | None = None,
    environment: Mapping[str, str] | None = None,
    timeout: float = 300.0,
    **settings: Any,
) -> Iterator[ScoringServer]:
    """Start the server with this script, yield it when it is ready, and stop it at the end.

    ``settings`` are those of docs/settings.md by their names: ``worker_count=2``, ``worker_class="thread"``,
    ``scoring_timeout_ms=500``. ``environment`` has more variables for the script. Relative paths start from ``folder``,
    in which the command is started; that is the current folder if it is left out.

    ``timeout``: seconds within which init() must have ended. Raises ServeError if the server does not become ready. To
    an exception that leaves the block the log is added.
    """
    script = os.fspath(entry_script)
    options, variables = _command_line(script, model_dir, settings)
    # The kernel means the thread that started the child by its parent: another thread than the main one may end before.
    parent = os.getpid() if threading.current_thread() is threading.main_thread() else 0
    command = [sys.executable, "-m", f"{__package__}.child", str(parent), *options]
    with tempfile.TemporaryDirectory(prefix="azmlinfsrv-test-") as temporary:
        log_file = os.path.join(temporary, "log")
        with open(log_file, "ab") as log:
            process = subprocess.Popen(
                command,
                cwd=folder,
                env={**os.environ, "PYTHONUNBUFFERED": "1", **variables, **(environment or {})},
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                # Ctrl-C in the terminal is for the test process, which stops the server.
                start_new_session=True,
                creationflags=_GROUP,
            )
        server = ScoringServer(process, log_file)
        try:
            server._wait_until_ready(script, timeout)
            yield server
        except ServeError:
            # Its message has what the log says.
            raise
        except BaseException as error:
            _add_log(error, server.log())
            raise
        finally:
            server._stop(_graceful(settings) + _STOP_GRACE)


def _graceful(settings: Mapping[str, Any]) -> float:
    return float(settings.get("graceful_timeout", _SETTINGS["graceful_timeout"].default))


def _command_line(
    script: str, model_dir: str | os.PathLike[str] | None, settings: Mapping[str, Any]
) -> tuple[list[str], dict[str, str]]:
    """The options of the command, and the variables for the settings that have no option with a value."""
    # The log must be plain text with the banner, whatever FORCE_COLOR says.
    options = ["--plain", "--entry_script", script, "--host", "127.0.0.1", "--port", "0", "--health_port", "0"]
    variables = {}
    if model_dir is not None:
        options += ["--model_dir", os.fspath(model_dir)]
    for name, value in settings.items():
        setting = _SETTINGS.get(name)
        if setting is None or name in _RESERVED:
            raise TypeError(_unknown(name))
        text = str(value).lower() if isinstance(value, bool) else os.fspath(value) if _is_path(value) else str(value)
        if setting.environment:
            variables[setting.environment] = text
        elif value:  # --rest, the one setting without a variable
            options.append(setting.flag or "")
    return options, variables


def _is_path(value: object) -> bool:
    return isinstance(value, os.PathLike)


def _unknown(name: str) -> str:
    if name in _RESERVED:
        return f"serve() does not take {name} as a setting: it chooses a free port on 127.0.0.1 itself"
    close = difflib.get_close_matches(name, _SETTINGS.keys() - _RESERVED, 1)
    return f"serve() got an unknown setting {name!r}" + (f" (did you mean {close[0]}?)" if close else "")


def failure(problem: str, log: str) -> str:
    """The problem, and what the log says about it: its error records, or, if there are none, its end."""
    errors = "\n".join(found[1].strip() for found in _ERROR.finditer(log))
    return f"{problem}\n\n{errors or _tail(log)}"


def _tail(log: str) -> str:
    lines = log.splitlines()
    return "\n".join(lines[-_SHOWN_LINES:])


def _add_log(error: BaseException, log: str) -> None:
    """Add the log to an exception: as a note, which Python and pytest show, or on standard error before Python 3.11."""
    text = f"---- Log of the scoring server\n{_tail(log)}"
    if hasattr(error, "add_note"):
        error.add_note(text)
    else:
        print(text, file=sys.stderr)
