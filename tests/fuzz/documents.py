"""JSON request bodies: random text that is JSON, or nearly so, and what ``json.loads`` makes of it.

Owns the texts and the expected replies of ``scripts/describe.py``. The text is not made by
``json.dumps``, which would never write most of what a client may send. Runs in the test process.
"""

from __future__ import annotations

import codecs
import json
import sys
from collections.abc import Callable
from decimal import Decimal, localcontext
from random import Random

from .results import DEEP, draw_float, outcomes, shapes

WRAP = ('{"document": ', "}")
CONTENT_TYPES = (
    *("application/json",) * 12,
    "Application/JSON",
    "application/json; charset=utf-8",
    "application/vnd.x+json",
)
ENCODINGS = ("utf-8-sig", "utf-16", "utf-16-le", "utf-16-be", "utf-32", "utf-32-le", "utf-32-be", "latin-1")
# Texts that are almost JSON values.
NEARLY = (
    *("nan", "-NaN", "+1", "01", "-01", "1.", ".5", "-", "1e", "1e+", "- 1", "0x10", "1_000", "\u0661", "1.e5", "--1"),
    *("Inf", "infinity", "+Infinity", "-Infinity0", "NaN1", "True", "None", "nul", "truefalse", "undefined"),
    *(
        "'a'",
        '"\\x41"',
        '"\\u12"',
        '"\\u 123"',
        '"\\u+123"',
        '"\\ud800\\u"',
        '"\\',
        '"abc',
        '"\t"',
        '"\\u00zz"',
        '"a\x00b"',
    ),
    *("[1,]", "[,]", "[1 2]", "{,}", '{"a":1,}', '{"a" 1}', '{"a":}', "{a:1}", "{1:2}", "[", "{", "]", "}", ",", ""),
    *("// x", "/* x */ 1", "\ufeff1", "\xa01", "\x0b1", "\u2028 1", "[1] 2", '{"a":1}{'),
)
MUTATIONS = b'[]{},:"\\\x00\x1f\x7f\x80\xbf\xc0\xc3\xed\xa0\xf0\xff \n01e.-uNI'


def draw(random: Random, large: bool) -> tuple[str, bytes]:
    """Draw content type and body. Without ``large`` they are small enough for hypothesis to
    minimise."""
    content_type = random.choice(CONTENT_TYPES)
    kind = random.randrange(100)
    if kind == 99:
        text = draw_deep(random)
    elif kind == 98 and large:
        text = _draw_many(random)
    else:
        text = draw_value(random, 0)
    if random.randrange(16) < 15:
        text = draw_space(random) + WRAP[0] + text + WRAP[1] + draw_space(random)
    encoding = random.choice(ENCODINGS) if random.randrange(16) == 15 else "utf-8"
    body = text.encode(encoding, "replace" if encoding == "latin-1" else "surrogatepass")
    if encoding == "utf-8" and random.randrange(40) == 39:
        body = codecs.BOM_UTF8 + body
    return content_type, mutate(random, body) if random.randrange(4) == 3 else body


def mutate(random: Random, body: bytes) -> bytes:
    """The body with a few bytes changed, added or removed, or with its end cut off."""
    for _ in range(random.choice((1, 1, 1, 2, 5))):
        at, end = (random.randrange(len(body) + 1) for _ in range(2))
        kind = random.randrange(6)
        if kind == 0:
            body = body[:at]
        elif kind == 1:
            body = body[:at] + body[at + 1 :]
        elif kind == 2:
            body = body[:at] + body[min(at, end) : end][:20] + body[at:]
        elif kind == 3 and body:
            at %= len(body)
            body = body[:at] + bytes([body[at] ^ 1 << random.randrange(8)]) + body[at + 1 :]
        else:
            new = bytes([random.choice(MUTATIONS)])
            body = body[:at] + new + body[at + kind - 4 :]
    return body


def draw_deep(random: Random) -> str:
    """Draw a document nested about 200 levels deep (the limit of the native parser), or about 1000
    (Python's limit)."""
    depth = random.choice((50, 197, 198, 199, 200, 201, 202, 260, 500, 850, 940, 990, 995, 1000, 1200, 3000))
    kinds = [
        random.choice((("[", "]"), ("[", "]"), ('{"k":', "}"), ("[1, ", ",2]"))) for _ in range(random.randrange(1, 4))
    ]
    opening = "".join(kinds[level % len(kinds)][0] for level in range(depth))
    closing = "".join(kinds[level % len(kinds)][1] for level in reversed(range(depth)))
    missing = random.randrange(1, depth) if random.randrange(4) == 3 else 0
    return opening + draw_value(random, 9) + closing[: len(closing) - missing]


def _draw_many(random: Random) -> str:
    one = random.choice((draw_number, draw_float_text, draw_string, lambda random: draw_value(random, 4)))
    return "[" + ",".join(one(random) for _ in range(random.choice((30, 300, 2000)))) + "]"


def draw_value(random: Random, depth: int) -> str:
    kind = random.randrange(12)
    if depth > 4 or kind < 5:
        return draw_leaf(random)
    space = [draw_space(random) for _ in range(3)]
    size = random.randrange(5)
    if kind < 8:
        items = f"{space[0]},{space[1]}".join(draw_value(random, depth + 1) for _ in range(size))
        return f"[{space[2]}{items}{space[0]}]"
    pairs = (f"{draw_key(random)}{space[0]}:{space[2]}{draw_value(random, depth + 1)}" for _ in range(size))
    return "{" + space[1] + f"{space[2]},{space[0]}".join(pairs) + space[1] + "}"


def draw_key(random: Random) -> str:
    if random.randrange(4) < 3:
        return '"' + random.choice(("a", "b", "document", "", "a much longer key than the others have", "é")) + '"'
    return draw_string(random)


def draw_leaf(random: Random) -> str:
    kind = random.randrange(40)
    if kind < 5:
        return random.choice(("null", "true", "false", "NaN", "Infinity", "-Infinity"))
    if kind < 12:
        return draw_number(random)
    if kind < 20:
        return draw_float_text(random)
    if kind < 39:
        return draw_string(random)
    return random.choice(NEARLY)


def draw_number(random: Random) -> str:
    sign = random.choice(("", "-"))
    kind = random.randrange(20)
    if kind < 6:
        return sign + str(random.randrange(1000))
    if kind < 8:
        return sign + random.choice(("0", "9223372036854775807", "9223372036854775808", "18446744073709551616"))
    if kind < 19:
        return sign + str(random.getrandbits(random.randrange(1, 260)))
    # Python reads integers of up to 4300 digits.
    return sign + str(random.randrange(1, 10)) * random.choice((400, 4299, 4300, 4301, 5000))


def draw_float_text(random: Random) -> str:
    kind = random.randrange(10)
    if kind < 3:
        return repr(draw_float(random)).replace("inf", "Infinity").replace("nan", "NaN")
    if kind == 3:
        return random.choice(
            (
                "-0",
                "-0.0",
                "0e0",
                "0E-0",
                "1e400",
                "-1e400",
                "5e-324",
                "2e-324",
                "1E5",
                "1e+05",
                "0.1e-400",
                "1e99999999999",
            )
        )
    if kind < 6:
        return draw_halfway(random)
    sign, exponent = random.choice(("", "-")), ""
    digits = draw_digits(random, random.choice((1, 3, 17, 20, 40, 800)) if kind == 9 else 12)
    if random.randrange(2):
        mark = random.choice(("e", "E", "e+", "E-", "e-", "e0", "e-00"))
        exponent = mark + str(random.randrange(random.choice((3, 30, 330, 5000))))
    point = random.randrange(len(digits))
    whole, fraction = digits[:point].lstrip("0") or "0", digits[point:]
    return sign + whole + random.choice((".", ".", ".000")) + fraction + exponent


def draw_digits(random: Random, longest: int) -> str:
    return "".join(random.choices("0123456789", k=random.randrange(1, longest + 1)))


def draw_halfway(random: Random) -> str:
    """Draw a number exactly or almost halfway between two neighbouring floats, whose last digit
    decides the rounding."""
    low = abs(draw_float(random))
    if not 0.0 < low < 1e300:
        low = 2.0**53 + 2 * random.randrange(9)
    with localcontext() as context:
        context.prec = 1100
        high = low + 2.0 ** max(-1074, _exponent_of(low) - 52)
        text = format((Decimal(low) + Decimal(high)) / 2, random.choice(("f", "e")))
    mantissa, mark, exponent = text.partition("e")
    if "." not in mantissa:
        mantissa += ".0"
    return mantissa + random.choice(("", "0", "1", "00000000001")) + mark + exponent


def _exponent_of(value: float) -> int:
    return int(value.hex().partition("p")[2])


def draw_string(random: Random) -> str:
    alphabet = random.choice(('ab "/\\\n\x00\x7fé', "aé€😀\u2028\ud83d\ude00", "xyz ", "\x00\b\f\t\x1f\x80\xff"))
    characters = random.choices(alphabet, k=random.choice((0, 1, 2, 3, 5, 8, 70)))
    return '"' + "".join(map(_spelling(random), characters)) + '"'


def _spelling(random: Random) -> Callable[[str], str]:
    habit = random.randrange(4)

    def spell(character: str) -> str:
        if character in '"\\\b\f\n\r\t/' and habit < 3:
            return "\\" + dict(zip("\b\f\n\r\t", "bfnrt")).get(character, character)
        # Raw control characters are an error, surrogates written as bytes are not: both are rare.
        is_rare = character < " " or "\ud800" <= character <= "\udfff"
        if (is_rare and (habit != 3 or random.randrange(8) < 7)) or habit == 0:
            return _escaped(character, random.choice(("04x", "04X")))
        return character if character not in '"\\' else "\\" + character

    return spell


def _escaped(character: str, form: str) -> str:
    units = character.encode("utf-16-be", "surrogatepass")
    return "".join(f"\\u{format(units[at] << 8 | units[at + 1], form)}" for at in range(0, len(units), 2))


def draw_space(random: Random) -> str:
    if random.randrange(3) < 2:
        return ""
    return "".join(random.choices(" \t\n\r", k=random.randrange(4)))


# ---- What json.loads makes of it


INTERNAL = "An unexpected internal error occurred. Check the logs for more info."


def expected(body: bytes) -> set[tuple[int, bytes]]:
    """The possible replies, by contract section 6. More than one only where Python's recursion
    limit is near."""
    if body.count(b"[") + body.count(b"{") >= DEEP:
        return outcomes(lambda: _answer(body))
    return {_answer(body)}


def _answer(body: bytes) -> tuple[int, bytes]:
    if not body:
        return refusal(400, "POST body is empty. Expecting a JSON dictionary.")
    try:
        values = json.loads(body)
    except json.JSONDecodeError as error:
        return refusal(400, f"POST body could not be decoded as JSON: {error}")
    except (ValueError, RecursionError):
        return refusal(500, INTERNAL)
    if type(values) is not dict:
        return refusal(400, "POST body should be a JSON dictionary.")
    if "document" not in values:
        return refusal(400, "A value is not provided for the 'document' parameter.")
    return 200, json.dumps(shapes.describe(values["document"])).encode()


def refusal(status: int, message: str) -> tuple[int, bytes]:
    """A reply that is an error."""
    return status, json.dumps({"message": message}).encode()


if sys.version_info < (3, 9, 14):  # pragma: no cover
    raise RuntimeError("this Python does not limit the digits of integers; the expectations here do not fit it")
