"""The command line of ``azmlinfsrv``: options and help, made from the settings table.

Owns the parser, and the messages about a wrong command line. Runs in the launcher. It imports most
modules only when it needs them, because the time from the command to the first answer delays every
scale-out. Rules: contract section 1.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import sys
from collections.abc import Sequence
from typing import Any, Callable, NoReturn

import azureml_inference_server_http as package

from . import display, setting_values
from . import settings_table as table
from .settings_table import GROUPS, SETTINGS, Setting

PROGRAM = "azmlinfsrv"
# Exit codes of every command.
EXIT_OK = 0
EXIT_REFUSED = 1

_ORIGINAL = frozenset({"help"} | {setting.name for setting in SETTINGS if setting.flag and setting.original})


class _HelpFormatter(argparse.HelpFormatter):
    """Sets the width itself, because argparse would import shutil and three compression libraries
    for it on every start."""

    def __init__(self, prog: str) -> None:
        super().__init__(prog, max_help_position=28, width=_width())

    def _split_lines(self, text: str, width: int) -> list[str]:
        return [line for part in text.splitlines() for line in super(_HelpFormatter, self)._split_lines(part, width)]


class _Parser(argparse.ArgumentParser):
    """A parser with the error output and the abbreviations of the contract (section 1)."""

    # Options with names that are similar to an unknown one.
    _similar: Sequence[str] = ()

    def parse_args(  # type: ignore[override]
        self, args: Sequence[str] | None = None, namespace: argparse.Namespace | None = None
    ) -> argparse.Namespace:
        found, unknown = self.parse_known_args(args, namespace)
        if unknown:
            has_script = "entry_script" in found
            self._similar = _similar_options(unknown)
            self.error(f"unrecognized arguments: {' '.join(unknown)}{self._suggestion(unknown, has_script)}")
        return found

    def error(self, message: str) -> NoReturn:
        """Write the help without its usage to standard output, then usage and message to standard
        error, and exit with 1.

        The message comes last, because the help is long, and the message would scroll off the
        terminal. A person at a terminal gets similar names in place of the help.
        """
        usage = self.format_usage()
        if _is_read_by_people():
            similar = f"Options with similar names: {', '.join(self._similar)}.\n" if self._similar else ""
            hint = f"{similar}{self.prog} --help lists all options.\n"
            sys.stderr.write(f"{usage}{self.prog}: error: {message}\n{hint}")
            sys.exit(EXIT_REFUSED)
        with contextlib.suppress(OSError):  # the reader has closed the pipe; the message below must still be written
            sys.stdout.write(self.format_help()[len(usage) :])
            sys.stdout.flush()
        sys.stderr.write(f"{usage}{self.prog}: error: {message}\n")
        sys.exit(EXIT_REFUSED)

    def format_help(self) -> str:
        # Made here and not in ``build_parser``, so that only a start that shows the help takes the
        # time for it.
        self.description = f"Azure ML Inferencing HTTP server v{package.__version__}"
        return f"{super().format_help()}\n{_other_settings(_width())}"

    def _get_option_tuples(self, option_string: str) -> list[Any]:
        """The options that an abbreviation may mean.

        If an option of 1.5.1 matches, options that 1.5.1 does not have are left out. So every
        abbreviation that 1.5.1 accepts keeps its meaning, and one that it calls ambiguous stays
        ambiguous.
        """
        matches = super()._get_option_tuples(option_string)
        return [match for match in matches if match[0].dest in _ORIGINAL] or matches

    def _suggestion(self, unknown: Sequence[str], has_script: bool) -> str:
        """A question that names the option which the first unknown word was probably meant to be,
        or an empty text."""
        word = next((word for word in unknown if word.startswith("-")), unknown[0])
        if not word.startswith("-"):
            is_script = word.endswith(".py") and not has_script
            return f" (did you mean --entry_script {word}?)" if is_script else ""
        close = _close_to(word, 1, 0.8)
        return f" (did you mean {close[0]}?)" if close else ""


def _similar_options(unknown: Sequence[str]) -> list[str]:
    """Options whose names are similar to any of these words, the most similar ones first."""
    words = [word for word in unknown if word.startswith("-")]
    return list(dict.fromkeys(option for word in words for option in _close_to(word, 3, 0.6)))


def _close_to(word: str, count: int, least: float) -> list[str]:
    import difflib

    option = "--" + word.partition("=")[0].lstrip("-").replace("-", "_")
    return difflib.get_close_matches(option, [s.flag for s in SETTINGS if s.flag and not s.hidden], count, least)


def _is_read_by_people() -> bool:
    """True if the output goes to a terminal, and plain text is not asked for, as far as a wrong command line can
    tell."""
    plain = "--plain" in sys.argv or os.environ.get("AZMLINFSRV_PLAIN", "").lower() in table.TRUE_WORDS
    return display.is_interactive(os.environ, sys.stdout.isatty(), plain)


def build_parser() -> argparse.ArgumentParser:
    """Make the parser. Its result has only the options that were given, by the names of the
    settings table."""
    parser = _Parser(
        prog=PROGRAM,
        usage="%(prog)s --entry_script FILE [options]",
        formatter_class=_HelpFormatter,
        argument_default=argparse.SUPPRESS,
        add_help=False,
    )
    options = [setting for setting in SETTINGS if setting.flag]
    used = {setting.group for setting in options if not setting.hidden}
    groups = {name: parser.add_argument_group(name, purpose) for name, purpose in GROUPS.items() if name in used}
    other = parser.add_argument_group("other")
    # Added in the order of the table and not group by group, because argparse lists options in the
    # order of their addition when it calls an abbreviation ambiguous, and the contract has that
    # message.
    other.add_argument("-h", "--help", action="help", help="Show this help and exit.")
    for setting in options:
        add_option(groups[setting.group], setting)
    other.add_argument("--version", action=_VersionAction, nargs=0, help="Show the version and exit.")
    return parser


class _VersionAction(argparse.Action):
    """Prints the version. argparse's own action needs the text when the parser is made, on every
    start."""

    def __call__(self, parser: argparse.ArgumentParser, *unused: object) -> NoReturn:
        print(f"{PROGRAM} {package.__version__}")
        parser.exit(EXIT_OK)


class _JoinAction(argparse.Action):
    """Joins the values of an option that may be given several times."""

    def __init__(self, joined_by: str, **more: Any) -> None:
        super().__init__(**more)
        self._joined_by = joined_by

    def __call__(self, parser: object, namespace: argparse.Namespace, value: Any, *unused: object) -> None:
        before = getattr(namespace, self.dest, None)
        setattr(namespace, self.dest, value if before is None else f"{before}{self._joined_by}{value}")


def add_option(group: argparse._ArgumentGroup, setting: Setting) -> None:
    """The option of a setting, with its help."""
    flag = setting.flag or ""
    shown = argparse.SUPPRESS if setting.hidden else _help_text(setting)
    if setting.kind == table.BOOLEAN:
        group.add_argument(flag, dest=setting.name, action="store_true", default=argparse.SUPPRESS, help=shown)
    else:
        joins: dict[str, Any] = {"action": _JoinAction, "joined_by": setting.joined_by} if setting.joined_by else {}
        group.add_argument(
            flag, dest=setting.name, metavar=setting.metavar, type=_converter(setting), help=shown, **joins
        )


def _converter(setting: Setting) -> Callable[[str], Any]:
    def convert(text: str) -> Any:
        try:
            return setting_values.parse_option(setting, text)
        except ValueError as error:
            # The contract (section 1) has a name from the published server's code, which tells people nothing.
            shown = "***" if table.is_hidden(setting) else repr(text)
            named = f"{setting.flag_type} value" if setting.flag_type and not _is_read_by_people() else "value"
            raise argparse.ArgumentTypeError(
                f"invalid {named}: {shown}{setting_values.reason(error)} (it must be {table.allowed_text(setting)})"
            ) from None

    return convert


def _help_text(setting: Setting) -> str:
    facts = f"Default: {table.default_text(setting)}."
    if setting.environment:
        facts += f" Environment: {setting.environment}."
    return f"{setting.help}\n{facts}".replace("%", "%%")


def _other_settings(width: int) -> str:
    """The part of the help about settings without an option."""
    import textwrap

    about = (
        "Set them in the environment; those with * may stand in the configuration file too. The environment counts "
        "before the file, and an option before both."
    )
    text = [
        "settings without an option:",
        *textwrap.wrap(about, width, initial_indent="  ", subsequent_indent="  "),
        "",
    ]
    for setting in SETTINGS:
        if setting.flag is None and setting.environment:
            text.append(f"  {setting.environment}{' *' if setting.config_key else ''}")
            for line in (setting.help, f"Default: {table.default_text(setting)}."):
                text += textwrap.wrap(line, width, initial_indent=" " * 8, subsequent_indent=" " * 8)
    return "\n".join(text) + "\n"


def _width() -> int:
    """Width of the help in columns: the terminal's, but at most 110; 80 without a terminal."""
    try:
        columns = int(os.environ.get("COLUMNS", "")) or 80
    except ValueError:
        try:
            columns = os.get_terminal_size(sys.__stdout__.fileno()).columns  # type: ignore[union-attr]
        except (AttributeError, ValueError, OSError):
            columns = 80
    return max(40, min(columns, 110) - 2)
