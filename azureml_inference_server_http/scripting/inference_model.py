"""The script as a model of the Open Inference Protocol: its tensors, its arguments, and its results.

Owns what a worker does with a request and with a result (docs/open-inference.md). ``inference_schema_types`` makes the
arguments of run(), ``inference_results`` the tensors of a result; ``open_inference`` reads requests, and
``inference_replies`` makes replies. Imported only with ``--protocols score,v2``, because it needs numpy. Made once
after init().
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy

from ..api.inference import InferenceRequest
from . import inference_bare, inference_replies, inference_results, inference_schema_types, open_inference, outputs
from .inference_replies import Encoded
from .inference_schema_types import Parameter
from .inference_tensors import Tensor
from .inputs import InputError
from .open_inference import Asked

if TYPE_CHECKING:
    from ..launch.settings import Settings
    from .script import Script

OCTETS = "application/octet-stream"
PLATFORM = "azmlinfsrv_python"


class Served(NamedTuple):
    """The name and the version of the model in paths and replies."""

    name: str
    version: str


class Model:
    """A script as a model. ``inputs`` and ``outputs`` are empty if nothing says what they are."""

    def __init__(self, script: Script, served: Served) -> None:
        self._served = served
        self._mode = script.mode
        self._input_name = script.input_name
        self._parameters: list[Parameter] = []
        self.outputs: list[Tensor] = []
        if script.mode == "schema":
            self._parameters = inference_schema_types.parameters(script.plain_run, script.parameters)
            self.outputs = inference_schema_types.outputs(script.plain_run)
        self.inputs = [tensor for parameter in self._parameters for tensor in parameter.tensors]

    def description(self) -> str:
        """The JSON that ``/v2/models/NAME`` shows."""
        return json.dumps(
            {
                "name": self._served.name,
                "versions": [self._served.version],
                "platform": PLATFORM,
                "inputs": [tensor.metadata() for tensor in self.inputs],
                "outputs": [tensor.metadata() for tensor in self.outputs],
            }
        )

    def decode(self, document: Any, memory: Any) -> tuple[dict[str, Any], Asked]:
        """The keyword arguments of run(), without ``request_headers``, and what the reply must have. Raises
        InputError."""
        if self._mode not in ("schema", "raw_v2"):
            raise InputError(
                400,
                "The model takes no tensors, because run() has neither @input_schema nor @raw_v2. Send requests to "
                "/score.",
            )
        inputs, parameters, asked = open_inference.decode(document, memory)
        known = [tensor.name for tensor in self.outputs]
        for name in asked.outputs:
            if known and name not in known:
                raise open_inference.unknown_output(name, known)
        if self._mode == "raw_v2":
            request = InferenceRequest(inputs, parameters, asked.id, tuple(asked.outputs), *self._served)
            return {self._input_name: request}, asked
        names = {tensor.name for tensor in self.inputs}
        unknown = [name for name in inputs if name not in names]
        if unknown:
            raise InputError(400, f"There is no input {unknown[0]!r}. The inputs are {', '.join(map(repr, names))}.")
        arguments = {
            parameter.name: parameter.value(inputs) if parameter.is_given(inputs) else parameter.default
            for parameter in self._parameters
        }
        return arguments, asked

    def decode_bare(self, memory: Any) -> tuple[dict[str, Any], Asked]:
        """The same for a request that has no JSON, and is the bytes of the one tensor that the model needs."""
        needed = [parameter for parameter in self._parameters if parameter.default is inference_schema_types.NEEDED]
        tensors = [tensor for parameter in needed or self._parameters for tensor in parameter.tensors]
        return self.decode(*inference_bare.described(tensors, memory))

    def encode(self, result: Any, asked: Asked) -> Encoded | outputs.Answer:
        """The reply with this result. Raises ResultError, or an exception of the script's own objects, if it cannot be
        sent."""
        if outputs.is_response(result):
            return outputs.render(result, "POST")
        try:
            tensors = inference_results.tensors(result, self.outputs)
            return inference_replies.encode(tensors, asked, *self._served)
        except InputError as exc:
            body = outputs.to_json({"message": exc.message})
            headers = [("Content-Type", "application/json")]
            return outputs.Answer(exc.status, None, headers, body, outputs.SERVER_ERROR)

    @staticmethod
    def plain(arguments: dict[str, Any]) -> dict[str, Any]:
        """Arguments as JSON has them, for the export of model data."""
        inputs = {
            name: value.inputs if isinstance(value, InferenceRequest) else value for name, value in arguments.items()
        }
        decoded: dict[str, Any] = json.loads(outputs.to_json(_without_bytes(inputs)))
        return decoded


def whole(encoded: Encoded | outputs.Answer) -> outputs.Answer:
    """A reply of ``Model.encode`` with its whole body, for a run() that was called by way of Flask."""
    if isinstance(encoded, outputs.Answer):
        return encoded
    text = outputs.to_json(encoded.document)
    headers = [("Content-Type", "application/json")]
    if encoded.tensors:
        headers = [("Content-Type", OCTETS), ("Inference-Header-Content-Length", str(len(text)))]
    return outputs.Answer(200, None, headers, b"".join([text, *encoded.tensors]), outputs.RESULT)


def of(script: Script, settings: Settings) -> Model:
    """The model of a script that has been initialised."""
    return Model(script, Served(settings.model_name, settings.model_version))


def _without_bytes(value: Any) -> Any:
    if isinstance(value, dict):
        return {name: _without_bytes(inner) for name, inner in value.items()}
    if isinstance(value, numpy.ndarray) and value.dtype == object:
        return _without_bytes(value.tolist())
    if isinstance(value, list):
        return [_without_bytes(inner) for inner in value]
    return value.decode("utf-8", "replace") if isinstance(value, bytes) else value
