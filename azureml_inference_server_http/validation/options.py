"""The options of ``azmlinfsrv validate`` and ``azmlinfsrv replay``: what is typed, and what of it is refused.

Owns names, help and usage errors (exit code 2). Settings of the server keep their options and their meaning, from
``launch/settings_table.py``. Runs in the command.
"""

from __future__ import annotations

import argparse
import os
import re
from collections.abc import Sequence
from typing import Any, NoReturn

from ..launch import options
from ..launch.settings_table import SETTINGS
from . import findings, json_paths
from .comparing import Tolerance
from .json_paths import Pattern

EXIT_VALID, EXIT_FINDINGS, EXIT_USAGE = 0, 1, 2
# Seconds for the import, for init(), and for each request.
TIMEOUT = 300.0
# The options of the server that change what a script sees, or what becomes of a request.
_OF_THE_SERVER = ("entry_script", "model_dir", "config_file", "worker_class", "max_request_size")
# A relative tolerance that forgives only what another processor computes differently.
RTOL = 1e-6
SAME_RTOL = 1e-12


class UsageError(Exception):
    """The command was typed wrongly; the text says what to change."""


class _Parser(argparse.ArgumentParser):
    def parse_args(  # type: ignore[override]
        self, args: Sequence[str] | None = None, namespace: argparse.Namespace | None = None
    ) -> argparse.Namespace:
        found, unknown = self.parse_known_args(args, namespace)
        if unknown:
            self.error(f"unrecognized arguments: {' '.join(unknown)}{self._suggestion(unknown)}")
        return found

    def error(self, message: str) -> NoReturn:
        raise UsageError(message)

    def _suggestion(self, unknown: Sequence[str]) -> str:
        """Which option the first unknown one was probably meant to be, or where all are listed."""
        import difflib

        typed = next((word.partition("=")[0].replace("-", "_") for word in unknown if word.startswith("--")), "")
        options = {option.replace("-", "_"): option for action in self._actions for option in action.option_strings}
        close = difflib.get_close_matches(typed, options, 1, 0.8)
        return f" (did you mean {options[close[0]]}?)" if close else f" ({self.prog} --help lists all options)"


def raising_parser(**how: Any) -> argparse.ArgumentParser:
    """A parser that raises UsageError in place of ending the process."""
    return _Parser(**how)


def of_validate() -> argparse.ArgumentParser:
    """The parser of ``azmlinfsrv validate``."""
    parser = _Parser(
        prog=f"{options.PROGRAM} validate",
        usage="%(prog)s --entry_script FILE [options]",
        description="Check a scoring script as the server would run it: import it, call init(), make the swagger "
        "documents, call run() with samples, and compare the answers. No port is opened.",
        epilog="Exit code: 0 valid, 1 findings, 2 wrong usage. Other settings of the server count as well, from the "
        "environment or the configuration file. docs/validate.md has the formats of samples and ready pipelines.",
        argument_default=argparse.SUPPRESS,
        allow_abbrev=False,
    )
    server = parser.add_argument_group("the script and its settings")
    for setting in SETTINGS:
        if setting.name in _OF_THE_SERVER:
            options.add_option(server, setting)
    samples = parser.add_argument_group("samples")
    samples.add_argument(
        "--sample", metavar="FILE", action="append", help="A request body, or a NAME.request.json. May be repeated."
    )
    samples.add_argument("--samples", metavar="DIR", action="append", help="A folder of samples. May be repeated.")
    _add_comparison(samples)
    samples.add_argument(
        "--once",
        action="store_true",
        help="Send each sample once. By default it is sent twice, and the answers must be equal.",
    )
    limits = parser.add_argument_group("limits")
    limits.add_argument(
        "--timeout",
        metavar="SECONDS",
        type=_positive,
        help=f"Limit for the import, for init(), and for each request. Default: {TIMEOUT:g}.",
    )
    limits.add_argument(
        "--budget_ms",
        metavar="MS",
        type=_positive,
        help="Longest time that a call of run() may take. The first call of each sample counts too.",
    )
    limits.add_argument(
        "--budget_mb",
        metavar="MB",
        type=_positive,
        help="Most memory that the process of the script may use, in units of 1,000,000 bytes.",
    )
    limits.add_argument(
        "--requirements",
        metavar="FILE",
        help="A requirements.txt or conda file: packages that the script imports have to be in it.",
    )
    output = parser.add_argument_group("output")
    output.add_argument("--format", choices=("text", "json", "junit", "github"), help="Default: text.")
    output.add_argument("--output", metavar="FILE", help="Write the report to this file instead of standard output.")
    output.add_argument(
        "--ignore",
        metavar="CODE",
        action="append",
        type=_codes,
        help="Leave out findings of this kind. May be repeated.",
    )
    output.add_argument("--verbose", action="store_true", help="Show the server's log on standard error.")
    output.add_argument("--explain", metavar="CODE", type=_kind, help="Explain a kind of finding, and exit.")
    return parser


def of_replay() -> argparse.ArgumentParser:
    """The parser of ``azmlinfsrv replay``."""
    parser = _Parser(
        prog=f"{options.PROGRAM} replay",
        usage="%(prog)s --url URL --samples DIR [options]",
        description="Send samples to a running server, and show how its answers differ from the expected ones.",
        epilog="Exit code: 0 all answers are as expected, 1 some differ, 2 wrong usage.",
        argument_default=argparse.SUPPRESS,
        allow_abbrev=False,
    )
    parser.add_argument("--url", metavar="URL", required=True, help="The server, such as http://127.0.0.1:5001.")
    parser.add_argument(
        "--sample", metavar="FILE", action="append", help="A request body, or a NAME.request.json. May be repeated."
    )
    parser.add_argument("--samples", metavar="DIR", action="append", help="A folder of samples. May be repeated.")
    parser.add_argument(
        "--header",
        metavar="'NAME: VALUE'",
        action="append",
        type=_header,
        help="A header for each request, such as an Authorization. May be repeated.",
    )
    parser.add_argument(
        "--timeout",
        metavar="SECONDS",
        type=_positive,
        help="Longest time that nothing may come from the server. Default: 60.",
    )
    _add_comparison(parser)
    return parser


def _add_comparison(group: Any) -> None:
    group.add_argument(
        "--rtol",
        metavar="NUMBER",
        type=_tolerance,
        help=f"Relative tolerance for numbers in expected answers. Default: {RTOL:g}.",
    )
    group.add_argument(
        "--atol",
        metavar="NUMBER",
        type=_tolerance,
        help="Absolute tolerance for numbers in expected answers. Default: 0.",
    )
    group.add_argument(
        "--ignore_path",
        metavar="PATH",
        action="append",
        type=_path,
        help="A part of answers that may differ, such as '$.time'. May be repeated.",
    )


# ---- Values


def _positive(text: str) -> float:
    number = _tolerance(text)
    if number == 0:
        raise argparse.ArgumentTypeError(f"{text!r} must be above 0")
    return number


def _tolerance(text: str) -> float:
    if not re.fullmatch(r"[0-9]*\.?[0-9]+(?:e[+-]?[0-9]+)?|[0-9]+\.", text, re.IGNORECASE):
        raise argparse.ArgumentTypeError(f"{text!r} is not a number of 0 or more")
    return float(text)


def _path(text: str) -> Pattern:
    try:
        return json_paths.parse(text)
    except json_paths.PathError as error:
        raise argparse.ArgumentTypeError(str(error)) from None


def _header(text: str) -> tuple[str, str]:
    name, colon, value = text.partition(":")
    if not colon or not re.fullmatch(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+", name):
        raise argparse.ArgumentTypeError(f"{text!r} is no header: write it like 'Authorization: Bearer TOKEN'")
    return name, value.strip()


def _codes(text: str) -> list[str]:
    return [_kind(code).code for code in text.split(",")]


def _kind(text: str) -> findings.Kind:
    word = text.strip()
    kind = findings.BY_CODE.get(word.upper()) or findings.BY_NAME.get(word.lower())
    if kind is None:
        raise argparse.ArgumentTypeError(f"there is no finding {word!r}: docs/findings.md lists all")
    return kind


# ---- Files


def sample_files(flags: dict[str, Any]) -> list[str]:
    """The files of ``--sample`` and ``--samples``, in this order. Raises UsageError for one that is not there."""
    from . import samples

    files = list(flags.get("sample", ()))
    for file in files:
        if not os.path.isfile(file):
            raise UsageError(f"--sample {file}: there is no such file")
    for folder in flags.get("samples", ()):
        if not os.path.isdir(folder):
            raise UsageError(f"--samples {folder}: there is no such folder")
        found = samples.in_folder(folder)
        if not found:
            raise UsageError(f"--samples {folder}: the folder has no samples")
        files += found
    return files


def parse(parser: argparse.ArgumentParser, argv: Sequence[str]) -> dict[str, Any]:
    """What was typed. Raises UsageError; ``--help`` raises SystemExit."""
    return vars(parser.parse_args(argv))


def tolerance(flags: dict[str, Any]) -> Tolerance:
    """How far numbers of an answer may be from the expected ones."""
    return Tolerance(flags.get("rtol", RTOL), flags.get("atol", 0.0))


def tolerance_of_repetition(flags: dict[str, Any]) -> Tolerance:
    """How far the numbers of two answers to equal requests may be from each other. The same machine computes them, so
    a counter or a time must not pass for noise unless the user allows it."""
    return Tolerance(flags.get("rtol", SAME_RTOL), flags.get("atol", 0.0))
