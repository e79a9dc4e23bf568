"""The bodies of requests, and what answers to them have to say.

Every body is made by rule, so that runs on any machine send the same bytes. They are kept as files,
as wrk and the clients read them from there. The bare HTTP server answers with ``reply``.
"""

from __future__ import annotations

import array
import json
import math
import random
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

from .environments import EXAMPLE, FOLDER
from .scripts import floats_out

HOME = FOLDER / "payloads"
COLUMNS = 100
FLOATS_MB = 20


@dataclass(frozen=True)
class Payload:
    """A request body, the check of its answers, and an answer for the server that has no script."""

    key: str
    body: Callable[[], bytes]
    is_right: Callable[[bytes], bool]
    reply: Callable[[], bytes]
    path: str = "/score"
    headers: tuple[tuple[str, str], ...] = ()

    def file(self) -> Path:
        """Write the body to a file. Returns its path."""
        return self._kept(f"{self.key}.body", self.body)

    def reply_file(self) -> Path:
        """Write the answer to a file. Returns its path."""
        return self._kept(f"{self.key}.reply", self.reply)

    @staticmethod
    def _kept(name: str, made: Callable[[], bytes]) -> Path:
        path = HOME / name
        if not path.exists():
            HOME.mkdir(parents=True, exist_ok=True)
            part = path.with_suffix(".part")
            part.write_bytes(made())
            part.replace(path)
        return path


def _json(value: object) -> Callable[[], bytes]:
    return lambda: json.dumps(value).encode()


def _equals(value: object) -> Callable[[bytes], bool]:
    return lambda body: json.loads(body) == value


# ---- Numbers


@lru_cache(maxsize=2)
def rows_of(size: int) -> list[list[float]]:
    """Rows of numbers with all their digits, as models' inputs have them, about ``size`` bytes of
    JSON."""
    chance = random.Random(size)
    bytes_of_row = len(json.dumps([chance.uniform(-1, 1) for _ in range(COLUMNS)])) + 2
    return [[chance.uniform(-1, 1) for _ in range(COLUMNS)] for _ in range(size // bytes_of_row)]


def _numbers(size: int) -> Payload:
    def is_right(body: bytes) -> bool:
        told, rows = json.loads(body), rows_of(size)
        expected = math.fsum(map(math.fsum, rows))
        return told["shape"] == [len(rows), COLUMNS] and abs(told["sum"] - expected) < 0.01

    def reply() -> bytes:
        rows = rows_of(size)
        return json.dumps({"shape": [len(rows), COLUMNS], "sum": round(math.fsum(map(math.fsum, rows)), 3)}).encode()

    return Payload(
        f"numbers-{size // 1_000_000}mb", lambda: json.dumps({"data": rows_of(size)}).encode(), is_right, reply
    )


def _binary(size: int) -> Payload:
    data = random.Random(size).randbytes
    answer = {"bytes": size, "first": 0x41, "last": 0x5A}
    return Payload(
        f"binary-{size // 1_000_000}mb", lambda: b"A" + data(size - 2) + b"Z", _equals(answer), _json(answer)
    )


# ---- Tensors of the Open Inference Protocol

INFER = "/v2/models/tensors/infer"
ELEMENTS = 250_000


@lru_cache(maxsize=1)
def _elements() -> array.array[float]:
    """A tensor of 1 MB, as FP32."""
    chance = random.Random(ELEMENTS)
    return array.array("f", [chance.uniform(-1, 1) for _ in range(ELEMENTS)])


def _input(**more: object) -> dict[str, object]:
    return {"name": "x", "datatype": "FP32", "shape": [1, ELEMENTS], **more}


def _tensors_in_json() -> Payload:
    def is_right(body: bytes) -> bool:
        [output] = json.loads(body)["outputs"]
        return output["data"] == [2 * element for element in _elements()]

    def made() -> bytes:
        return json.dumps({"inputs": [_input(data=list(_elements()))]}).encode()

    return Payload("tensors-json", made, is_right, lambda: b"{}", INFER)


def _tensors_in_bytes() -> Payload:
    described = _input(parameters={"binary_data_size": 4 * ELEMENTS})
    # "inputs" come last, so that their end is that of the JSON (peers/mosec_tensors.py).
    document = {"parameters": {"binary_data_output": True}, "inputs": [described]}
    head = json.dumps(document).encode()

    def is_right(body: bytes) -> bool:
        found = array.array("f", body[-4 * ELEMENTS :])
        return found == array.array("f", [2 * element for element in _elements()])

    headers = (("Inference-Header-Content-Length", str(len(head))),)
    return Payload("tensors-bytes", lambda: head + _elements().tobytes(), is_right, lambda: b"", INFER, headers)


def _flowers() -> bytes:
    return (EXAMPLE / "sample-request.json").read_bytes()


def _are_flowers(body: bytes) -> bool:
    told = json.loads(body)
    return len(told["predictions"]) == len(told["probabilities"]) == len(json.loads(_flowers())["data"])


_DATA = _json({"data": [1, 2]})
SMALL = Payload("small", _DATA, _equals({"ok": True}), _json({"ok": True}))
BUSY = Payload("busy-5ms", _DATA, lambda body: json.loads(body)["run_ms"] >= 5, lambda: b'{"run_ms": SPENT}')
SLEEP_10 = Payload(
    "sleep-10", _json({"ms": 10}), lambda body: json.loads(body)["slept_ms"] >= 10, _json({"slept_ms": 10})
)
SLEEP_20 = Payload(
    "sleep-20", _json({"ms": 20}), lambda body: json.loads(body)["slept_ms"] >= 20, _json({"slept_ms": 20})
)
NUMBERS_1MB = _numbers(1_000_000)
NUMBERS_10MB = _numbers(10_000_000)
BINARY_10MB = _binary(10_000_000)
TENSORS_IN_JSON = _tensors_in_json()
TENSORS_IN_BYTES = _tensors_in_bytes()
FLOATS = Payload(
    "floats", _DATA, lambda body: json.loads(body)["values"] == floats_out.made(),
    lambda: json.dumps({"values": floats_out.made()}).encode(),
)  # fmt: skip
IRIS = Payload("iris", _flowers, _are_flowers, lambda: b"{}")
# The data that scripts/streaming.py sends. It is repeated here, because importing that script needs
# a server's environment.
STREAM = Payload("stream", _DATA, lambda body: body == (b"x" * 1023 + b"\n") * 100, lambda: b"")
