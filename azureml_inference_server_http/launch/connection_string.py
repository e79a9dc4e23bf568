"""Connection strings of Application Insights: which key, and where to send.

Owns the syntax, as Microsoft documents it. Does not own which setting is looked at (``settings.py``). No function here
puts a part of the string into an error, because the string is a secret. Runs in the launcher.
"""

from __future__ import annotations

import re
import urllib.parse
from typing import NamedTuple

# Where keys without a connection string are sent.
DEFAULT_ENDPOINT = "https://dc.services.visualstudio.com"
_LONGEST = 4096
_UUID = re.compile(r"[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}", re.IGNORECASE | re.ASCII)
_HOST_PART = re.compile(r"[a-z0-9](?:[a-z0-9.-]*[a-z0-9])?", re.IGNORECASE | re.ASCII)


class ConnectionStringError(Exception):
    """A string that cannot be used. The message says why, without the string."""


class ConnectionString(NamedTuple):
    """What a string says. ``endpoint`` is None if it names none."""

    key: str | None
    endpoint: str | None


def is_key(text: str) -> bool:
    """Whether this may be an instrumentation key: a UUID, in any case of letters."""
    return _UUID.fullmatch(text) is not None


def parse(text: str) -> ConnectionString:
    """Read ``Name=value;Name=value``. Names are known in any case, unknown ones are skipped."""
    if len(text) > _LONGEST:
        raise ConnectionStringError(f"it is longer than {_LONGEST} characters")
    values: dict[str, str] = {}
    for number, part in enumerate(text.split(";"), 1):
        if not part.strip():
            continue
        name, separator, value = part.partition("=")
        if not separator:
            raise ConnectionStringError(f"part {number} has no equals sign")
        values[name.strip().lower()] = value.strip()
    if values.get("authorization", "ikey").lower() != "ikey":
        raise ConnectionStringError("its Authorization is not ikey")
    key = values.get("instrumentationkey") or None
    if key is not None and not is_key(key):
        raise ConnectionStringError("its InstrumentationKey is no UUID")
    return ConnectionString(key and key.lower(), _endpoint(values))


def _endpoint(values: dict[str, str]) -> str | None:
    given = values.get("ingestionendpoint")
    if given:
        if not is_url(given):
            raise ConnectionStringError("its IngestionEndpoint is no URL that begins with http:// or https://")
        return given.rstrip("/")
    suffix, location = values.get("endpointsuffix"), values.get("location")
    if not suffix:
        return None
    suffix = suffix.lstrip(".")
    if not _HOST_PART.fullmatch(suffix) or (location and not _HOST_PART.fullmatch(location)):
        raise ConnectionStringError("its EndpointSuffix or Location is no part of a host name")
    return f"https://{location + '.' if location else ''}dc.{suffix}"


def is_url(text: str) -> bool:
    """Whether this is a URL that items can be sent to."""
    try:
        parts = urllib.parse.urlsplit(text)
        parts.port  # noqa: B018 (raises for a port that is none)
    except ValueError:
        return False
    return parts.scheme in ("http", "https") and bool(parts.hostname) and not re.search(r"\s", text)
