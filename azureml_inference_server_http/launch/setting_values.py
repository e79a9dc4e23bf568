"""The syntax of the values of settings: one parser for each kind of value in ``settings_table.py``.

Owns what a text, or a value of config.json, stands for. ``settings.py`` decides which of the given
values counts. Runs in the launcher. Rules: contract section 3.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, Callable, TypeVar

from . import settings_table as table
from . import worker_environment
from .settings_table import Setting

# Whole numbers with an optional ".0", because the contract accepts " 400.0 ", which int() refuses.
# Like int(), this accepts digits of all writing systems.
_INTEGER_TEXT = re.compile(r"\s*([+-]?\d+(?:_\d+)*)(?:\.0+)?\s*")
_DECIMAL_TEXT = re.compile(r"\s*[+-]?(?:[0-9]+(?:\.[0-9]*)?|\.[0-9]+)\s*", re.ASCII)
_Number = TypeVar("_Number", int, float)


def parse(setting: Setting, value: object) -> Any:
    """Parse a value of a variable or of the configuration file. Raises ValueError if it is refused."""
    return PARSERS[setting.kind](setting, value)


def parse_option(setting: Setting, text: str) -> Any:
    """Parse the value of an option, whole numbers as Python's int() does. Raises ValueError if it
    is refused."""
    if setting.kind == table.INTEGER:
        return table.AUTO if _is_auto(setting, text) else _in_range(setting, int(text))
    return parse(setting, text)


def _in_range(setting: Setting, number: _Number) -> _Number:
    if setting.minimum is not None and number < setting.minimum:
        raise ValueError("too small")
    if setting.maximum is not None and number > setting.maximum:
        raise ValueError("too large")
    return number


def _is_auto(setting: Setting, value: object) -> bool:
    return setting.takes_auto and isinstance(value, str) and value.strip().lower() == table.AUTO


def _integer(setting: Setting, value: object) -> int | str:
    """The number, or the word "auto" if the setting takes it."""
    if _is_auto(setting, value):
        return table.AUTO
    if isinstance(value, str):
        match = _INTEGER_TEXT.fullmatch(value)
        if match is None:
            raise ValueError("not a whole number")
        value = int(match[1])
    elif isinstance(value, float) and value.is_integer():
        value = int(value)
    if not isinstance(value, int):
        raise ValueError("not a whole number")
    return _in_range(setting, int(value))


def _number(setting: Setting, value: object) -> float:
    """Parse a decimal number. Words such as "inf" and "nan", which float() accepts, are refused."""
    if isinstance(value, str) and _DECIMAL_TEXT.fullmatch(value):
        value = float(value)
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        raise ValueError("not a number")
    return _in_range(setting, float(value))


def _boolean(setting: Setting, value: object) -> bool:
    if isinstance(value, str):
        value = word(value)
    if isinstance(value, (int, float)) and value in (0, 1):
        return bool(value)
    raise ValueError("neither true nor false")


def word(text: str) -> bool | None:
    """True or False for words such as "yes" and "off", None for other words."""
    lower = text.lower()
    return True if lower in table.TRUE_WORDS else False if lower in table.FALSE_WORDS else None


def _text(setting: Setting, value: object) -> str:
    if not isinstance(value, str):
        raise ValueError("not text")
    return value


def _non_empty(setting: Setting, value: object) -> str:
    text = _text(setting, value).strip()
    if not text:
        raise ValueError("empty")
    return text


def _log_level(setting: Setting, value: object) -> str:
    """The name of the nearest of the five levels. Halfway between two levels, the one that logs
    more."""
    if isinstance(value, str):
        word = value.strip().upper()
        word = table.LEVEL_WORDS.get(word, word)
        if word in table.LEVELS:
            return word
        value = float(word) if _DECIMAL_TEXT.fullmatch(word) else None
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        raise ValueError("not a log level")
    number = max(0, min(100, value))
    return min(table.LEVELS, key=lambda level: abs(table.LEVELS[level] - number))


def _choice(setting: Setting, value: object) -> str:
    chosen = _text(setting, value).strip().lower()
    if chosen not in setting.choices:
        raise ValueError("none of the words")
    return chosen


def _networks(setting: Setting, value: object) -> str:
    """The networks in the form that the front reads: ``10.0.0.0/8,192.168.1.7/32``."""
    words = _text(setting, value).replace(",", " ").split()
    return ",".join(map(_network, words))


def _network(text: str) -> str:
    """One network. The front compares addresses of IPv4 as such, however a socket shows them, so a network of IPv6
    that maps some of IPv4 (RFC 4291 section 2.5.5.2) becomes one of IPv4."""
    import ipaddress

    if "%" in text:
        raise ValueError("an address with a zone, which is a name of this machine's interfaces")
    network = ipaddress.ip_network(text, strict=False)
    mapped = ipaddress.IPv6Network("::ffff:0:0/96")
    if isinstance(network, ipaddress.IPv6Network) and network.subnet_of(mapped):
        address = ipaddress.IPv4Address(int(network.network_address) & 0xFFFFFFFF)
        return str(ipaddress.ip_network((address, network.prefixlen - 96)))
    return str(network)


def _variables(setting: Setting, value: object) -> str:
    """The text as it is: ``worker_environment.parse`` can read it."""
    text = _text(setting, value)
    worker_environment.parse(text)
    return text


def reason(error: ValueError) -> str:
    """What a message about a refused value adds: the reason, if it can be told without the value."""
    return f", because {error}" if isinstance(error, worker_environment.EntryError) else ""


def _protocols(setting: Setting, value: object) -> str:
    """The protocols in a fixed order. /score must be among them, because the contract has it."""
    words = _text(setting, value).lower().replace(",", " ").split()
    known = (table.SCORE, table.V2)
    if table.SCORE not in words or not set(words) <= set(known):
        raise ValueError("other protocols")
    return ",".join(protocol for protocol in known if protocol in words)


def _model_name(setting: Setting, value: object) -> str:
    name = _non_empty(setting, value)
    if "/" in name:
        raise ValueError("not one segment of a path")
    return name


PARSERS: Mapping[str, Callable[[Setting, Any], Any]] = {
    table.TEXT: _text,
    table.NON_EMPTY: _non_empty,
    table.PATH: _text,
    table.RESOLVED_PATH: _text,
    table.INTEGER: _integer,
    table.LENIENT_INTEGER: _integer,
    table.NUMBER: _number,
    table.BOOLEAN: _boolean,
    table.ON_OFF: _boolean,
    table.EXACT_TRUE: lambda setting, value: bool(value == "true"),
    table.ANY_CASE_TRUE: lambda setting, value: bool(value.lower() == "true"),
    table.LOG_LEVEL: _log_level,
    table.CHOICE: _choice,
    table.NETWORKS: _networks,
    table.VARIABLES: _variables,
    table.PROTOCOLS: _protocols,
    table.MODEL_NAME: _model_name,
}
