"""The options of ``azmlinfsrv generate``: the server's own, and where the files go.

Owns names, help and usage errors. Settings of the server keep their options and their meaning, from
``launch/settings_table.py``. Runs in the command.
"""

from __future__ import annotations

import argparse
import re
from collections.abc import Sequence
from typing import Any

from ..launch import options as of_server
from ..launch.settings_table import GROUPS, SETTINGS
from ..validation.options import TIMEOUT, UsageError, raising_parser
from .kinds import KINDS

EXIT_WRITTEN, EXIT_REFUSED, EXIT_USAGE = 0, 1, 2
# A label of DNS (RFC 1035), because Kubernetes demands it of a Service; short enough for what is appended to it.
_NAME = re.compile(r"[a-z](?:[a-z0-9-]{0,50}[a-z0-9])?")
# Names that YAML takes for something else than text.
_WORDS_OF_YAML = frozenset({"y", "n", "yes", "no", "on", "off", "true", "false", "null"})


def parser() -> argparse.ArgumentParser:
    """The parser of ``azmlinfsrv generate``."""
    parser = raising_parser(
        prog=f"{of_server.PROGRAM} generate",
        usage="%(prog)s KIND [KIND ...] --entry_script FILE [options]",
        description="Write files that run a scoring script elsewhere. They have the settings in force, from options, "
        "environment and configuration file, and sizes that are measured by starting the script once, as "
        f"`{of_server.PROGRAM} validate` does. Nothing is built, started or deployed.",
        epilog="Exit code: 0 written, 1 a file is there already and differs (see --force), 2 wrong usage. "
        "docs/deploy.md says which kind to choose.",
        argument_default=argparse.SUPPRESS,
        allow_abbrev=False,
        formatter_class=argparse.RawTextHelpFormatter,
    )
    kinds = "\n".join(f"{name}: {kind.purpose}" for name, kind in KINDS.items())
    parser.add_argument("kinds", metavar="KIND", nargs="+", choices=list(KINDS), help=kinds)
    files = parser.add_argument_group("files")
    files.add_argument("--out", metavar="DIR", help="Folder that the files are written to. Default: the current one.")
    files.add_argument("--force", action="store_true", help="Overwrite files that differ.")
    files.add_argument(
        "--name",
        metavar="NAME",
        type=_name,
        help="Name of the service, as in my-model. Default: that of the folder of the script's files.",
    )
    files.add_argument("--image", metavar="IMAGE", help="Name of the image. Default: NAME:1.")
    files.add_argument(
        "--requirements",
        metavar="FILE",
        help="requirements.txt or conda file of the script. Default: the one in the folder of the script's files.",
    )
    files.add_argument(
        "--wheel",
        metavar="FILE",
        help="Wheel of this server for the image. Default: pip fetches this version from its index.",
    )
    measuring = parser.add_argument_group("measuring")
    measuring.add_argument("--no_measure", action="store_true", help="Do not start the script; write careful sizes.")
    measuring.add_argument(
        "--sample", metavar="FILE", action="append", help="A request to send, as for validate. May be repeated."
    )
    measuring.add_argument(
        "--samples", metavar="DIR", action="append", help="A folder of such requests. May be repeated."
    )
    measuring.add_argument(
        "--timeout",
        metavar="SECONDS",
        type=float,
        help=f"Limit for the import, for init(), and for each request. Default: {TIMEOUT:g}.",
    )
    for group, purpose in GROUPS.items():
        rows = [setting for setting in SETTINGS if setting.group == group and setting.flag and not setting.hidden]
        if rows:
            server = parser.add_argument_group(f"settings of the server: {group}", purpose)
            for setting in rows:
                of_server.add_option(server, setting)
    return parser


def parse(argv: Sequence[str]) -> dict[str, Any]:
    """What was typed. Raises UsageError; ``--help`` raises SystemExit."""
    return vars(parser().parse_args(argv))


def _name(text: str) -> str:
    if not _NAME.fullmatch(text):
        raise argparse.ArgumentTypeError(
            f"{text!r} cannot be a name: it must be at most 52 letters a-z, digits and hyphens, and begin with a letter"
        )
    if text in _WORDS_OF_YAML:
        raise argparse.ArgumentTypeError(f"{text!r} cannot be a name, because it is no text in YAML")
    return text


def name_from(folder: str) -> str:
    """A name made from that of a folder, or ``score``."""
    words = re.sub(r"[^a-z0-9]+", "-", folder.lower()).lstrip("-0123456789")[:52].rstrip("-")
    return words if _NAME.fullmatch(words) and words not in _WORDS_OF_YAML else "score"


__all__ = ["EXIT_REFUSED", "EXIT_USAGE", "EXIT_WRITTEN", "UsageError", "name_from", "parse", "parser"]
