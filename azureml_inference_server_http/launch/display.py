"""What a terminal gets in place of what a file or a pipe gets: a short start, colours, progress of init().

Decides which of these the output gets, and makes their text. A file or a pipe gets every byte as the
contract has it (section 2); ``banner.py`` owns that. Used by the launcher, and by the log of every process
(``TerminalFormatter``). ``src/logging/lines.rs`` colours the lines of the front in the same way.
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from typing import TYPE_CHECKING, NamedTuple

import azureml_inference_server_http as package

from .settings_table import ON_OFF, PROCESS, SETTINGS, Setting, is_hidden, label

if TYPE_CHECKING:
    from .progress import Progress
    from .settings import Settings

BOLD, DIM, RED, GREEN, YELLOW, CYAN = "1", "2", "31", "32", "33", "36"
# Of the short start: they have a line of their own there, or say how it looks.
_SHOWN = {"entry_script", "model_dir", "host", "port", "worker_count", "worker_class", "plain"}
_ANY_ADDRESS = ("0.0.0.0", "::", "")
_RECORD = re.compile(r"(\S+ \S+) ([DIWEC])( \[.*)", re.DOTALL)
_REQUEST = re.compile(r"(.* - [A-Z]+ \S+ )(\d{3})( \d+\.\d+ms (?:\d+|N/A))")
_LEVELS = {"D": DIM, "I": "", "W": YELLOW, "E": RED, "C": RED}


class Display(NamedTuple):
    """``colour``: lines have colours. ``is_short``: the start is the short one, and an error in the command line is
    told without the whole help. ``progress``: draws the progress of init(), None if nobody does. ``json_log``: the
    descriptor that JSON lines are written to, None if the log is text."""

    colour: bool = False
    is_short: bool = False
    progress: Progress | None = None
    json_log: int | None = None


def is_interactive(environment: Mapping[str, str], is_terminal: bool, plain: bool) -> bool:
    """Whether standard output is read by a person, who has not asked for plain text."""
    return is_terminal and not plain and environment.get("TERM") != "dumb"


def has_colour(environment: Mapping[str, str], interactive: bool, plain: bool) -> bool:
    """Whether lines have colours: NO_COLOR and FORCE_COLOR (both as described on no-color.org and force-color.org)
    decide before the terminal does, --plain before all."""
    if plain or environment.get("NO_COLOR"):
        return False
    forced = environment.get("FORCE_COLOR", "")
    if forced:
        return forced != "0"
    # The old console of Windows shows the codes as text.
    return interactive and (os.name != "nt" or "WT_SESSION" in environment)


def painted(text: str, code: str, colour: bool = True) -> str:
    """The text in a colour of the terminal; without one for an empty code."""
    return f"\x1b[{code}m{text}\x1b[0m" if colour and code else text


def record(line: str) -> str:
    """A log record with colours: time, level, and the status of a request."""
    match = _RECORD.fullmatch(line)
    if match is None:
        return line
    time, level, rest = match.groups()
    request = _REQUEST.fullmatch(rest)
    if request is not None:
        rest = f"{request[1]}{painted(request[2], status_colour(int(request[2])))}{request[3]}"
    return f"{painted(time, DIM)} {painted(level, _LEVELS[level])}{rest}"


def status_colour(status: int) -> str:
    """The colour of a status, the same as in ``src/logging/lines.rs``."""
    return RED if status >= 500 else YELLOW if status >= 400 else CYAN if status >= 300 else GREEN


def host_in_url(host: str) -> str:
    """A host as URLs have it: IPv6 addresses in brackets."""
    return f"[{host}]" if ":" in host else host


def local_host(host: str) -> str:
    """The host for URLs that are used on this machine, where nobody can connect to "any address"."""
    return host_in_url("127.0.0.1" if host in _ANY_ADDRESS else host)


def start(settings: Settings, colour: bool) -> list[str]:
    """The short start: address, script, model, workers, what is not default, and how to stop."""
    url = f"http://{local_host(settings.host)}:{settings.port}"
    everywhere = " and every other address of this machine" if settings.host in _ANY_ADDRESS else ""
    kind = "process" if settings.worker_class == PROCESS else "thread"
    cores = settings.cores
    several = "" if settings.worker_count == 1 else "es" if kind == "process" else "s"
    rows = [
        ("address", painted(url, BOLD, colour) + everywhere),
        ("routes", "POST /score, GET / (health), GET /swagger.json"),
        ("script", settings.entry_script or "the module main"),
        ("model", settings.model_dir or "none (--model_dir names its folder)"),
        ("workers", f"{settings.worker_count} {kind}{several}" + ("" if cores is None else f" ({cores.source})")),
    ]
    if settings.health_port != settings.port:
        rows.insert(1, ("health", f"port {settings.health_port} as well"))
    if settings.docs:
        rows.insert(1, ("try it", f"{url}/docs in a browser"))
    changed = ", ".join(_changed(settings))
    if changed:
        rows.append(("settings", changed))
    title = painted(f"Azure ML Inferencing HTTP server v{package.__version__}", BOLD, colour)
    lines = [f"  {painted(f'{name:<9}', DIM, colour)}{value}" for name, value in rows]
    return ["", title, "", *lines, "", "Press Ctrl-C to stop the server.", ""]


def _changed(settings: Settings) -> list[str]:
    return [
        f"{_name(row)}={_value(row, settings)}"
        for row in SETTINGS
        if row.name not in _SHOWN
        # An origin of the kind "default" has no name.
        and settings.origins[row.name].name
        and getattr(settings, row.name) != row.default
    ]


def _name(row: Setting) -> str:
    return row.flag or label(row)


def _value(row: Setting, settings: Settings) -> str:
    value = getattr(settings, row.name)
    if row.kind == ON_OFF:
        return "on" if value else "off"
    return "***" if is_hidden(row) else str(value)
