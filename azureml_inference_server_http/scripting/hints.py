"""Log records that help a user whose script does not work.

They name a module that lies beside the script but cannot be imported, list the model folder, and
warn of functions whose result cannot be sent. ``script.py`` logs the error itself, and calls this.
Runs while the script is loaded.
"""

from __future__ import annotations

import inspect
import logging
import os
import sys
from collections.abc import Iterator
from typing import Any

MODEL_LISTING_LINES = 200
# Modules of the packages that this server requires, with the package that has each.
_REQUIRED = {"flask": "flask", "werkzeug": "flask", "inference_schema": "inference-schema"}

_logger = logging.getLogger("azmlinfsrv")


def log_missing_module(exc: BaseException, script: str) -> None:
    """Log the remedy if the script failed to import a module that users expect to be there."""
    if isinstance(exc, ModuleNotFoundError) and exc.name:
        _log_neighbour(neighbour(exc, script), os.path.dirname(script))
        _log_opentelemetry(exc.name)
        _log_own_dependency(exc.name)


def neighbour(exc: BaseException, script: str) -> str | None:
    """The module that the script failed to import although it is in the script's own folder; None if that is not why
    it failed."""
    if not isinstance(exc, ModuleNotFoundError) or not exc.name:
        return None
    folder, name = os.path.dirname(script), exc.name.partition(".")[0]
    is_beside = any(os.path.exists(os.path.join(folder, name + end)) for end in (".py", os.sep))
    return name if is_beside and name not in sys.modules else None


def _log_neighbour(name: str | None, folder: str) -> None:
    if name is None:
        return
    _logger.error(
        "%s is beside the script, in %s, and scripts cannot import from their own folder unless it is the current "
        "folder or AML_APP_ROOT. Start the command in that folder, or set AML_APP_ROOT to it.",
        name,
        folder,
    )


def _log_opentelemetry(name: str) -> None:
    """The module is of OpenTelemetry, which 1.5.1 installed, and this server does not."""
    exporter = name.startswith("azure.monitor")
    if name.partition(".")[0] != "opentelemetry" and not exporter:
        return
    package = "azure-monitor-opentelemetry-exporter" if exporter else "opentelemetry-sdk"
    _logger.error(
        "%s came with azureml-inference-server-http 1.5.1. This version does not need it, so it is not installed. Add "
        "%s to the requirements of your script.",
        name,
        package,
    )


def _log_own_dependency(name: str) -> None:
    """The module is of one of the two packages that this server requires: it was installed without them (``pip install
    --no-deps``)."""
    package = _REQUIRED.get(name.partition(".")[0])
    if package is not None:
        _logger.error(
            "The script needs the package %s, which azureml-inference-server-http requires, and which is not "
            "installed. Install it: pip install %s",
            package,
            package,
        )


def warn_of_later_results(run: Any) -> None:
    """Warn if run() is a generator function: a call only makes an object, and the code does not
    run."""
    if inspect.isgeneratorfunction(run):
        _logger.warning(
            "run() is a generator function, whose result is no JSON, so every request will be answered 500. Rename it, "
            "and write a plain run() that returns AMLResponse(generator, 200) to stream, or a list."
        )


def warn_of_later_init(init: Any) -> None:
    """Warn if init() is a generator function: its code does not run, so the model is not loaded."""
    if inspect.isgeneratorfunction(init) or inspect.isasyncgenfunction(init):
        _logger.warning(
            "init() is a generator function, as it contains yield, so none of its code will run. Write it without "
            "yield."
        )


def warn_of_unused_concurrency(calls: int) -> None:
    """Warn that --max_concurrency was given for a run() that is not async. ``calls``: how many each
    worker runs at once."""
    _logger.warning(
        "--max_concurrency has no effect, because run() is not async. Each worker runs %s at a time.",
        "one call" if calls == 1 else f"{calls} calls (--worker_threads)",
    )


def log_model_folder(folder: str | None) -> None:
    """Log the tree of files under AZUREML_MODEL_DIR, a record for each line, because init() often
    fails for a file that is not where the script looks."""
    if not folder or not os.path.isdir(folder):
        return
    _logger.info("Model Directory Contents:")
    for count, line in enumerate(_tree(os.path.normpath(folder), 0)):
        if count == MODEL_LISTING_LINES:
            _logger.info("Output Truncated. First %d lines shown.", MODEL_LISTING_LINES)
            break
        _logger.info("%s", line)


def _tree(folder: str, level: int) -> Iterator[str]:
    yield f"{'    ' * level}{os.path.basename(folder) or folder}/"
    try:
        names = sorted(os.listdir(folder))
    except OSError:
        return
    for name in names:
        path = os.path.join(folder, name)
        if os.path.isdir(path) and not os.path.islink(path):
            yield from _tree(path, level + 1)
        else:
            yield f"{'    ' * (level + 1)}{name}{'/' if os.path.isdir(path) else ''}"
