"""Calls of an async script without a front, for the tests of several files."""

from __future__ import annotations

import os
import socket
import time


class World:
    """Calls of one script, and what they have reported."""

    def __init__(self, script):
        self.script = script
        self.calls = script.calls()
        self.front, self.worker = socket.socketpair()
        self.connection = 1
        self.reports = []

    def start(self, number, **arguments):
        self.calls.start(number, arguments, None)

    def turn(self):
        """Let the loop run until something is reported, the front has sent something, or its longest time is over."""
        self.reports += [tuple(report) for report in self.calls.run(self.worker.fileno(), self.connection)]

    def connect_again(self):
        """Lose the front, and connect to another one. The new socket has the descriptor of the old one."""
        descriptor = self.worker.fileno()
        self.front.close()
        self.worker.close()
        self.front, self.worker = socket.socketpair()
        if self.worker.fileno() != descriptor:
            os.dup2(self.worker.fileno(), descriptor)
            self.worker.close()
            self.worker = socket.socket(fileno=descriptor)
        self.connection += 1

    def until(self, what, number=None):
        """Let the loop run until this is reported. Returns its value."""
        deadline = time.monotonic() + 30
        while time.monotonic() < deadline:
            for each in self.reports:
                if each[1] == what and number in (None, each[0]):
                    return each[2]
            self.turn()
        raise AssertionError(f"no {what}: {self.reports}")

    def kinds(self):
        return [report[1] for report in self.reports]
