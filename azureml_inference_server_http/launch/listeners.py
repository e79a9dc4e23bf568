"""Opens the sockets that clients connect to, and makes the messages for those that cannot be
opened.

Runs in the launcher before the banner, because a port in use must be an error at once, and because
the banner shows the ports (port 0 gets its number here). The supervisor keeps the listeners open
for its whole life, so that connections wait in their backlog while another front starts.
"""

from __future__ import annotations

import errno
import logging
import os
import socket
import sys
from typing import TYPE_CHECKING

from ..supervise import shortage
from . import display

if TYPE_CHECKING:
    from .settings import Settings

_logger = logging.getLogger("azmlinfsrv")

BACKLOG = 2048
# Characters of a wrong host that a message shows at most.
_SHOWN_HOST = 80
_REMEDY = "Give --host an address or a name of this machine, or 0.0.0.0 for all its addresses."


class ListenError(Exception):
    """A listener cannot be opened. The text tells the user why, and what to do."""


def open_all(settings: Settings) -> tuple[Settings, list[socket.socket]]:
    """Open the main listener, and the health listener if health has a port of its own. Raises
    ListenError.

    Returns the settings, in which the opened ports replace port 0, and the listeners, the health
    listener first.
    """
    main = _listen(settings.host, settings.port)
    port = main.getsockname()[1]
    if not settings.separate_health:
        return settings._replace(port=port, health_port=port), [main]
    try:
        health = _listen(settings.host, settings.health_port)
    except ListenError:
        main.close()
        raise
    return settings._replace(port=port, health_port=health.getsockname()[1]), [health, main]


def announce(settings: Settings, clients: list[socket.socket]) -> None:
    """Log the addresses that ``open_all`` has opened (contract section 2)."""
    if not all(client.family in (socket.AF_INET, socket.AF_INET6) for client in clients):
        _logger.info("Listening at: a Unix socket, and no port (%d)", os.getpid())
        return
    ports = [settings.health_port, settings.port] if settings.separate_health else [settings.port]
    urls = ",".join(f"http://{display.host_in_url(settings.host)}:{port}" for port in ports)
    _logger.info("Listening at: %s (%d)", urls, os.getpid())


def _listen(host: str, port: int) -> socket.socket:
    try:
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
    except (OSError, ValueError) as error:
        # ValueError: the name cannot be encoded. It has a label above 63 characters, a NUL, or
        # bytes that are no text.
        reason = error.strerror or error if isinstance(error, OSError) else "this is not a host name"
        raise ListenError(f"--host {_shortened(host)}: {reason}. {_REMEDY}") from error
    family, kind, protocol, _, address = found[0]
    try:
        listener = socket.socket(family, kind, protocol)
    except OSError as error:
        raise ListenError(f"--host {_shortened(host)}: {shortage.explain(error, otherwise=_REMEDY)}") from error
    try:
        if sys.platform == "win32":
            # Otherwise another program could take this server's connections with SO_REUSEADDR, which lets two programs
            # listen on one port there.
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_EXCLUSIVEADDRUSE, 1)
        else:
            # Lets a new server have the port while connections of the last one wait to end. Windows does that unasked.
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind(address)
        listener.listen(BACKLOG)
    except OSError as error:
        listener.close()
        raise ListenError(_why_not(host, port, error)) from error
    return listener


def _shortened(host: str) -> str:
    """The host as a message shows it: without control characters, and not too long."""
    shown = host if host.isprintable() else repr(host)
    return shown if len(shown) <= _SHOWN_HOST else f"{shown[:_SHOWN_HOST]}... ({len(host)} characters)"


def _why_not(host: str, port: int, error: OSError) -> str:
    where = f"port {port} on {host}"
    if error.errno == errno.EADDRINUSE:
        from . import port_holder

        holder = port_holder.find(port) or "another process"
        return f"{where} is in use by {holder}. Stop that process, or choose another port with --port."
    if error.errno == errno.EACCES and sys.platform == "win32":
        return (
            f"{where} may not be opened: another process has it for itself, or Windows reserves it (netsh interface "
            "ipv4 show excludedportrange protocol=tcp lists such ports). Choose another port with --port."
        )
    if error.errno == errno.EACCES:
        return f"{where} may not be opened by this user. Choose a port above 1023 with --port."
    if error.errno == errno.EADDRNOTAVAIL:
        return f"{where} cannot be opened: this machine has no such address. {_REMEDY}"
    return f"{where} cannot be opened: {shortage.explain(error)}"
