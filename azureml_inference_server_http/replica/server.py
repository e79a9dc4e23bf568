"""One ordinary server as a child of a replica, which lives and dies with it.

Owns the child: its start, the port that it reports, its log, and both directions of the tie. If the server ends, the
replica ends at once, so that Ray starts another. If the replica ends, the kernel ends the server. Runs in the replica.
"""

from __future__ import annotations

import contextlib
import http.client
import os
import re
import subprocess
import sys
import threading
import time
from collections.abc import Mapping, Sequence

from ..testing.server import failure

# The line of the banner that reports the port (contract section 2). With --log_format json the banner is one text of
# JSON, whose ends of lines are written as \n.
_ADDRESS = re.compile(rb'(?:^|\\n)Score: +POST +\S+?:(\d+)/score(?=\\n|"|\r?$)', re.MULTILINE)
# Bytes of the log that are kept for an error message.
_KEPT = 32768
# Seconds between two looks at a server that starts.
_PAUSE = 0.02
# Seconds that the front has to answer /livez, and the log to arrive when the server has ended.
_PROMPT = 5.0
# Seconds beyond --graceful_timeout after which the server is killed.
_STOP_GRACE = 5.0


class ServerError(RuntimeError):
    """The server cannot serve the script. The text has the end of its log, with the script's traceback."""


class Server:
    """A server that is ready, or that is over."""

    def __init__(self, options: Sequence[str], environment: Mapping[str, str], graceful: float) -> None:
        """Start it, and wait until it has loaded the script. Raises ServerError."""
        self._words = [sys.executable, "-m", "azureml_inference_server_http.testing.child", str(os.getpid()), *options]
        self._environment = {**environment, "PYTHONUNBUFFERED": "1"}
        self._graceful = graceful
        self._log = bytearray()
        self._is_wanted = False  # True while the server must run: if it ends then, the replica ends too
        self._started = threading.Event()
        self._process: subprocess.Popen[bytes] | None = None
        self._failure: BaseException | None = None
        self.port = 0
        # The kernel ends the child when the thread that started it ends, so this thread lives as long as the child.
        threading.Thread(target=self._own, name="azmlinfsrv-owner", daemon=True).start()
        self._started.wait()
        if self._process is None:
            raise ServerError(f"the server cannot be started: {self._failure}")
        reader = threading.Thread(target=self._read, name="azmlinfsrv-log", daemon=True)
        reader.start()
        self._wait_until_ready(reader)

    def check(self) -> None:
        """Raise ServerError unless the front is alive."""
        if self._get("/livez") is None:
            raise ServerError("the server does not answer /livez")

    def metrics(self) -> str | None:
        """The answer to ``GET /metrics``, or None if there is none now."""
        found = self._get("/metrics")
        return None if found is None else found.decode("utf-8", "replace")

    def stop(self) -> None:
        """End it: it finishes its requests within --graceful_timeout."""
        self._is_wanted = False
        process = self._process
        if process is None or process.poll() is not None:
            return
        process.terminate()
        try:
            process.wait(self._graceful + _STOP_GRACE)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()

    # ---- The child

    def _own(self) -> None:
        try:
            process = subprocess.Popen(
                self._words,
                env=self._environment,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                # Ctrl-C in a terminal is for Ray, which stops the replica.
                start_new_session=True,
            )
        except OSError as error:
            self._failure = error
            self._started.set()
            return
        self._process = process
        self._started.set()
        process.wait()
        if self._is_wanted:
            # Ray sees the death of a process at once, and Serve starts another replica.
            self._say(f"The server ended with code {process.returncode}, and so does this replica.\n".encode())
            os._exit(1)

    def _read(self) -> None:
        """Write the server's log to where Ray keeps that of the replica."""
        process = self._process
        assert process is not None
        assert process.stdout is not None
        while part := os.read(process.stdout.fileno(), 65536):
            if not self._is_wanted:
                self._log += part
                del self._log[:-_KEPT]
            self._say(part)

    def _say(self, part: bytes) -> None:
        # Nobody may read it, which must not stop the server.
        with contextlib.suppress(OSError):
            while part:
                part = part[os.write(1, part) :]

    # ---- The start

    def _wait_until_ready(self, reader: threading.Thread) -> None:
        process = self._process
        assert process is not None
        while not self._is_ready():
            code = process.poll()
            if code is not None:
                reader.join(_PROMPT)
                log = bytes(self._log).decode("utf-8", "replace")
                raise ServerError(failure(f"The script cannot be served: the server ended with code {code}.", log))
            time.sleep(_PAUSE)
        self._is_wanted = True
        self._log.clear()
        if process.poll() is not None:
            raise ServerError(f"the server ended with code {process.returncode}")

    def _is_ready(self) -> bool:
        if not self.port:
            found = _ADDRESS.search(bytes(self._log))
            if found is None:
                return False
            self.port = int(found[1])
        return self._get("/readyz") is not None

    def _get(self, path: str) -> bytes | None:
        """The body of the answer, or None if the server does not answer with status 200."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=_PROMPT)
        try:
            connection.request("GET", path)
            response = connection.getresponse()
            body = response.read()
            return body if response.status == 200 else None
        except (OSError, http.client.HTTPException):
            return None
        finally:
            connection.close()
