"""The ``azmlinfsrv`` command: options and help made from the settings table, start-up order, exit codes.

Owns what is typed and what is told about it. Does not own values (``settings.py``), the banner's text (``banner.py``),
processes or threads: ``process.run`` or ``threads.run`` takes over after the banner. Runs in the launcher. Imports
little at the top: the time from the command to the first answer is felt on every scale-out. Rules: contract sections 1
and 2.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Callable, NoReturn

import azureml_inference_server_http as package

from . import import_path, stdio
from . import settings_table as table
from .config_file import ConfigFile, ConfigFileError
from .settings import (
    DEFAULT,
    FILE,
    RawSettings,
    Settings,
    SettingsError,
    exported_environment,
    load,
    parse_option,
    resolve,
)
from .settings_table import GROUPS, SETTINGS, Setting

if TYPE_CHECKING:
    import socket

PROGRAM = "azmlinfsrv"
LOGGER_NAME = "azmlinfsrv"

# Exit codes of the launcher. 3 also stands for a script that cannot start (process.py).
EXIT_OK = 0
EXIT_REFUSED = 1
EXIT_CANNOT_START = 3

_NO_CORE = (
    "the native module is missing. Install the package into this Python environment, and start the command outside the "
    "package's source tree"
)

_ORIGINAL = frozenset({"help"} | {setting.name for setting in SETTINGS if setting.flag and setting.original})


def run() -> NoReturn:
    """Serve with the options of the command line, then exit with its code. Entered through ``__main__.py``."""
    stdio.open_missing()
    sys.exit(main(sys.argv[1:]))


def main(argv: Sequence[str]) -> int:
    """Serve with these options until the server stops. Returns the exit code; what was wrong has been told by then."""
    try:
        flags = vars(build_parser().parse_args(argv))
    except SystemExit as stop:
        return int(stop.code or 0)
    try:
        raw = RawSettings(flags, os.environ, os.getcwd())
    except OSError:
        return _refuse(["the current folder does not exist any more: change to one that does"])
    try:
        settings = load(raw)
    except ConfigFileError as error:
        return _refuse_file(raw, error)
    except SettingsError as error:
        return _refuse(error.lines)
    if settings.cors_origins:
        from . import _core

        try:
            _core.check(settings)
        except ValueError as error:
            return _refuse([str(error)])
    return _start(raw, settings)


def _start(raw: RawSettings, settings: Settings) -> int:
    """Logging, checks, banner, environment, processes: the order of contract section 2."""
    import logging

    if not _configure_logging(raw, settings):
        return EXIT_CANNOT_START
    logger = logging.getLogger(LOGGER_NAME)
    if not (raw.flags.get("entry_script") or raw.flags.get("config_file")):
        logger.error("Error!")
        logger.error(
            "Either provide an entry_script using --entry_script or provide a path to the configuration file "
            "using --config_file"
        )
        return EXIT_REFUSED

    try:
        # Every child needs it: loaded once here, its pages are shared. It starts no thread until it is called.
        from . import _core  # noqa: F401
    except ImportError as error:
        return _refuse([f"{_NO_CORE} ({error})"])
    from . import banner, listeners

    try:
        # Before the banner and the environment, which have the ports that were taken in place of 0.
        settings, clients = listeners.open_all(settings)
    except listeners.ListenError as error:
        return _refuse([str(error)])
    exported = exported_environment(settings)
    banner.show(settings, {**os.environ, **exported})
    os.environ.update(exported)
    from_file = [origin.name for origin in settings.origins.values() if origin.kind == FILE]
    if settings.config_file_read:
        logger.info("Settings read from %s: %s", settings.config_file_read, ", ".join(from_file) or "none")
    for notice in (*settings.notices, *_missing_folders(settings), *_settings_of_gunicorn(raw)):
        logger.warning("%s", notice)
    if settings.app_insights_enabled:
        logger.warning("Application Insights is enabled, but this version does not send telemetry yet.")

    return _serve(settings, clients)


def _missing_folders(settings: Settings) -> list[str]:
    """One sentence for each folder that was named and is not there; the script may still make it."""
    named = {"model_dir": settings.model_dir, "app_root": settings.app_root}
    return [
        f"The folder {folder} does not exist ({settings.origins[name].name})."
        for name, folder in named.items()
        if folder and settings.origins[name].kind != DEFAULT and not os.path.exists(folder)
    ]


def _settings_of_gunicorn(raw: RawSettings) -> list[str]:
    """Warnings about what reached gunicorn in 1.5.1 and has no effect here."""
    file = os.path.join(raw.folder, "gunicorn.conf.py")
    if not raw.environment.get("GUNICORN_CMD_ARGS") and not os.path.exists(file):
        return []
    from . import gunicorn_settings

    return gunicorn_settings.warnings(raw.environment, file)


def _serve(settings: Settings, clients: list[socket.socket]) -> int:
    if settings.worker_class == table.THREAD:
        from . import threads

        return threads.run(settings, clients)
    from . import process

    return process.run(settings, clients)


def _configure_logging(raw: RawSettings, settings: Settings) -> bool:
    """Apply logging.json. False when that fails, which has been logged."""
    import logging

    from . import log_config

    # A logging.json may name classes in the modules that the script can import.
    import_path.extend(settings, raw.folder)
    try:
        log_config.configure(settings)
    except log_config.LogConfigError as error:
        logging.getLogger(LOGGER_NAME).critical("Invalid config file!: %s", error)
        return False
    return True


def _refuse(lines: Sequence[str]) -> int:
    """One line on stderr for each wrong value, all of them: nobody wants to find them one start at a time."""
    for line in lines:
        print(f"{PROGRAM}: error: {line}", file=sys.stderr)
    return EXIT_REFUSED


def _refuse_file(raw: RawSettings, error: ConfigFileError) -> int:
    """The record about an unusable configuration file, and what else is wrong without it."""
    import logging

    try:
        _configure_logging(raw, resolve(raw, ConfigFile(None, {}, ())))
    except SettingsError as others:
        _refuse(others.lines)
    logging.getLogger(LOGGER_NAME).critical("Invalid config file!: %s", error)
    return EXIT_CANNOT_START


# ---- Options


class _HelpFormatter(argparse.HelpFormatter):
    """Finds the width itself: argparse would import shutil for it, with three compression libraries, on every start."""

    def __init__(self, prog: str) -> None:
        super().__init__(prog, max_help_position=28, width=_width())

    def _split_lines(self, text: str, width: int) -> list[str]:
        return [line for part in text.splitlines() for line in super(_HelpFormatter, self)._split_lines(part, width)]


class _Parser(argparse.ArgumentParser):
    """Errors and abbreviations as the contract has them."""

    def parse_args(  # type: ignore[override]
        self, args: Sequence[str] | None = None, namespace: argparse.Namespace | None = None
    ) -> argparse.Namespace:
        found, unknown = self.parse_known_args(args, namespace)
        if unknown:
            has_script = "entry_script" in found
            self.error(f"unrecognized arguments: {' '.join(unknown)}{self._suggestion(unknown, has_script)}")
        return found

    def error(self, message: str) -> NoReturn:
        """An empty line and the help without its usage on stdout, usage and message on stderr, exit code 1.

        In this order: the help is long, and a terminal should end with what was wrong.
        """
        usage = self.format_usage()
        with contextlib.suppress(OSError):  # a reader that has had enough must not keep the message from being told
            sys.stdout.write(self.format_help()[len(usage) :])
            sys.stdout.flush()
        sys.stderr.write(f"{usage}{self.prog}: error: {message}\n")
        sys.exit(EXIT_REFUSED)

    def format_help(self) -> str:
        # Written out here, not when the parser is built: a start that asks for no help should not pay for it.
        self.description = f"Azure ML Inferencing HTTP server v{package.__version__}"
        return f"{super().format_help()}\n{_other_settings(_width())}"

    def _get_option_tuples(self, option_string: str) -> list[Any]:
        """Options that a prefix may stand for. Those of the original command come first, so each abbreviation that it
        took, or called ambiguous, keeps its meaning when options are added."""
        matches = super()._get_option_tuples(option_string)
        return [match for match in matches if match[0].dest in _ORIGINAL] or matches

    def _suggestion(self, unknown: Sequence[str], has_script: bool) -> str:
        """What the first option among these words, or else the first word, was probably meant to be, as a question."""
        word = next((word for word in unknown if word.startswith("-")), unknown[0])
        if not word.startswith("-"):
            is_script = word.endswith(".py") and not has_script
            return f" (did you mean --entry_script {word}?)" if is_script else ""
        import difflib

        option = "--" + word.partition("=")[0].lstrip("-").replace("-", "_")
        close = difflib.get_close_matches(option, [s.flag for s in SETTINGS if s.flag and not s.hidden], 1, 0.8)
        return f" (did you mean {close[0]}?)" if close else ""


def build_parser() -> argparse.ArgumentParser:
    """The parser; its result has only the options that were given, by the names of the settings table."""
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
    # In this order, and not group by group, argparse lists the options when it calls an abbreviation ambiguous.
    other.add_argument("-h", "--help", action="help", help="Show this help and exit.")
    for setting in options:
        _add(groups[setting.group], setting)
    other.add_argument("--version", action=_VersionAction, nargs=0, help="Show the version and exit.")
    return parser


class _VersionAction(argparse.Action):
    """argparse's own needs the text when the parser is built."""

    def __call__(self, parser: argparse.ArgumentParser, *unused: object) -> NoReturn:
        print(f"{PROGRAM} {package.__version__}")
        parser.exit(EXIT_OK)


def _add(group: argparse._ArgumentGroup, setting: Setting) -> None:
    flag = setting.flag or ""
    shown = argparse.SUPPRESS if setting.hidden else _help_text(setting)
    if setting.kind == table.BOOLEAN:
        group.add_argument(flag, dest=setting.name, action="store_true", default=argparse.SUPPRESS, help=shown)
    else:
        group.add_argument(flag, dest=setting.name, metavar=setting.metavar, type=_converter(setting), help=shown)


def _converter(setting: Setting) -> Callable[[str], Any]:
    def convert(text: str) -> Any:
        try:
            return parse_option(setting, text)
        except ValueError:
            named = f"{setting.flag_type} value" if setting.flag_type else "value"
            raise argparse.ArgumentTypeError(
                f"invalid {named}: {text!r} (it must be {table.allowed_text(setting)})"
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
    """Columns for the help: those of the terminal, at most 110, 80 without one."""
    try:
        columns = int(os.environ.get("COLUMNS", "")) or 80
    except ValueError:
        try:
            columns = os.get_terminal_size(sys.__stdout__.fileno()).columns  # type: ignore[union-attr]
        except (AttributeError, ValueError, OSError):
            columns = 80
    return max(40, min(columns, 110) - 2)
