"""What the server needs of threads, whatever the script has made of the module ``threading``.

A script that calls ``eventlet.monkey_patch()`` or ``gevent.monkey.patch_all()`` replaces thread starts by greenlets,
and locks by ones that several threads cannot share. Worker threads cannot serve such a script. The server must still
obey signals and end, so it uses what it has taken here before the script is loaded (``--worker_class thread``).
"""

from __future__ import annotations

import _thread
import sys
import threading
import time
from typing import Callable

from .. import _core

_start_new_thread = _thread.start_new_thread
# A lock of the interpreter, which any thread can release.
Lock = _thread.allocate_lock
sleep = time.sleep


# What glibc gives a thread. Python's limits of recursion are made for it.
STACK = 8 << 20


def give_room() -> None:
    """On Linux with musl, give each thread that is started from now on the stack that it has with glibc.

    musl gives it 128 KiB, or what the interpreter's build says, 1 MiB in most. There a result that is nested too deeply
    would end the process with SIGSEGV in place of RecursionError. The native module knows the C library for sure:
    CPython calls it glibc on musl too, up to 3.10.
    """
    if _core.IS_FOR_MUSL:
        threading.stack_size(STACK)


def start(target: Callable[..., object], name: str) -> None:
    """Start a thread with this name. Raises RuntimeError if the system has no room for it.

    Without ``threading.Thread``, whose end fails if the script has patched ``threading`` meanwhile.
    """
    _start_new_thread(_run, (target, name))


def _run(target: Callable[..., object], name: str) -> None:
    threading.current_thread().name = name
    target()


def replaced_by() -> str | None:
    """The call by which the script has replaced threads by greenlets; None if it has not."""
    eventlet, gevent = sys.modules.get("eventlet.patcher"), sys.modules.get("gevent.monkey")
    if eventlet is not None and eventlet.is_monkey_patched("thread"):
        return "eventlet.monkey_patch()"
    if gevent is not None and gevent.is_module_patched("threading"):
        return "gevent.monkey.patch_all()"
    return None
