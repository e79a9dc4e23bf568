"""Drives a headless Chromium, if one is installed: opens pages, runs code in them, presses keys, takes pictures.

Owns the process and the protocol (Chrome DevTools Protocol, as JSON over two pipes, so that nothing but the browser is
needed). The tests own what is expected. Runs in the test process.
"""

from __future__ import annotations

import base64
import json
import os
import select
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from harness import TIED_TO_US, eventually

NAMES = ("chromium", "chromium-browser", "google-chrome", "chrome")
PATIENCE = 60.0
_INHERIT = (
    "import fcntl, os, sys; reader, writer = (fcntl.fcntl(int(each), fcntl.F_DUPFD, 10) for each in sys.argv[1:3]); "
    "os.dup2(reader, 3); os.dup2(writer, 4); os.execv(sys.argv[3], sys.argv[3:])"
)


def installed() -> str | None:
    """The path of a Chromium, if there is one."""
    return next(filter(None, map(shutil.which, NAMES)), None)


class PageError(AssertionError):
    """Code in the page has raised an exception."""


class Browser:
    """A browser with one page. Use it as a context manager."""

    def __init__(self) -> None:
        program = installed()
        assert program, "test whether a browser is installed() first"
        self._folder = tempfile.mkdtemp(prefix="azml-browser-")
        theirs, self._out = os.pipe()
        self._in, theirs_out = os.pipe()
        command = [
            *TIED_TO_US,
            # The browser reads commands from descriptor 3 and writes to 4. Copies above both come first, because one of
            # the pipes may have these numbers.
            *(sys.executable, "-I", "-S", "-c", _INHERIT, str(theirs), str(theirs_out)),
            program,
            *("--headless=new", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--no-first-run"),
            *("--disable-background-networking", "--disable-component-update", "--disable-extensions"),
            *("--remote-debugging-pipe", f"--user-data-dir={self._folder}", "about:blank"),
        ]
        self._log = Path(self._folder, "log")
        with self._log.open("wb") as log:
            self._process = subprocess.Popen(
                command, stdin=subprocess.DEVNULL, stdout=log, stderr=log, pass_fds=(theirs, theirs_out)
            )
        os.close(theirs)
        os.close(theirs_out)
        self._unread = b""
        self._number = 0
        self._session: str | None = None
        # What the pages have written to their console, and what their policies have refused.
        self.console: list[str] = []
        # The URLs that the pages have asked for.
        self.requests: list[str] = []
        target = self.call("Target.createTarget", url="about:blank")["targetId"]
        self._session = self.call("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
        for domain in ("Page", "Runtime", "Log", "Network"):
            self.call(f"{domain}.enable")

    def __enter__(self) -> Browser:
        return self

    def __exit__(self, *_: object) -> None:
        self._process.kill()
        self._process.wait()
        os.close(self._in)
        os.close(self._out)
        # Children of the browser may still write there for a moment.
        shutil.rmtree(self._folder, ignore_errors=True)

    # ---- The protocol

    def call(self, method: str, **parameters: Any) -> Any:
        """The result of a command of the protocol."""
        self._number += 1
        message = {"id": self._number, "method": method, "params": parameters}
        if self._session:
            message["sessionId"] = self._session
        os.write(self._out, json.dumps(message).encode() + b"\0")
        deadline = time.monotonic() + PATIENCE
        while True:
            got = self._receive(deadline, method)
            if got.get("id") == self._number:
                assert "error" not in got, f"{method}: {got}"
                return got["result"]

    def _receive(self, deadline: float, what: str) -> Any:
        while b"\0" not in self._unread:
            ready, _, _ = select.select([self._in], [], [], max(0.0, deadline - time.monotonic()))
            part = os.read(self._in, 1 << 20) if ready else b""
            if not part:
                raise AssertionError(f"the browser does not answer {what}: {self._log.read_text(errors='replace')}")
            self._unread += part
        text, self._unread = self._unread.split(b"\0", 1)
        message = json.loads(text)
        self._note(message.get("method"), message.get("params", {}))
        return message

    def _note(self, method: str | None, event: Any) -> None:
        if method == "Runtime.consoleAPICalled":
            self.console.append(" ".join(str(each.get("value", each.get("description"))) for each in event["args"]))
        elif method == "Runtime.exceptionThrown":
            self.console.append(str(event["exceptionDetails"]))
        elif method == "Log.entryAdded":
            self.console.append(f"{event['entry']['text']} {event['entry'].get('url', '')}")
        elif method == "Network.requestWillBeSent":
            self.requests.append(event["request"]["url"])

    # ---- Pages

    def open(self, url: str) -> None:
        """Open a page, and wait until it has been loaded."""
        self.call("Page.navigate", url=url)
        eventually(
            lambda: self.run("document.readyState") == "complete" and self.run("location.href") != "about:blank",
            url,
            PATIENCE,
        )

    def run(self, code: str) -> Any:
        """The value of an expression in the page; promises are awaited."""
        done = self.call("Runtime.evaluate", expression=code, awaitPromise=True, returnByValue=True, userGesture=True)
        if "exceptionDetails" in done:
            raise PageError(f"{code}: {done['exceptionDetails']}")
        return done["result"].get("value")

    def text(self, selector: str) -> str:
        """The text of an element as a person sees it; empty if it is hidden or not there."""
        return str(self.run(f"document.querySelector({json.dumps(selector)})?.innerText ?? ''"))

    def see(self, selector: str, part: str) -> str:
        """Wait until an element shows this text."""
        eventually(lambda: part in self.text(selector), f"{selector} shows {part!r}", PATIENCE)
        return self.text(selector)

    def fill(self, selector: str, value: str) -> None:
        """Put a value into a field, as typing it does."""
        field = f"document.querySelector({json.dumps(selector)})"
        self.run(f"{field}.value = {json.dumps(value)}; {field}.dispatchEvent(new Event('input', {{bubbles: true}}))")

    def click(self, selector: str) -> None:
        """Click on an element."""
        self.run(f"document.querySelector({json.dumps(selector)}).click()")

    def press(self, key: str, modifiers: int = 0, code: int = 0) -> None:
        """Press and release a key. ``modifiers``: 2 is Ctrl, 8 is Shift; ``code``: its virtual code."""
        for kind in ("rawKeyDown", "keyUp"):
            self.call("Input.dispatchKeyEvent", type=kind, key=key, modifiers=modifiers, windowsVirtualKeyCode=code)

    def show(self, width: int, height: int, scheme: str) -> None:
        """Make the window this large, and let the system prefer this colour scheme."""
        self.call("Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=1, mobile=False)
        self.call("Emulation.setEmulatedMedia", features=[{"name": "prefers-color-scheme", "value": scheme}])

    def picture(self) -> bytes:
        """The window as PNG."""
        return base64.b64decode(self.call("Page.captureScreenshot", format="png")["data"])
