"""How the server calls run(): in which mode, with which arguments, and which signatures it refuses.

Owns the rules about run()'s parameters and decorators (contract sections 4, 10, 11 and 15). Imports neither Flask nor
inference-schema: only a script that has imported them can have used their decorators. Runs in worker processes, while
the script is loaded.
"""

from __future__ import annotations

import functools
import inspect
import logging
import sys
from types import FunctionType, MethodType
from typing import Any, NamedTuple

from .server.user_script import UserScriptError

HEADERS_PARAMETER = "request_headers"

_script_logger = logging.getLogger("azmlinfsrv.user_script")


class Call(NamedTuple):
    """How run() is to be called."""

    mode: str  # "text", "schema" or "raw"
    parameters: tuple[inspect.Parameter, ...]  # without request_headers, in signature order
    pass_headers: bool


def read(run: Any) -> Call:
    """How this run() is to be called. Raises UserScriptError if it cannot be called by the server."""
    try:
        parameters = tuple(inspect.signature(run).parameters.values())
    except (TypeError, ValueError) as exc:
        raise UserScriptError("run() has to be a function, or an object with a signature that can be called.") from (
            exc.with_traceback(None)  # its frames are inspect's
        )
    by_name = (inspect.Parameter.POSITIONAL_OR_KEYWORD, inspect.Parameter.KEYWORD_ONLY)
    if any(parameter.kind not in by_name for parameter in parameters):
        raise UserScriptError("run() cannot accept positional-only arguments, *args, or **kwargs.")
    if not parameters:
        raise UserScriptError("run() needs to accept an argument for input data.")
    arguments = tuple(parameter for parameter in parameters if parameter.name != HEADERS_PARAMETER)
    if not arguments:
        raise UserScriptError(f'run() needs to accept an argument other than "{HEADERS_PARAMETER}".')
    raw, schema = _is_raw(), _is_schema_decorated(run)
    if raw and schema:
        raise UserScriptError("run() cannot be decorated with both @rawhttp and @input_schema")
    call = Call("raw" if raw else "schema" if schema else "text", arguments, len(arguments) < len(parameters))
    if call.mode != "schema":  # there the request says which arguments are passed
        _check_arguments(run, call)
    return call


def _check_arguments(run: Any, call: Call) -> None:
    """Raise UserScriptError if every call in the text or raw mode would fail, because arguments do not fit."""
    if not _signature_is_its_own(run):
        return
    passed = [call.parameters[0].name] + [HEADERS_PARAMETER] * call.pass_headers
    taken = inspect.signature(run, follow_wrapped=False).parameters.values()
    kinds = {parameter.name: parameter.kind for parameter in taken}
    by_name = (inspect.Parameter.POSITIONAL_OR_KEYWORD, inspect.Parameter.KEYWORD_ONLY)
    refused = [name for name in passed if kinds.get(name) not in by_name]
    if refused and inspect.Parameter.VAR_KEYWORD not in kinds.values():
        raise UserScriptError(
            f"run() is called with the keyword {_list(refused)}, which its decorator does not take. Write the function "
            "that the decorator returns as wrapper(*args, **kwargs), and pass both on."
        )
    variable = (inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD)
    needed = [p.name for p in taken if p.default is p.empty and p.kind not in variable and p.name not in passed]
    if needed:
        raise UserScriptError(
            f"run() is called with {_list(passed)} only, and nothing is passed for {_list(needed)}. Give "
            f"{_list(needed)} a default value, or remove it."
        )


def _signature_is_its_own(run: Any) -> bool:
    """Whether Python calls ``run`` by the signature that ``inspect`` reads without following wrappers.

    Other callables, such as the proxies of wrapt, may show the signature of what they wrap and still add arguments.
    """
    if isinstance(run, functools.partial):
        return _signature_is_its_own(run.func)
    if isinstance(run, MethodType):
        return _signature_is_its_own(run.__func__)
    function = run if type(run) is FunctionType else inspect.getattr_static(type(run), "__call__", None)
    return type(function) is FunctionType and not hasattr(run, "__signature__")


def _list(names: list[str]) -> str:
    return " and ".join(f'"{name}"' for name in names)


def _is_raw() -> bool:
    """Only a script that imported the api module can have used @rawhttp, so nothing is imported to find out."""
    aml_request = sys.modules.get("azureml_inference_server_http.api.aml_request")
    return aml_request is not None and aml_request.raw_requested()


def _is_schema_decorated(run: Any) -> bool:
    schema_util = sys.modules.get("inference_schema.schema_util")
    if schema_util is None:
        return False
    try:
        return bool(schema_util.is_schema_decorated(run))
    except ValueError:  # it looks into closures, and a cell may still be empty
        return False


def log(call: Call) -> None:
    """Log the refusal with the text of the published server."""
    if call.mode == "raw":
        _script_logger.info("run() is decorated with @rawhttp. Server will invoke it with the flask request object.")
    elif call.mode == "schema":
        names = ", ".join(parameter.name for parameter in call.parameters)
        _script_logger.info(
            "run() is decorated with @input_schema. Server will invoke it with the following arguments: %s.", names
        )
    else:
        _script_logger.info("run() is not decorated. Server will invoke it with the input in JSON string.")
