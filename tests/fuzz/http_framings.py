"""Makes up connections of several requests whose bodies end in odd but known places, some of them
broken.

Owns a grammar of framings: lengths, chunks with extensions and trailers, what RFC 9112 refuses,
each with more requests behind it. What must come back is known of every case, so answers that are
too many, too few, out of order or of another length are found. Everything is drawn from the random
numbers it is given. Runs in the test process.
"""

from __future__ import annotations

from random import Random

from .http_grammar import WAIT, Case, split

# Chunk extensions. A proxy may add them, and the server ignores them.
EXTENSIONS = [b";a", b";a=b", b'; a = "b;c"', b" ;a;b", b"\t", b';a="\xfc"']
TRAILERS = [b"X: y", b"X:", b"Content-Length: 7", b"Transfer-Encoding: x", b"a!b:\tc \xfc", b"X: " + b"y" * 5000]
BROKEN_TRAILERS = [b"X", b": y", b"X : y", b" X: y", b"X: y\r\n z", b"X: y\nZ: z", b"X: \0", b"X: " + b"y" * 20_000]
BROKEN_SIZES = [
    b"x",
    b"",
    b"-1",
    b"+1",
    b"0x5",
    b" 5",
    b"5 5",
    b"5\n",
    b"5\r",
    b"5;\0",
    b"f" * 17,
    b"5;" + b"x" * 20_000,
]
BROKEN_FIELDS = [
    (b"Content-Length: +5", 400),
    (b"Content-Length: 5,5", 400),
    (b"Content-Length: 5\r\nContent-Length: 5", 400),
    (b"Content-Length : 5", 400),
    (b"Content-Length: 5\r\n 6", 400),
    (b"Content-Length: 5\nX: y", 400),
    (b"Content-Length: 99999999999999999999", 400),
    (b"Transfer-Encoding: gzip, chunked", 501),
    (b"Transfer-Encoding: chunked, chunked", 400),
    (b"Transfer-Encoding: identity", 400),
    (b"Transfer-Encoding: chunked\r\nContent-Length: 5", 400),
    (b"Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked", 400),
    (b"Transfer-Encoding : chunked", 400),
    (b"X: a\0b", 400),
    (b"X: a\rb", 400),
    (b"Host: a b", 400),
]


# Routes other than /score close the connection unless the client asks.
KEPT = b"Connection: keep-alive"


class _Requests:
    """The requests for one connection, and their expected answers."""

    def __init__(self) -> None:
        self.sent: list[bytes] = []
        self.answers: list[tuple[int, bytes | None]] = []
        self.methods: list[str] = []
        self.is_open = True

    def add(self, sent: bytes, method: bytes, status: int, body: bytes | None, closes: bool = False) -> None:
        self.sent.append(sent)
        if self.is_open:
            self.answers.append((status, body))
            self.methods.append(method.decode())
            self.is_open = not closes


def draw(random: Random) -> Case:
    """One to four requests of any kind, then one that asks for the end of the connection."""
    requests = _Requests()
    for _ in range(random.randrange(1, 5)):
        random.choices([_plain, _with_length, _chunked, _refused, _tunnel], [3, 4, 8, 1, 0.3])[0](random, requests)
    _end(requests)
    pieces = split(random, b"".join(requests.sent))
    return Case(pieces, WAIT, tuple(requests.answers), tuple(requests.methods), closes=True)


def _head(method: bytes, target: bytes, fields: list[bytes], version: bytes = b"1.1") -> bytes:
    return b"\r\n".join([b"%s %s HTTP/%s" % (method, target, version), *fields, b"", b""])


def _text(random: Random) -> bytes:
    return "".join(random.choices("abc 0;:", k=random.choice([0, 1, 5, 40, 3000]))).encode()


def _plain(random: Random, requests: _Requests) -> None:
    method = random.choice([b"GET", b"HEAD"])
    blank = random.choice([b"", b"", b"\r\n", b"\r\n\r\n"])
    sent = blank + _head(method, random.choice([b"/", b"http://b:81/", b"/#x"]), [b"Host: a", KEPT])
    requests.add(sent, method, 200, b"" if method == b"HEAD" else b"Healthy")


def _with_length(random: Random, requests: _Requests) -> None:
    text = _text(random)
    fields = [b"Host: a", b"Content-Length: %s%d" % (random.choice([b"", b"000"]), len(text))]
    if random.random() < 0.2:
        closes = random.random() < 0.3
        fields.append(b"Connection: " + (b"close" if closes else b"keep-alive"))
        sent = _head(b"POST", b"/score", fields, b"1.0") + text
        return requests.add(sent, b"POST", 200, b'"%s"' % text, closes)
    random.shuffle(fields)
    return requests.add(_head(b"POST", b"/score", fields) + text, b"POST", 200, b'"%s"' % text)


def _chunked(random: Random, requests: _Requests) -> None:
    head = _head(
        b"POST",
        b"/score",
        [b"Host: a", random.choice([b"Transfer-Encoding: chunked", b"te:x\r\nTRANSFER-ENCODING:\tChunked"])],
    )
    text = rest = _text(random)
    coded = b""
    while rest:
        if random.random() < 0.03:
            coded += random.choice(BROKEN_SIZES) + b"\r\n"
            return requests.add(head + coded, b"POST", 400, None, closes=True)
        size = random.randrange(1, len(rest) + 1)
        digits = random.choice([b"", b"00"]) + random.choice([b"%x", b"%X"]) % size
        coded += digits + random.choice([b"", b"", random.choice(EXTENSIONS)]) + b"\r\n" + rest[:size]
        rest = rest[size:]
        if random.random() < 0.02:
            return requests.add(head + coded + b"X\r\n", b"POST", 400, None, closes=True)
        coded += b"\r\n"
    coded += random.choice([b"0", b"000", b"0;a=b"]) + b"\r\n"
    coded += b"".join(trailer + b"\r\n" for trailer in random.choices(TRAILERS, k=random.choice([0, 1, 1, 3])))
    if random.random() < 0.1:
        coded += random.choice(BROKEN_TRAILERS) + b"\r\n\r\n"
        return requests.add(head + coded, b"POST", 400, None, closes=True)
    return requests.add(head + coded + b"\r\n", b"POST", 200, b'"%s"' % text)


def _refused(random: Random, requests: _Requests) -> None:
    field, status = random.choice(BROKEN_FIELDS)
    fields = [field] if field.startswith(b"Host") else [b"Host: a", field]
    requests.add(_head(b"POST", b"/score", fields), b"POST", status, None, closes=True)


def _tunnel(random: Random, requests: _Requests) -> None:
    requests.add(_head(b"CONNECT", b"/score", [b"Host: a"]), b"CONNECT", 405, None, closes=True)


def _end(requests: _Requests) -> None:
    requests.add(_head(b"GET", b"/", [b"Host: a", b"Connection: close"]), b"GET", 200, b"Healthy", closes=True)
