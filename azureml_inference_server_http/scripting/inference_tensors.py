"""The description of a tensor of the Open Inference Protocol, and its derivation from a swagger schema.

Pure functions. ``inference_schema_types`` and ``inference_results`` use them. Runs in workers.
"""

from __future__ import annotations

from typing import Any, NamedTuple

from .open_inference import BYTES

# The data types of a swagger schema, by type and format.
_OF_SWAGGER = {
    "boolean": {"": "BOOL"},
    "string": {"": BYTES},
    "number": {"": "FP64", "float": "FP32", "double": "FP64"},
    "integer": {
        "": "INT64",
        **{f"{sign.lower()}int{bits}": f"{sign}INT{bits}" for sign in ("", "U") for bits in (8, 16, 32, 64)},
    },
}
# Any length.
FREE = -1


class Tensor(NamedTuple):
    """A tensor as the model's description shows it. ``is_json``: its one element is a JSON text."""

    name: str
    datatype: str
    shape: tuple[int, ...]
    is_json: bool = False

    def metadata(self) -> dict[str, Any]:
        """What the protocol tells of it."""
        return {"name": self.name, "datatype": self.datatype, "shape": list(self.shape)}


def json_tensor(name: str) -> Tensor:
    """A tensor for a value that has no tensor of its own."""
    return Tensor(name, BYTES, (1,), is_json=True)


def scalar_type(schema: Any) -> str | None:
    """The data type of a schema that is no list and no object."""
    if not isinstance(schema, dict):
        return None
    formats = _OF_SWAGGER.get(str(schema.get("type")))
    if formats is None:
        return None
    return formats.get(str(schema.get("format", "")), formats[""])


def of_schema(name: str, schema: Any, example: Any) -> list[Tensor]:
    """The tensors of a value with this swagger schema. ``example`` is the sample as JSON."""
    kind = schema.get("type") if isinstance(schema, dict) else None
    scalar = scalar_type(schema)
    if scalar is not None:
        return [Tensor(name, scalar, (1,))]
    if kind == "array":
        if str(schema.get("format", "")).startswith("pandas.DataFrame:records"):
            columns = schema["items"].get("properties", {})
            return [Tensor(column, scalar_type(inner) or BYTES, (FREE,)) for column, inner in columns.items()]
        return [_of_list(name, schema, example)]
    members = schema.get("properties", {}) if kind == "object" else {}
    if members and all(_is_array(inner) for inner in members.values()):
        return [_of_list(member, inner, (example or {}).get(member)) for member, inner in members.items()]
    return [json_tensor(name)]


def _is_array(schema: Any) -> bool:
    return isinstance(schema, dict) and schema.get("format") == "numpy.ndarray"


def _of_list(name: str, schema: Any, example: Any) -> Tensor:
    lengths: list[int] = []
    is_fixed = _is_array(schema)
    while isinstance(schema, dict) and schema.get("type") == "array":
        # inference-schema lets the first dimension of an array vary.
        lengths.append(len(example) if is_fixed and lengths and isinstance(example, list) else FREE)
        example = example[0] if isinstance(example, list) and example else None
        schema = schema.get("items")
    scalar = scalar_type(schema)
    if scalar is None:
        return Tensor(name, BYTES, tuple(lengths)) if is_fixed else json_tensor(name)
    return Tensor(name, scalar, tuple(lengths))
