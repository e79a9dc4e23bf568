"""Finds the user's script, imports it and checks it.

Owns the rules for loading (contract section 4): when it raises ``ScriptLoadError``, the reason has
been logged. ``script`` has what was loaded, and calls init(). Runs in workers.
"""

from __future__ import annotations

import importlib
import importlib.util
import logging
import os
import sys
from types import ModuleType
from typing import TYPE_CHECKING, Any

from .. import contrib_services
from ..launch.settings import DEFAULT
from ..launch.settings_table import THREAD
from ..server.user_script import ScriptLoadError, UserScriptError, UserScriptImportException
from . import hints, import_path, lean_imports, own_files, signature, tracebacks
from .script import Script

if TYPE_CHECKING:
    from ..launch.settings import Settings
    from .telemetry import Reporter

MODULE_NAME = "entry_module"
DEFAULT_MODULE = "main"

_logger = logging.getLogger("azmlinfsrv")
_script_logger = logging.getLogger("azmlinfsrv.user_script")


def load(settings: Settings, reporter: Reporter | None = None) -> Script:
    """Import and check the user's script.

    Logs the script that it found. If the script cannot be served, logs the records of contract
    section 4 and raises ScriptLoadError. ``reporter`` takes what is exported, if something is.
    """
    contrib_services.install()
    lean_imports.install()
    import_path.extend(settings)
    try:
        module = _import_file(settings) if settings.entry_script else _import_main(settings)
        return _inspect(module, settings, reporter)
    except ScriptLoadError as exc:
        text = tracebacks.text_of(exc)
        if isinstance(exc, UserScriptError):
            _logger.error("%s", text)
        if reporter is not None:
            reporter.exception(exc, exc.__cause__ or exc, text)
        raise


def load_again() -> None:
    """Import the script in a process that the script has started with multiprocessing; see
    ``spawned/entry_module.py``.

    That process has the worker's environment, so its settings name the same script. Exceptions of
    the import are not caught.
    """
    from ..launch import settings

    resolved = settings.load(settings.RawSettings({}, os.environ, os.getcwd()))
    contrib_services.install()
    lean_imports.install()
    _execute(own_files.script_path(resolved))


def _import_file(settings: Settings) -> ModuleType:
    """Import the entry script under the name ``entry_module``. If the file is missing, logs that
    first."""
    path = own_files.script_path(settings)
    if not os.path.exists(path):
        _logger.error("No such file or directory.")
        _logger.error(
            "There is no file at %s. A relative --entry_script starts from the current folder, a relative "
            "AZUREML_ENTRY_SCRIPT from AML_APP_ROOT.",
            path,
        )
    try:
        return _execute(path)
    except BaseException as exc:
        failure = _import_failed(exc)
        hints.log_missing_module(exc, path)
        raise failure from exc


def _execute(path: str) -> ModuleType:
    """Run a Python file as the module ``entry_module``.

    The module is in ``sys.modules``, because pickle, multiprocessing and dataclasses look up
    functions and classes there. A failure leaves the module of an earlier script in place.
    """
    spec = importlib.util.spec_from_file_location(MODULE_NAME, path)
    if os.path.isdir(path) or spec is None or spec.loader is None:
        kind = "a folder" if os.path.isdir(path) else "not a Python file"
        raise ImportError(f"The entry script {path} is {kind}. It has to be a file whose name ends in .py")
    module = importlib.util.module_from_spec(spec)
    earlier = sys.modules.get(MODULE_NAME)
    sys.modules[MODULE_NAME] = module
    try:
        spec.loader.exec_module(module)
    except BaseException:
        if earlier is None:
            sys.modules.pop(MODULE_NAME, None)
        else:
            sys.modules[MODULE_NAME] = earlier
        raise
    return module


def _import_main(settings: Settings) -> ModuleType:
    try:
        found = DEFAULT_MODULE in sys.modules or importlib.util.find_spec(DEFAULT_MODULE) is not None
        if found:
            return importlib.import_module(DEFAULT_MODULE)
    except BaseException as exc:
        raise _import_failed(exc) from exc
    _logger.error("No score script found. Expected score script %s.py.", DEFAULT_MODULE)
    _logger.error("Expected script to be found in PYTHONPATH: %s", sys.path)
    try:
        _logger.error("Current contents of AML_APP_ROOT: %s", sorted(os.listdir(settings.app_root)))
    except OSError:
        _logger.error("The directory %s not an accessible directory in the container.", settings.app_root)
    raise UserScriptImportException("No score script found")


def _import_failed(exc: BaseException) -> UserScriptImportException:
    failure = UserScriptImportException()
    _logger.error("%s", tracebacks.caused(failure, exc))
    return failure


def _inspect(module: ModuleType, settings: Settings, reporter: Reporter | None) -> Script:
    file = str(module.__file__)
    for name in ("init", "run"):
        if not hasattr(module, name):
            raise UserScriptError(f"User script at {file} does not have a {name}() function defined.")
    driver = getattr(module, "driver_module", None)
    if isinstance(driver, ModuleType) and hasattr(driver, "run"):
        _script_logger.info("Found driver script at %s and the score script at %s", file, driver.__file__ or driver)
        run = driver.run
    else:
        _script_logger.info("Found user script at %s", file)
        run = module.run
    call = signature.read(run)
    _check_async(call, module.init, settings)
    _check_protocols(call, settings)
    signature.log(call, settings.max_concurrency)
    if settings.origins["max_concurrency"].kind != DEFAULT and not call.is_async:
        hints.warn_of_unused_concurrency(settings.worker_threads)
    hints.warn_of_later_results(run)
    hints.warn_of_later_init(module.init)
    return Script(file, module.init, run, call, settings, reporter)


def _check_protocols(call: signature.Call, settings: Settings) -> None:
    """Raise UserScriptError if no request could reach run(). Warn if none of the Open Inference Protocol can."""
    if call.mode == "raw_v2" and not settings.serves_v2:
        raise UserScriptError(
            "run() is decorated with @raw_v2, so it takes requests of the Open Inference Protocol only: start the "
            "server with --protocols score,v2."
        )
    if settings.serves_v2 and call.mode not in ("schema", "raw_v2"):
        _logger.warning(
            "Requests to %s are refused, because run() has neither @input_schema nor @raw_v2 (--protocols).",
            settings.infer_path,
        )
    if settings.serves_v2 and importlib.util.find_spec("numpy") is None:
        raise UserScriptError("--protocols score,v2 needs numpy, which is not installed: pip install numpy.")


def _check_async(call: signature.Call, init: Any, settings: Settings) -> None:
    """Raise UserScriptError if the script is async where that does not work."""
    if call.is_async and settings.worker_class == THREAD:
        raise UserScriptError(
            "run() is async, which needs worker processes: use --worker_class process, which Windows does not have, or "
            "write a plain run() that passes the coroutine to asyncio.run()."
        )
    if signature.is_async(init) and settings.worker_preload:
        raise UserScriptError(
            "init() is async, and with WORKER_PRELOAD it would run before the workers are forked, which cannot share "
            "its event loop. Write a plain init(), or leave out WORKER_PRELOAD."
        )
