"""The Azure ML inference HTTP server: serves a scoring script (``init()`` and ``run()``) over HTTP.

Owns the package version and the marker that Azure ML images look for. Importing it does nothing else: the launcher, the
front and every worker import it, and so do people's scripts, which must not pay for any of those.
"""

from __future__ import annotations

# Azure ML images read this before they start a debugger (AZUREML_DEBUG_PORT).
_HAS_DEBUGPY_SUPPORT = True

_DIST_INFO = ("azureml_inference_server_http-", ".dist-info")


def _installed_version() -> str:
    """Version of the installed distribution, ``0+unknown`` in a source tree that was never installed.

    The metadata folder beside the package carries the version in its name. Reading that takes microseconds;
    ``importlib.metadata`` takes 20 to 70 ms, so it is asked only where that folder is missing (editable installs).
    """
    import os

    prefix, suffix = _DIST_INFO
    beside = os.listdir(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
    found = [name[len(prefix) : -len(suffix)] for name in beside if name.startswith(prefix) and name.endswith(suffix)]
    if len(found) == 1:
        return found[0]

    from importlib import metadata

    try:
        return metadata.version("azureml-inference-server-http")
    except metadata.PackageNotFoundError:
        return "0+unknown"


def __getattr__(name: str) -> str:
    if name != "__version__":
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    version = globals()["__version__"] = _installed_version()
    return version
