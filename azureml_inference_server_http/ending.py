"""The end of a process that ran the user's script: nothing that the script left behind may keep it.

Python waits for every thread that is not a daemon before it ends, and only then calls the handlers of ``atexit``, which
may wait as well. They get a few seconds. Runs in workers and, with WORKER_PRELOAD, in the supervisor, at the very end.
"""

from __future__ import annotations

import atexit
import contextlib
import logging
import os
import signal
import sys
import threading
from typing import NoReturn

# Seconds for threads to end; the handlers of atexit are called in any case.
THREADS = 3.0
# Seconds until the kernel ends the process, whatever it does.
EVERYTHING = 10.0

_logger = logging.getLogger("azmlinfsrv")


def limit(code: int) -> None:
    """Call just before leaving the main module with this exit code; from here on it takes a few seconds at most."""
    threads_have_ended = threading.Event()
    # The handler that was registered last is called first.
    atexit.register(threads_have_ended.set)
    watch = threading.Thread(target=_watch, args=(threads_have_ended, code), name="azmlinfsrv-ending", daemon=True)
    watch.start()
    # Native code may hold the interpreter, but not this.
    signal.signal(signal.SIGALRM, signal.SIG_DFL)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGALRM})
    signal.setitimer(signal.ITIMER_REAL, EVERYTHING)


def at_once(code: int) -> NoReturn:
    """End this process without what Python does at its end, log records and buffers excepted."""
    logging.shutdown()
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(OSError, ValueError):
            stream.flush()
    os._exit(code)


def _watch(threads_have_ended: threading.Event, code: int) -> None:
    if threads_have_ended.wait(THREADS):
        return
    threads = (thread for thread in threading.enumerate() if not (thread.daemon or thread is threading.main_thread()))
    names = ", ".join(thread.name for thread in threads)
    _logger.warning("Threads of the script have not ended within %g s and are left behind: %s", THREADS, names)
    atexit._run_exitfuncs()
    at_once(code)
