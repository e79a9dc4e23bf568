"""The sockets that clients connect to, and what is told when one cannot be opened.

Runs in the launcher, before anything else is started: a port in use must be an error at once. The supervisor keeps the
listeners for its whole life, so that connections wait in their backlog while another front starts.
"""

from __future__ import annotations

import errno
import logging
import os
import socket
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from .settings import Settings

_logger = logging.getLogger("azmlinfsrv")

BACKLOG = 2048
_REMEDY = "Give --host an address or a name of this machine, or 0.0.0.0 for all its addresses."


class ListenError(Exception):
    """A listener cannot be opened; the text is for the user."""


def open_all(settings: Settings) -> list[socket.socket]:
    """The health listener first, if there is one of its own, then the main one. Raises ListenError."""
    ports = [settings.port]
    if settings.separate_health:
        ports.insert(0, settings.health_port)
    listeners = [_listen(settings.host, port) for port in ports]
    urls = ",".join(f"http://{_shown_host(settings.host)}:{port}" for port in ports)
    _logger.info("Listening at: %s (%d)", urls, os.getpid())
    return listeners


def _shown_host(host: str) -> str:
    return f"[{host}]" if ":" in host else host


def _listen(host: str, port: int) -> socket.socket:
    try:
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
        family, kind, protocol, _, address = found[0]
        listener = socket.socket(family, kind, protocol)
    except OSError as error:
        raise ListenError(f"--host {host}: {error.strerror or error}. {_REMEDY}") from error
    try:
        # On Windows that means something else: two servers on one port.
        if os.name != "nt":
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind(address)
        listener.listen(BACKLOG)
    except OSError as error:
        listener.close()
        raise ListenError(_why_not(host, port, error)) from error
    return listener


def _why_not(host: str, port: int, error: OSError) -> str:
    where = f"port {port} on {host}"
    if error.errno == errno.EADDRINUSE:
        return f"{where} is in use by another process. Stop that process, or choose another port with --port."
    if error.errno == errno.EACCES:
        return f"{where} may not be opened by this user. Choose a port above 1023 with --port."
    if error.errno == errno.EADDRNOTAVAIL:
        return f"{where} cannot be opened: this machine has no such address. {_REMEDY}"
    return f"{where} cannot be opened: {error.strerror}."
