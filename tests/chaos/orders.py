"""What clients ask of the scripts in ``scripts/``, how that is sent, and which answers to it are
right.

Pure functions; no sockets, no processes. Runs in the test process.
"""

from __future__ import annotations

import json
import zlib
from typing import Any, NamedTuple

from harness import Response, request
from strict_http import Malformed, explanation

# The outcomes of a request. "failed" and "cut" need a cause (``invariants.py``); "wrong" and
# "silent" are always violations.
ANSWERED, REFUSED, FAILED, CUT, LEFT, SILENT, WRONG = "answered", "refused", "failed", "cut", "left", "silent", "wrong"

# Scripts whose input is rows: an order is sent as one row, or as several equal ones.
OF_ROWS = ("rows",)
# The longest padding that is sent more than once.
REPEATED = 10_000

SCRIPT_ERROR = "An unexpected error occurred in scoring script. Check the logs for more info."
TIMEOUT = "Scoring timeout after"
LOST = "The worker process running this request "
# Deeds that end in an error, with the words that the reply must contain.
ERRORS = {
    "fail": SCRIPT_ERROR,
    "fail_call": SCRIPT_ERROR,
    "exit": f"{LOST}exited with code ",
    "segfault": f"{LOST}was killed by signal 11 (SIGSEGV)",
    "abort": f"{LOST}was killed by signal 6 (SIGABRT)",
    "hang": TIMEOUT,
    "stuck": TIMEOUT,
}
# Deeds after which the worker is gone.
DEADLY = ("exit", "segfault", "abort", "stuck")
# The same for worker threads, which cannot be interrupted while they sleep.
DEADLY_FOR_THREADS = (*DEADLY, "hang")
# Kinds of requests whose answers are streams.
STREAMS = ("streamed", "leave stream")
# Kinds of requests that make a call fail.
HARMFUL = ("script error", "call error", "hang", *DEADLY)


class Order(NamedTuple):
    """One call of run(): which deed of ``scripts/deeds.py``, and how much of it."""

    id: str
    deed: str
    amount: int = 0
    padding: str = ""


class Verdict(NamedTuple):
    """The outcome of an answer. ``text`` is the server's message, or the fault."""

    outcome: str
    text: str = ""


def encode(order: Order, script: str) -> bytes:
    """Make the request that carries the order to one of the scripts."""
    content: Any = order._asdict()
    if script == "schema":
        content = {"order": content}
    elif script in OF_ROWS:
        content = {"data": [content] * rows(order)}
    body = json.dumps(content).encode()
    return request("POST", "/score", body, {"Content-Type": "application/json"})


def rows(order: Order) -> int:
    """The number of rows in which an order is sent."""
    return 1 if len(order.padding) > REPEATED or order.amount > REPEATED else 1 + zlib.crc32(order.id.encode()) % 3


def judge(order: Order, response: Response, script: str) -> Verdict:
    """Judge the answer of one of the scripts to an order. Raises ``Malformed`` for an error that is
    not JSON."""
    if response.status == 200 and order.deed not in ERRORS:
        return Verdict(ANSWERED) if is_right(order, response, script) else Verdict(WRONG, f"wrong content: {response}")
    if response.status != 500:
        return Verdict(WRONG, str(response))
    message = explanation(response)
    if response["x-ms-run-function-failed"] != "True":
        raise Malformed(f"an error of run() that is not marked as one: {response}")
    if order.deed in ERRORS and ERRORS[order.deed] in message:
        return Verdict(ANSWERED, message)
    if message.startswith((LOST, TIMEOUT)):
        return Verdict(FAILED, message)
    return Verdict(WRONG, str(response))


def is_right(order: Order, response: Response, script: str) -> bool:
    """True if the answer is the script's answer to this order."""
    if order.deed == "stream":
        return response.body == "".join(f"{order.id}:{number}\n" for number in range(order.amount)).encode()
    if order.deed == "reply":
        right: Any = {"id": order.id, "padding": f"{order.id} " * (order.amount // (len(order.id) + 1))}
    else:
        sent = order.padding.encode()
        right = {"id": order.id, "size": len(sent), "crc": zlib.crc32(sent)}
    return bool(response.json() == ([right] * rows(order) if script in OF_ROWS else right))
