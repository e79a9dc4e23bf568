"""Decides which requests one call of run() can answer together, and makes the arguments and the
results of such calls (``--max_batch_size``, ``@batched``).

``rows`` joins and splits values. ``batch_checks`` decides which answers are compared with those of
single calls, ``joint_calls`` when joint calls are of no use. ``src/worker/executor/batching.rs`` gathers the
requests, makes the calls, and answers each request whose call cannot be joined with a call of its own. Runs in
workers.
Reasons: docs/decisions/2026-11-30-batching.md.
"""

from __future__ import annotations

import json
import logging
import sys
from abc import ABC, abstractmethod
from collections.abc import Hashable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Callable, NamedTuple

from .. import _core
from ..api.batching import MARK, results_of
from ..launch.settings import DEFAULT
from . import arrays, rows
from .batch_checks import Check, Checks
from .joint_calls import JointCalls

if TYPE_CHECKING:
    import inspect
    from types import ModuleType

    from ..api.batching import Batch
    from ..launch.settings import Settings
    from .script import Script

_CORRECT_RUN = "Correct run() (docs/batching.md)."
_REMEDY = "Decorate run() with @batched, or leave out the option (docs/batching.md)."

_logger = logging.getLogger("azmlinfsrv")


@dataclass
class Joint:
    """Requests that one call answers. The Rust half reads the places in the batch, the arguments, and
    the rows of each request.

    ``kind`` is what the requests have in common, ``inputs`` the arrays and frames of each of them.
    ``check`` is set when the result is known.
    """

    places: list[int]
    arguments: dict[str, Any]
    rows: list[int]
    kind: Hashable = None
    inputs: list[list[Any]] = field(default_factory=list)
    check: Check | None = None


class Split(NamedTuple):
    """The part of a joint result for each request, and which of these are compared with the answer to
    the request alone before any request gets its part."""

    parts: list[Any]
    checked: list[int]


class Unfit(Exception):
    """The calls of this run() cannot be joined. The message is a clause that says why."""


def batches_of(script: Script, settings: Settings) -> Batches | None:
    """How the calls of this script are joined; None if each call answers one request."""
    asked = getattr(script.plain_run, MARK, None)
    if asked is not None:
        return _asked_for(script, asked, settings)
    if settings.max_batch_size == 1:
        if settings.origins["batch_wait_ms"].kind != DEFAULT:
            _logger.warning("--batch_wait_ms has no effect without --max_batch_size.")
        return None
    try:
        if script.is_async:
            raise Unfit("it is async")
        found = JoinedRows(script, settings)
    except Unfit as reason:
        _logger.warning(
            "--max_batch_size has no effect, because calls of run() cannot be joined: %s. %s", reason, _REMEDY
        )
        return None
    _logger.info("One call of run() answers up to %d waiting requests (--max_batch_size).", settings.max_batch_size)
    return found


def _asked_for(script: Script, batch: Batch, settings: Settings) -> Batches | None:
    """The joint calls of a script with @batched."""
    found = None
    try:
        if script.mode == "raw":
            raise Unfit("@rawhttp gives it a request, and each request has its own context")
        if script.is_async:  # the decorator joins the calls, in the event loop
            batch.calls = CountedCalls(_CORRECT_RUN)
        else:
            found = BatchesAskedFor(script, batch)
    except Unfit as reason:
        batch.calls.are_possible = False
        _logger.warning("@batched has no effect, and run() gets lists of one input: %s (docs/batching.md).", reason)
        return None
    most = min(batch.max_size, settings.max_concurrency) if script.is_async else batch.max_size
    _logger.info("One call of run() answers up to %d requests (@batched).", most)
    if most < batch.max_size:
        _logger.warning(
            "@batched(max_size=%d) gets %d requests at most, because a worker runs no more calls at once. Raise "
            "--max_concurrency, or lower max_size.",
            batch.max_size,
            most,
        )
    if settings.max_batch_size != 1 or settings.batch_wait_ms:
        _logger.warning(
            "--max_batch_size and --batch_wait_ms have no effect, because run() is decorated with @batched, which has "
            "max_size and max_wait_ms."
        )
    return found


class CountedCalls(JointCalls):
    """The joint calls of an async run(), in the metrics too."""

    def count(self, requests: int) -> None:
        _core.count_run(requests)


class Batches(JointCalls, ABC):
    """The joint calls of one worker. The Rust half reads the attributes and calls the methods.

    ``run``: the function that a joint call calls. ``most``: the most requests of one call. ``wait``: how many
    seconds a request waits for others. ``adapts``: the worker finds the best size up to ``most``. ``fits_flask``: calls
    are joined although a request context of Flask belongs to one request.
    """

    adapts: bool
    fits_flask: bool

    def __init__(self, run: Callable[..., Any], most: int, wait: float, remedy: str) -> None:
        super().__init__(remedy)
        self.run = run
        self.most = most
        self.wait = wait
        self._checks = Checks()

    def convert(self, arguments: dict[str, Any]) -> Any:
        """What ``join`` needs of a request with these arguments of run(), which the schema has not converted yet. None
        if the request cannot be joined, or its input is not valid: then run() is called for it alone, and raises
        the error."""
        return self._converted(arguments) if self.are_possible else None

    @abstractmethod
    def _converted(self, request: dict[str, Any]) -> Any: ...

    @abstractmethod
    def join(self, requests: Sequence[Any]) -> list[Joint]:
        """The calls that can answer several of these requests, as ``convert`` has returned them."""

    @abstractmethod
    def split(self, joint: Joint, result: Any) -> Split | None:
        """The parts of the result of a joint call; None if it cannot be split."""

    def compare(self, alone_status: int, alone: bytes | None, status: int, joint: bytes | None) -> bool:
        """Compare the reply to a request alone with its part of the reply of a joint call. True if they
        are the same answer. Two failures prove nothing. A body is None if it is a stream, or the result could not be
        rendered."""
        if alone_status == status != 200:
            return False
        is_same = alone_status == status and alone is not None and joint is not None and rows.agree(alone, joint)
        if not is_same:
            self.give_up("run() returned something else for a request alone than for the same request among others")
        return is_same

    def note_agreed(self, joint: Joint) -> None:
        """All compared parts of a joint call were the answers to their requests alone."""
        if joint.check is not None:
            self._checks.note_agreed(joint.check)

    def note_flask(self) -> None:
        """A request needs Flask's request context, which belongs to one request."""
        self.give_up("the script has imported Flask, whose request context belongs to one request")


class JoinedRows(Batches):
    """The joint calls of an unchanged script, whose inputs are arrays or frames by schema."""

    adapts = True
    fits_flask = False

    def __init__(self, script: Script, settings: Settings) -> None:
        super().__init__(script.run, settings.max_batch_size, settings.batch_wait_ms / 1000, _REMEDY)
        run, parameters = script.plain_run, script.parameters
        self._convert, self._types = _row_parameters(run, parameters)
        self._defaults = {parameter.name: parameter.default for parameter in parameters}

    def join(self, requests: Sequence[tuple[Hashable, dict[str, Any], int] | None]) -> list[Joint]:
        groups: dict[Hashable, list[tuple[int, dict[str, Any], int]]] = {}
        for place, request in enumerate(requests):
            if request is not None:
                kind, arguments, count = request
                groups.setdefault(kind, []).append((place, arguments, count))
        joined = (self._joint(kind, members) for kind, members in groups.items() if len(members) > 1)
        return [joint for joint in joined if joint is not None]

    def _converted(self, request: dict[str, Any]) -> tuple[Hashable, dict[str, Any], int] | None:
        """What this request must have in common with others, its arguments, and its rows."""
        arguments = dict(request)
        kinds: list[Hashable] = []
        counts = set()
        for name, kind in self._types.items():
            try:
                arguments[name] = self._convert(request[name], kind, name)
            except Exception:
                return None
            found = rows.form(arguments[name])
            if found is None:
                return None
            counts.add(found[0])
            kinds.append(found[1])
        if len(counts) != 1:
            return None
        (count,) = counts
        for name, value in request.items():
            if name not in self._types:
                # A list as long as the rows may belong to them.
                if isinstance(value, list) and len(value) == count:
                    return None
                kinds.append((name, self._text(name, value)))
        return tuple(kinds), arguments, count

    def _text(self, name: str, value: Any) -> Hashable:
        """What two equal values have in common, and no others: 1, 1.0 and True are equal in
        Python."""
        if value is self._defaults.get(name):
            return id(value)
        return json.dumps(value)

    def _joint(self, kind: Hashable, members: list[tuple[int, dict[str, Any], int]]) -> Joint | None:
        places, requests, counts = zip(*members)
        arguments = dict(requests[0])
        try:
            for name in self._types:
                arguments[name] = rows.join([request[name] for request in requests])
        except Exception:
            _logger.debug("Inputs cannot be joined. Each request gets a call of its own:", exc_info=True)
            return None
        inputs = [[request[name] for name in self._types] for request in requests]
        return Joint(list(places), arguments, list(counts), kind, inputs)

    def split(self, joint: Joint, result: Any) -> Split | None:
        try:
            parts = rows.split(result, joint.rows)
            joint.check = self._checks.of(joint.kind, joint.rows, joint.inputs, result)
        except rows.CannotSplit as reason:
            self.note_useless(f"the result of run() could not be split: {reason}")
            return None
        self.note_use()
        return Split(parts, joint.check.places)


class BatchesAskedFor(Batches):
    """The joint calls of a script with @batched."""

    adapts = False
    fits_flask = True

    def __init__(self, script: Script, batch: Batch) -> None:
        super().__init__(script.watched(batch.run), batch.max_size, batch.wait, _CORRECT_RUN)
        self._schemas: list[dict[str, Any]] = []
        below = script.plain_run
        if script.mode == "schema":
            decorators = sys.modules["inference_schema.schema_decorators"]
            if not arrays.is_known(decorators):
                raise Unfit("the server does not know this release of inference-schema")
            self._schemas, below = arrays.outer_schemas(decorators, script.plain_run)
            self._convert = decorators._deserialize_input_argument
        if below is not batch.decorated:
            raise Unfit("another decorator is around it. Put @batched outside of it, and @input_schema outside of both")

    def join(self, requests: Sequence[dict[str, Any] | None]) -> list[Joint]:
        members = [(place, request) for place, request in enumerate(requests) if request is not None]
        if len(members) < 2:
            return []
        # Every request has the same names: those of the parameters of run().
        arguments = {name: [given[name] for _, given in members] for name in members[0][1]}
        return [Joint([place for place, _ in members], arguments, [1] * len(members))]

    def _converted(self, request: dict[str, Any]) -> dict[str, Any] | None:
        """The values that the schema makes of a request, as inference-schema does."""
        arguments = dict(request)
        for schema in self._schemas:
            name = schema["param_name"]
            if not schema["convert_to_provided_type"] or (schema["optional"] and not arguments.get(name)):
                continue
            try:
                arguments[name] = self._convert(arguments[name], schema["param_type"], name)
            except Exception:
                return None
        return arguments

    def split(self, joint: Joint, result: Any) -> Split | None:
        try:
            parts = results_of(result, len(joint.rows))
        except (TypeError, ValueError) as reason:
            self.note_useless(str(reason))
            return None
        self.note_use()
        return Split(parts, [])


def _row_parameters(run: Any, parameters: Sequence[inspect.Parameter]) -> tuple[Any, dict[str, Any]]:
    """inference-schema's function that converts a value, and the type of each parameter of run()
    that has rows. Raises Unfit if the calls of ``run`` cannot be joined."""
    decorators = sys.modules.get("inference_schema.schema_decorators")
    if decorators is None:
        raise Unfit("it is not decorated with @input_schema")
    if not arrays.is_known(decorators):
        raise Unfit("the server does not know this release of inference-schema")
    schemas, below = arrays.outer_schemas(decorators, run)
    if _has_schema(decorators, below):
        raise Unfit("a decorator outside of @input_schema would see the joined input")
    if not schemas:
        raise Unfit("it is not decorated with @input_schema")
    types: dict[str, Any] = {}
    for schema in schemas:
        name, kind = schema["param_name"], schema["param_type"]
        if name in types:
            raise Unfit(f"{name} has two schemas")
        if _has_rows(kind):
            _check_schema(name, schema)
            types[name] = kind
        elif _holds_rows(kind):
            raise Unfit(f"the arrays or frames of {name} are inside of another object")
    if not types:
        raise Unfit("no parameter has a NumpyParameterType or a PandasParameterType")
    if missing := types.keys() - {parameter.name for parameter in parameters}:
        raise Unfit(f"run() has no parameter {min(missing)}")
    return decorators._deserialize_input_argument, types


def _has_schema(decorators: ModuleType, function: Any) -> bool:
    """True if ``@input_schema`` is among the decorators of this function."""
    try:
        layers = decorators._get_decorators(function)
    except ValueError:  # a variable in a closure of run() is not set yet
        return False
    return any(type(layer) is decorators.wrapt.FunctionWrapper for layer in layers)


def _check_schema(name: str, schema: dict[str, Any]) -> None:
    kind = schema["param_type"]
    if schema["convert_to_provided_type"] is not True:
        raise Unfit(f"the schema of {name} does not convert the input")
    if schema["optional"] is not False:
        raise Unfit(f"{name} is optional")
    if "deserialize_input" in vars(kind):
        raise Unfit(f"the schema of {name} has a conversion of its own")


def _has_rows(kind: Any) -> bool:
    """True for exactly the two types of arrays and frames. A subclass may convert in its own way."""
    return type(kind) in _row_types()


def _holds_rows(kind: Any) -> bool:
    inner = [*getattr(kind, "sample_data_type_map", {}).values(), *getattr(kind, "sample_data_type_list", ())]
    return isinstance(kind, _row_types()) or any(isinstance(part, _row_types()) or _holds_rows(part) for part in inner)


def _row_types() -> tuple[type, ...]:
    found = (
        ("inference_schema.parameter_types.numpy_parameter_type", "NumpyParameterType"),
        ("inference_schema.parameter_types.pandas_parameter_type", "PandasParameterType"),
        ("inference_schema.parameter_types.spark_parameter_type", "SparkParameterType"),
    )
    return tuple(getattr(sys.modules[module], name) for module, name in found if module in sys.modules)
