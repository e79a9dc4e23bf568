"""The Azure ML inference HTTP server: serves a scoring script (``init()`` and ``run()``) over HTTP.

Owns the version of the package, and the name that Azure ML images look for. Importing it must stay
cheap, because every process of the server imports it, and users' scripts do too.
"""

from __future__ import annotations

# Azure ML images read this name before they start a debugger (AZUREML_DEBUG_PORT).
_HAS_DEBUGPY_SUPPORT = True

_DIST_INFO = ("azureml_inference_server_http-", ".dist-info")


def _installed_version() -> str:
    """Version of the installed distribution; ``0+unknown`` in a source tree that was never
    installed.

    The version is taken from the name of the metadata folder: beside the package, or, for an
    editable installation, in another folder of ``sys.path``. ``importlib.metadata`` finds it too,
    but its import takes 10 to 50 ms, which every start of the server would wait for. So it is asked
    only if there is no such folder, as in a zip file, or if a folder has several.
    """
    import os
    import sys

    prefix, suffix = _DIST_INFO
    for folder in (os.path.dirname(os.path.dirname(os.path.abspath(__file__))), *sys.path):
        try:
            names = os.listdir(folder or os.curdir)
        except OSError:
            continue
        found = [
            name[len(prefix) : -len(suffix)] for name in names if name.startswith(prefix) and name.endswith(suffix)
        ]
        if len(found) == 1:
            return found[0]
        if found:
            break

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
