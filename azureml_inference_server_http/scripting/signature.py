"""Decides how the server calls run(): the mode and the arguments. Refuses signatures that it cannot
call.

Owns the rules about the parameters and decorators of run() (contract sections 4, 10, 11 and 15). It
need not import Flask or inference-schema, because a script that uses their decorators has imported
them. Runs while the script is loaded.
"""

from __future__ import annotations

import functools
import inspect
import logging
import sys
from types import FunctionType, MethodType
from typing import Any, NamedTuple

from ..api.inference import MARK
from ..server.user_script import UserScriptError

HEADERS_PARAMETER = "request_headers"

_script_logger = logging.getLogger("azmlinfsrv.user_script")


class Call(NamedTuple):
    """The mode and the arguments with which run() is called."""

    mode: str  # "text", "schema", "raw" or "raw_v2"
    parameters: tuple[inspect.Parameter, ...]  # without request_headers, in signature order
    pass_headers: bool
    is_async: bool = False


def read(run: Any) -> Call:
    """Read mode and arguments from the signature of run(). Raises UserScriptError if the server
    cannot call it."""
    try:
        parameters = tuple(inspect.signature(run).parameters.values())
    except (TypeError, ValueError) as exc:
        raise UserScriptError("run() has to be a function, or an object with a signature that can be called.") from (
            exc.with_traceback(None)  # because all its frames are in the inspect module
        )
    by_name = (inspect.Parameter.POSITIONAL_OR_KEYWORD, inspect.Parameter.KEYWORD_ONLY)
    if any(parameter.kind not in by_name for parameter in parameters):
        raise UserScriptError("run() cannot accept positional-only arguments, *args, or **kwargs.")
    if not parameters:
        raise UserScriptError("run() needs to accept an argument for input data.")
    arguments = tuple(parameter for parameter in parameters if parameter.name != HEADERS_PARAMETER)
    if not arguments:
        raise UserScriptError(f'run() needs to accept an argument other than "{HEADERS_PARAMETER}".')
    call = Call(_mode(run), arguments, len(arguments) < len(parameters), is_async(run))
    if call.mode != "schema":  # in that mode each request decides which arguments are passed
        _check_arguments(run, call)
    return call


def _mode(run: Any) -> str:
    raw, schema, tensors = _is_raw(), _is_schema_decorated(run), getattr(run, MARK, False) is True
    if raw and schema:
        raise UserScriptError("run() cannot be decorated with both @rawhttp and @input_schema")
    if tensors and (raw or schema):
        other = "@rawhttp" if raw else "@input_schema"
        raise UserScriptError(f"run() cannot be decorated with both @raw_v2 and {other}")
    return "raw_v2" if tensors else "raw" if raw else "schema" if schema else "text"


def is_async(function: Any) -> bool:
    """True if a call of this function has to be awaited, or makes an async generator."""
    if inspect.iscoroutinefunction(function) or inspect.isasyncgenfunction(function):
        return True
    if isinstance(function, (FunctionType, MethodType, functools.partial, type)):
        return False
    call = inspect.getattr_static(type(function), "__call__", None)
    return inspect.iscoroutinefunction(call) or inspect.isasyncgenfunction(call)


def _check_arguments(run: Any, call: Call) -> None:
    """Raise UserScriptError if every call in the text or raw mode would fail, because the arguments
    do not fit the signature."""
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
    """True if a call of ``run`` must fit the signature that ``inspect`` reads from it without
    following wrappers.

    It need not for other callables: a proxy of wrapt shows the signature of the wrapped function,
    but may add arguments.
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
    """True if the script has used @rawhttp. Then it has imported the api module, so this need not
    import it."""
    aml_request = sys.modules.get("azureml_inference_server_http.api.aml_request")
    return aml_request is not None and aml_request.raw_requested()


def _is_schema_decorated(run: Any) -> bool:
    schema_util = sys.modules.get("inference_schema.schema_util")
    if schema_util is None:
        return False
    try:
        return bool(schema_util.is_schema_decorated(run))
    except ValueError:  # inference-schema reads closures of run(), and one of their variables is not set yet
        return False


def log(call: Call, most: int) -> None:
    """Log how run() will be called, with the text of 1.5.1. ``most``: calls at once, if run() is async."""
    if call.mode == "raw":
        _script_logger.info("run() is decorated with @rawhttp. Server will invoke it with the flask request object.")
    elif call.mode == "raw_v2":
        _script_logger.info("run() is decorated with @raw_v2. Server will invoke it with the tensors of the request.")
    elif call.mode == "schema":
        names = ", ".join(parameter.name for parameter in call.parameters)
        _script_logger.info(
            "run() is decorated with @input_schema. Server will invoke it with the following arguments: %s.", names
        )
    else:
        _script_logger.info("run() is not decorated. Server will invoke it with the input in JSON string.")
    if call.is_async:
        _script_logger.info("run() is async. Up to %d calls run at once in each worker (--max_concurrency).", most)
