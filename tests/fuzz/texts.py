"""Bodies and queries of undecorated scripts: random bytes, and the text that run() must get.

Owns the bytes and the expected replies of ``scripts/give_back.py``. Bodies are compared with strict
UTF-8 decoding, queries with urllib's parser under the rules of contract section 6. Runs in the test
process.
"""

from __future__ import annotations

import codecs
import json
from random import Random
from urllib.parse import parse_qsl

from .documents import INTERNAL, draw_leaf, mutate, refusal
from .results import draw_text, outcomes

CONTENT_TYPES = (
    *("application/json",) * 6,
    "text/plain; charset=latin-1",
    "application/octet-stream",
    "application/x-www-form-urlencoded",
    "multipart/form-data",
    "multipart/form-data; boundary=x",
    "Multipart/Form-Data; charset=x;Boundary=y",
)
# Ends of the ranges that UTF-8 allows, and what lies just beyond.
BROKEN = (
    *(b"\x80", b"\xbf", b"\xc0\x80", b"\xc1\xbf", b"\xc2\x80", b"\xc2", b"\xdf\xbf", b"\xe0\x80\x80", b"\xe0\x9f\xbf"),
    *(
        b"\xe0\xa0\x80",
        b"\xed\x9f\xbf",
        b"\xed\xa0\x80",
        b"\xed\xbf\xbf",
        b"\xee\x80\x80",
        b"\xef\xbf\xbf",
        b"\xe2\x82",
    ),
    *(
        b"\xf0\x80\x80\x80",
        b"\xf0\x8f\xbf\xbf",
        b"\xf0\x90\x80\x80",
        b"\xf4\x8f\xbf\xbf",
        b"\xf4\x90\x80\x80",
        b"\xf0\x9f",
    ),
    *(b"\xf5\x80\x80\x80", b"\xf8\x88\x80\x80\x80", b"\xfe", b"\xff", b"\xef\xbb\xbf", b"\x00", b"\xf0\x9f\x98"),
)
# Visible ASCII without "#", which ends a target, and without what the HTTP library refuses unless
# it is encoded.
QUERY_CHARACTERS = "".join(sorted(set(map(chr, range(0x21, 0x7F))) - set('#"<>')))


# ---- Bodies


def draw_body(random: Random, large: bool) -> tuple[str, bytes]:
    """Draw content type and body. Without ``large`` they are small enough for hypothesis to
    minimise."""
    pieces = []
    for _ in range(random.randrange(6)):
        if random.randrange(8) == 7:
            pieces.append(random.choice(BROKEN))
        else:
            pieces.append(
                draw_text(random, 40 if large else 8).encode(
                    "utf-8", random.choice(("ignore", "ignore", "surrogatepass"))
                )
            )
    body = b"".join(pieces)
    if large and random.randrange(30) == 29:
        body *= random.randrange(1, 1000)
    return random.choice(CONTENT_TYPES), mutate(random, body) if random.randrange(3) == 2 else body


def expected_body(content_type: str, body: bytes) -> set[tuple[int, bytes]]:
    """The possible replies, by contract section 6."""
    if content_type.lower().startswith("multipart/form-data;"):
        return {(200, b'""')}
    try:
        return {(200, json.dumps(body.decode("utf-8", "strict")).encode())}
    except UnicodeDecodeError as error:
        return {refusal(400, f"Input cannot be decoded as UTF-8: {error}")}


# ---- Queries


def draw_query(random: Random, large: bool) -> bytes:
    """A raw query. ``large`` has no meaning here: a target is never long."""
    if random.randrange(200) == 199:
        depth = random.choice((100, 500, 850, 940, 990, 1000, 1200))
        return f"a={'[' * depth}{']' * depth}".encode()
    fields = [_draw_field(random) for _ in range(random.choice((0, 1, 1, 1, 2, 3, 6)))]
    return b"&".join(fields)[:3000]


def _draw_field(random: Random) -> bytes:
    kind = random.randrange(12)
    if kind == 0:
        return "".join(random.choices(QUERY_CHARACTERS, k=random.randrange(8))).encode()
    name = random.choice((b"a", b"a", b"a", b"b", b"", b"%61", b"a[]", b"+", b"%C3%A9", b"%FF", b"%"))
    if kind == 1:
        return name
    if kind < 5:
        value = b"".join(random.choice((b"%%%02x", b"%%%02X")) % byte for byte in random.choice(BROKEN)) + b"x"
    elif kind < 7:
        value = "".join(random.choices("%0aFfzZ1+&=;", k=random.randrange(8))).encode()
    else:
        value = _quoted(random, draw_leaf(random)[:500].encode("utf-8", "surrogatepass"))
    return name + b"=" + value


def _quoted(random: Random, text: bytes) -> bytes:
    """Percent-encode all characters, or only those that must be encoded."""
    kept = (
        b""
        if random.randrange(4) == 3
        else QUERY_CHARACTERS.replace("%", "").replace("&", "").replace("+", "").encode()
    )
    return b"".join(bytes([byte]) if byte in kept else b"%%%02X" % byte for byte in text)


def expected_query(query: bytes) -> set[tuple[int, bytes]]:
    """The possible replies, by contract section 6. More than one only where Python's recursion
    limit is near."""
    return outcomes(lambda: _query_answer(query)) if query.count(b"[") >= 300 else {_query_answer(query)}


def _query_answer(query: bytes) -> tuple[int, bytes]:
    values: dict[str, list[object]] = {}
    try:
        for name, value in parse_qsl(query.decode("ascii"), keep_blank_values=True, errors="fuzz.still_quoted"):
            values.setdefault(name, []).append(_parsed(value))
        text = json.dumps({name: found[0] if len(found) == 1 else found for name, found in values.items()})
    except RecursionError:
        return refusal(500, INTERNAL)
    return 200, json.dumps(text).encode()


def _parsed(value: str) -> object:
    try:
        return json.loads(value)
    except ValueError:
        return value


def _still_quoted(error: UnicodeError) -> tuple[str, int]:
    assert isinstance(error, UnicodeDecodeError)
    return "".join(f"%{byte:02X}" for byte in error.object[error.start : error.end]), error.end


codecs.register_error("fuzz.still_quoted", _still_quoted)
