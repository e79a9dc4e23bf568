"""What a test puts around a server: a terminal, a port that is in use, a pipe that is full.

Runs in the test process.
"""

from __future__ import annotations

import os
import pty
import select
import socket
import sys


class Terminal:
    """A pseudo terminal. ``starts`` is a program that starts the command given as its arguments
    with this terminal as its controlling terminal and standard input: for
    ``Server(through=...)``."""

    def __init__(self) -> None:
        self._master, self._slave = pty.openpty()
        take_it = (
            "import fcntl, os, sys, termios\n"
            "terminal = os.open(sys.argv[1], os.O_RDWR)\n"
            "fcntl.ioctl(terminal, termios.TIOCSCTTY, 0)\n"
            "os.dup2(terminal, 0)\n"
            "os.execvp(sys.argv[2], sys.argv[2:])"
        )
        self.starts = (sys.executable, "-c", take_it, os.ttyname(self._slave))
        self._is_open = True

    def type(self, text: str) -> None:
        os.write(self._master, text.encode())

    def close(self) -> None:
        """Close the terminal, which sends SIGHUP to its programs."""
        if self._is_open:
            self._is_open = False
            os.close(self._slave)
            os.close(self._master)


class Port:
    """A port that nobody else gets: bound, but never listened on, for as long as this object
    lives."""

    def __init__(self) -> None:
        self._socket = socket.socket()
        self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        self._socket.bind(("0.0.0.0", 0))
        self.number: int = self._socket.getsockname()[1]

    def release(self) -> None:
        self._socket.close()


def free_port() -> int:
    """A port that is free now, for a program that cannot take a free one and say which."""
    port = Port()
    port.release()
    return port.number


def fill(writer: int) -> int:
    """Write to a pipe until nothing goes in any more; how many bytes that were.

    Not in non-blocking mode, which would be the mode of everybody who has the pipe.
    """
    poll = select.poll()
    poll.register(writer, select.POLLOUT)
    written = 0
    while poll.poll(0):
        written += os.write(writer, b"x" * select.PIPE_BUF)
    return written
