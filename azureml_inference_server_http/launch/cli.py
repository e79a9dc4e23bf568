"""The ``azmlinfsrv`` command: start-up order and exit codes.

``options.py`` owns the command line, ``settings.py`` the values, ``banner.py`` the text of the
banner. After the banner, ``start.run`` or ``start_threads.run`` takes over. Runs in the
launcher. It imports most modules only when it needs them, because the time from the command to the
first answer delays every scale-out. Rules: contract sections 1 and 2.
"""

from __future__ import annotations

import gc
import os
import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING, Callable, NoReturn

from ..scripting import import_path
from ..scripting.watch import NOBODY, Watch
from . import display, options, stdio
from . import settings_table as table
from .config_file import ConfigFile, ConfigFileError
from .options import EXIT_REFUSED, PROGRAM
from .settings import (
    DEFAULT,
    FILE,
    RawSettings,
    Settings,
    SettingsError,
    exported_environment,
    load,
    resolve,
)

if TYPE_CHECKING:
    import socket

# Commands other than serving. Each is recognised only as the first argument.
VALIDATE, REPLAY, GENERATE = "validate", "replay", "generate"
LOGGER_NAME = "azmlinfsrv"

# Exit code of the launcher, besides those of ``options.py``. The supervisor also exits with it if the
# script cannot be started.
EXIT_CANNOT_START = 3


def run() -> NoReturn:
    """Serve with the options of the command line, then exit with its code. Entered through
    ``__main__.py``."""
    stdio.open_missing()
    stdio.write_as_the_front_does()
    sys.exit(main(sys.argv[1:]))


def main(argv: Sequence[str]) -> int:
    """Serve with these options until the server stops, or run the command that the first argument
    names. Returns the exit code; errors have been reported by then."""
    if argv and argv[0] in (VALIDATE, REPLAY, GENERATE):
        return _other_command(argv[0], argv[1:])
    try:
        flags = vars(options.build_parser().parse_args(argv))
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
        from .. import _core

        try:
            _core.check(settings)
        except ValueError as error:
            return _refuse([str(error)])
    return _start(raw, settings)


def _other_command(name: str, argv: Sequence[str]) -> int:
    """Validate a script, replay samples (``validation/``), or generate files (``generate/``). Returns the exit code."""
    try:
        if name == GENERATE:
            from ..generate import command as generating

            return generating.main(argv)
        if name == VALIDATE:
            from ..validation import command

            return command.main(argv)
        from ..validation import replay

        return replay.main(argv)
    except SystemExit as stop:
        return int(stop.code or 0)


def _start(raw: RawSettings, settings: Settings) -> int:
    """Set up logging, check the settings, open the listeners, show the banner, set the environment
    and serve, in the order of contract section 2."""
    import logging

    settings = settings._replace(display=_display(settings))
    if not _log_is_configured(raw, settings):
        return EXIT_CANNOT_START
    logger = logging.getLogger(LOGGER_NAME)
    if not (raw.flags.get("entry_script") or raw.flags.get("config_file")):
        logger.error("Error!")
        logger.error(
            "Either provide an entry_script using --entry_script or provide a path to the configuration file "
            "using --config_file"
        )
        return EXIT_REFUSED

    fault = fault_of_core()
    if fault:
        return _refuse([fault])
    if settings.warmup_samples is not None and not os.path.isdir(settings.warmup_samples):
        return _refuse([f"{settings.origins['warmup_samples'].name}: there is no folder {settings.warmup_samples}"])
    from . import banner, listeners

    try:
        # Opened before the banner, because the banner and the environment show the number that port
        # 0 gets here.
        settings, clients = listeners.open_all(settings)
    except listeners.ListenError as error:
        return _refuse([str(error)])
    pools, oversubscribed = _thread_pools(settings)
    exported = {**exported_environment(settings), **pools}
    banner.show(settings, {**os.environ, **exported})
    os.environ.update(exported)
    from_file = [origin.name for origin in settings.origins.values() if origin.kind == FILE]
    if settings.config_file_read:
        logger.info("Settings read from %s: %s", settings.config_file_read, ", ".join(from_file) or "none")
    for notice in (
        *settings.notices,
        *_missing_folders(settings),
        *_settings_of_gunicorn(raw),
        *_log_format_without_effect(settings),
        *oversubscribed,
    ):
        logger.warning("%s", notice)

    return serve(settings, clients)


def fault_of_core() -> str | None:
    """Why the native module cannot be used, with the remedy; None if it can.

    It is loaded here, because every child needs it, and so they share its memory. It starts no thread when it is
    loaded.
    """
    try:
        from .. import _core  # noqa: F401
    except ImportError as error:
        return (
            "the native module is missing. Install the package into this Python environment, and start the command "
            f"outside the package's source tree ({error})"
        )
    return None


def _display(settings: Settings) -> display.Display:
    """What standard output gets, by where it goes and what the environment says."""
    if settings.log_format == table.JSON:
        from .. import log_config

        # A logging.json of the user decides about the format alone.
        if log_config.find_user_config(settings) is None:
            return display.Display(json_log=stdio.separate_log())
    interactive = display.is_interactive(os.environ, sys.stdout.isatty(), settings.plain)
    progress = None
    if interactive and sys.platform != "win32":
        from .progress import Progress

        progress = Progress(sys.stdout.fileno())
    return display.Display(display.has_colour(os.environ, interactive, settings.plain), interactive, progress)


def _thread_pools(settings: Settings) -> tuple[dict[str, str], list[str]]:
    """The variables that size the thread pools of worker processes, and warnings about the user's own."""
    if settings.worker_count < 2 or settings.worker_class != table.PROCESS:
        return {}, []
    from . import cores, thread_pools, worker_environment

    usable = settings.cores or cores.usable()
    # What a worker finds when it loads the script.
    environment = dict(os.environ)
    if settings.worker_env is not None:
        environment.update(worker_environment.parse(settings.worker_env))
    warnings = thread_pools.oversubscribed(environment, usable, settings.worker_count)
    is_shared = settings.thread_pools == table.SHARED
    return thread_pools.sizes(environment, usable.number, settings.worker_count) if is_shared else {}, warnings


def _log_format_without_effect(settings: Settings) -> list[str]:
    """A warning if the format of the log was asked for and something else decides about it."""
    if settings.log_format != table.JSON or settings.display.json_log is not None:
        return []
    return [
        f"{settings.origins['log_format'].name} has no effect, because logging.json decides about the format of log "
        "records. Use the class azureml_inference_server_http.json_log.JsonFormatter there."
    ]


def _missing_folders(settings: Settings) -> list[str]:
    """A warning for each folder that a setting names and that does not exist. It is no error,
    because the script may create the folder."""
    named = {"model_dir": settings.model_dir, "app_root": settings.app_root}
    return [
        f"The folder {folder} does not exist ({settings.origins[name].name})."
        for name, folder in named.items()
        if folder and settings.origins[name].kind != DEFAULT and not os.path.exists(folder)
    ]


def _settings_of_gunicorn(raw: RawSettings) -> list[str]:
    """Warnings about gunicorn's own settings, which worked with 1.5.1 and have no effect here."""
    file = os.path.join(raw.folder, "gunicorn.conf.py")
    if not raw.environment.get("GUNICORN_CMD_ARGS") and not os.path.exists(file):
        return []
    from . import gunicorn_settings

    return gunicorn_settings.warnings(raw.environment, file)


def serve(settings: Settings, clients: list[socket.socket], watch: Watch = NOBODY) -> int:
    """Serve on these listeners until the server stops. Returns the exit code, also in each child that
    was forked. ``watch`` is told of each start of the script."""
    from ..supervise import system_threads

    system_threads.give_room()
    run: Callable[[Settings, list[socket.socket], Watch], int]
    if settings.worker_class == table.THREAD:
        from ..supervise import start_threads

        run = start_threads.run
    else:
        from ..supervise import start

        run = start.run
    # Objects of the start live as long as the process. Without this the collector would look at each of them again
    # while the script is loaded and when a process exits: 13 of the 107 ms of processor time of an interpreter that
    # imports the server and exits. Children share the pages of objects that nobody looks at.
    gc.freeze()
    return run(settings, clients, watch)


def configure_logging(raw: RawSettings, settings: Settings) -> None:
    """Apply logging.json. Raises LogConfigError."""
    from .. import log_config

    # Set first, because a logging.json may name classes in modules that the script can import.
    import_path.extend(settings, raw.folder)
    log_config.configure(settings)


def _log_is_configured(raw: RawSettings, settings: Settings) -> bool:
    """Apply logging.json. Returns False if that failed; the reason has been logged."""
    import logging

    from ..log_config import LogConfigError

    try:
        configure_logging(raw, settings)
    except LogConfigError as error:
        logging.getLogger(LOGGER_NAME).critical("Invalid config file!: %s", error)
        return False
    return True


def _refuse(lines: Sequence[str]) -> int:
    """Print a line on standard error for every wrong value, so that a user can correct all of them
    at once."""
    for line in lines:
        print(f"{PROGRAM}: error: {line}", file=sys.stderr)
    return EXIT_REFUSED


def _refuse_file(raw: RawSettings, error: ConfigFileError) -> int:
    """Log that the configuration file cannot be used, and print the wrong values from other
    sources."""
    import logging

    try:
        _log_is_configured(raw, resolve(raw, ConfigFile(None, {}, ())))
    except SettingsError as others:
        _refuse(others.lines)
    logging.getLogger(LOGGER_NAME).critical("Invalid config file!: %s", error)
    return EXIT_CANNOT_START
