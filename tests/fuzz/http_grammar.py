"""Makes up what clients may send: requests as RFC 9112 has them, the same with parts exchanged, and
broken bytes.

Owns the grammar and its mutations. Everything is drawn from the random numbers it is given, so a
seed names a case. Knows nothing of sockets (``http_surface.py``), and what must come back of right
requests only. Runs in the test process.
"""

from __future__ import annotations

import dataclasses
import itertools
import re
from random import Random

from .http_words import CHUNKS, CODINGS, FIELDS, LAST_CHUNKS, LENGTHS, METHODS, STRAY, TARGETS, VERSIONS

HALF_CLOSE, WAIT, ABORT = "half-close", "wait", "abort"


@dataclasses.dataclass(frozen=True)
class Case:
    """The bytes of a case, the pieces in which they are sent, and how the client ends."""

    pieces: tuple[bytes, ...]
    ending: str
    # (status, body) of each answer if that is known; None as the body stands for any error in JSON.
    expected: tuple[tuple[int, bytes | None], ...] | None = None
    # Only if ``expected`` is known: the methods of the requests, and whether the last answer ends
    # the connection.
    methods: tuple[str, ...] = ()
    closes: bool = False

    @property
    def data(self) -> bytes:
        return b"".join(self.pieces)

    def __str__(self) -> str:
        """The bytes as a Python expression, with long repetitions as products, and the positions
        where they are cut."""
        data = _RUN.sub(lambda run: f"' + b'{run[1]}' * {len(run[0])} + b'", repr(self.data))
        ends = list(itertools.accumulate(len(piece) for piece in self.pieces))[:-1]
        if len(ends) > 10:
            ends = [*ends[:5], "…", *ends[-1:]]
        return f"{self.ending}, cut at {ends}:\n    {data}"


# One character that is repeated 30 times or more.
_RUN = re.compile(r"([^\\'])\1{29,}")


def draw(random: Random) -> Case:
    """Draw a case. Of five cases one is valid, two are unusual and two are broken."""
    ending = random.choices([HALF_CLOSE, WAIT, ABORT], [16, 3, 1])[0]
    kind = random.randrange(5)
    if kind == 0:
        # If the client closes its sending side while a request waits, the server may treat it as
        # gone and not answer.
        return _all_right(random)
    data = b"".join(_strange(random) for _ in range(random.choice([1, 1, 1, 2, 3])))
    if kind > 2:
        for _ in range(random.choice([1, 1, 2, 5, 20])):
            data = _broken(random, data)
    return Case(split(random, data), ending)


def _all_right(random: Random) -> Case:
    """Draw some valid requests. After one that asks for the end of the connection, the others get
    no answer."""
    count = random.randrange(1, 5)
    last = random.choice([None, None, random.randrange(count)])
    requests, expected, methods = [], [], []
    for number in range(count):
        sent, answer = _right(random)
        if number == last:
            sent = sent.replace(b"\r\nConnection: keep-alive", b"", 1)
            sent = sent.replace(b"Host: a", b"Host: a\r\nConnection: close", 1)
        requests.append(sent)
        if last is None or number <= last:
            expected.append(answer)
            methods.append(sent.split(b" ")[0].decode())
    pieces = split(random, b"".join(requests))
    return Case(pieces, WAIT, tuple(expected), tuple(methods), closes=last is not None)


def _right(random: Random) -> tuple[bytes, tuple[int, bytes]]:
    """A request that ``echo.py`` answers, and its answer."""
    text = "".join(random.choices("abc xyz{}[]:,.0123456789", k=random.choice([0, 1, 10, 300, 20_000])))
    body, answer = text.encode(), f'"{text}"'.encode()
    fields = [b"Host: a", *(b"X-%d: %d" % (number, number) for number in range(random.choice([0, 1, 20])))]
    kind = random.randrange(5)
    if kind < 2:
        # Only /score keeps connections open unasked.
        fields.append(b"Connection: keep-alive")
    if kind == 0:
        return b"GET / HTTP/1.1\r\n" + b"\r\n".join([*fields, b"", b""]), (200, b"Healthy")
    if kind == 1:
        return b"HEAD / HTTP/1.1\r\n" + b"\r\n".join([*fields, b"", b""]), (200, b"")
    if kind == 2:
        fields.append(b"Transfer-Encoding: chunked")
        coded = b""
        while body:
            size = random.randrange(1, len(body) + 1)
            coded += b"%x\r\n%s\r\n" % (size, body[:size])
            body = body[size:]
        body = coded + b"0\r\n\r\n"
    else:
        fields.append(b"Content-Length: %d" % len(body))
    random.shuffle(fields)
    return b"POST /score HTTP/1.1\r\n" + b"\r\n".join([*fields, b"", body]), (200, answer)


def _strange(random: Random) -> bytes:
    """Draw a request with parts that other servers have misread."""

    def mostly(usual: bytes, others: list[bytes]) -> bytes:
        return usual if random.random() < 0.7 else random.choice(others)

    end = mostly(b"\r\n", [b"\n", b"\r", b"\r\r\n"]) if random.random() < 0.2 else b"\r\n"
    blank = mostly(b" ", [b"  ", b"\t", b""]) if random.random() < 0.2 else b" "
    line = blank.join([mostly(b"POST", METHODS), mostly(b"/score", TARGETS), mostly(b"HTTP/1.1", VERSIONS)])
    fields = [mostly(b"Host: a", [b"", b"Host: a\r\nHost: a"])]
    fields += random.choices(FIELDS, k=random.choice([0, 0, 1, 2, 5]))
    body = random.choice([b"", b"hello", b"\xff\0", b"x" * 5000])
    framing = random.randrange(6)
    if framing < 3:
        fields.append(b"Content-Length: " + mostly(b"%d" % len(body), LENGTHS))
    if framing in (2, 3, 4):
        fields.append(b"Transfer-Encoding: " + mostly(b"chunked", CODINGS))
        chunks = [mostly(CHUNKS[0], CHUNKS) for _ in range(random.choice([0, 1, 1, 3]))]
        body = b"".join([*chunks, mostly(LAST_CHUNKS[0], LAST_CHUNKS)])
    if random.random() < 0.03:
        fields += [b"X: y"] * random.choice([90, 100, 1000])
    random.shuffle(fields)
    return end.join([line, *(field for field in fields if field), b"", body])


def _broken(random: Random, data: bytes) -> bytes:
    """The data with one fault at a random place."""
    at = random.randrange(len(data) + 1)
    other = random.randrange(len(data) + 1)
    first, last = min(at, other), max(at, other)
    return random.choice(
        [
            lambda: data[:at] + random.choice(STRAY) + data[at:],
            lambda: data[:at] + bytes([random.randrange(256)]) + data[at + 1 :],
            lambda: data[:at] + data[at + random.choice([1, 2, 10]) :],
            lambda: data[:first] + data[last:],
            lambda: data[:last] + data[first:last] + data[last:],
            lambda: data[:at],
            lambda: data.replace(b"\r\n", b"\n", random.choice([1, -1])),
        ]
    )()


def split(random: Random, data: bytes) -> tuple[bytes, ...]:
    """The data in one piece, in a few, or byte by byte where it begins."""
    kind = random.randrange(4)
    if kind < 2 or len(data) < 2:
        return (data,)
    if kind == 2:
        cuts = sorted(random.sample(range(1, len(data)), min(len(data) - 1, random.randrange(1, 6))))
    else:
        cuts = list(range(1, min(len(data), 200)))
    return tuple(data[begin:end] for begin, end in zip([0, *cuts], [*cuts, len(data)]))
