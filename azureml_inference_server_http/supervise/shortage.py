"""Messages for when the system runs out of descriptors, memory, processes or disk.

``src/shortage.rs`` has the same for the front and the workers' connections. Any process may use it.
"""

from __future__ import annotations

import errno

PROCESSES = "Raise the limit of processes and threads (ulimit -u, pids of the container)."
_OPEN_FILES = "Raise the limit of open files (ulimit -n, nofile of the container)."
_MEMORY = "Give the machine or the container more memory, or use fewer workers."
_DISK = "Free space there, or write elsewhere."
_REMEDIES = {
    errno.EMFILE: _OPEN_FILES,
    errno.ENFILE: "Raise the system's limit of open files (fs.file-max).",
    errno.ENOMEM: _MEMORY,
    errno.ENOBUFS: _MEMORY,
    # Here it comes from fork(). Other code handles the EAGAIN of sockets and streams, which means
    # "try again later".
    errno.EAGAIN: PROCESSES,
    errno.ENOSPC: _DISK,
    errno.EROFS: "Write to a folder that is not read-only.",
}
# Not every system has this error.
if hasattr(errno, "EDQUOT"):
    _REMEDIES[errno.EDQUOT] = _DISK


def explain(error: OSError, otherwise: str | None = None) -> str:
    """Says what the system has too little of, and the remedy. For other errors, says the error,
    then ``otherwise``."""
    remedy = _REMEDIES.get(error.errno or 0, otherwise)
    return " ".join(filter(None, [f"{error.strerror or error}.", remedy]))
