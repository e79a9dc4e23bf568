"""Case files: what is started, what is sent. Owns the format of `cases/*.toml`; knows no server and
no result.

A file has a `section` (of the contract) and a list of `[[case]]`: one server configuration with
many `checks`. A check is an inline table; short forms are `get = TARGET`, `post = BODY` (JSON
content type unless `type` says otherwise) and `send = "METHOD TARGET"`; `raw` is a whole request.
`{{x*100}}` repeats text, `{port}` and `{dir}` are the server's. Text of requests and headers is
sent as latin-1, bodies as UTF-8, `hex` as bytes. Unknown keys are errors.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import tomllib

FOLDER = Path(__file__).resolve().parent

CASE_KEYS = {
    "id": str, "title": str, "section": str, "script": str, "script_file": str, "files": dict, "env": dict,
    "args": list, "entry": str, "module": bool, "checks": list, "log": bool, "startup": bool, "stderr": bool,
    "exit": bool, "compare": list, "stop": str, "health_port": bool, "ready": str, "port": bool,
    "workers": int,
}  # fmt: skip
CHECK_KEYS = {
    "id": str, "get": str, "post": str, "send": str, "raw": str, "target": str, "body": str, "hex": str, "type": str,
    "headers": list, "ignore": list, "exact": bool, "until_close": bool, "shutdown": bool, "on": str, "chunks": bool,
    "descriptions": bool, "log": bool, "write": dict,
}  # fmt: skip


@dataclass(frozen=True)
class Check:
    """One request (or a file written between requests) of a case."""

    id: str
    fields: Mapping[str, Any]

    @property
    def ignore(self) -> frozenset[str]:
        """Facets that are not compared for this check."""
        return frozenset(self.fields.get("ignore", ()))

    def option(self, name: str, default: Any = None) -> Any:
        """The value of a field of the check."""
        return self.fields.get(name, default)

    def request(self, port: int, directory: str) -> bytes:
        """Make the bytes to send to a server on `port` whose working directory is `directory`."""
        values = {"port": str(port), "dir": directory}
        if "raw" in self.fields:
            return _raw(expand(self.fields["raw"], values), self.fields.get("exact", False))
        method, target, body = self._parts()
        headers = [f"Host: 127.0.0.1:{port}"]
        if body is not None:
            kind = self.fields.get("type", "application/json")
            headers += [f"Content-Type: {kind}"] if kind else []
            headers += [f"Content-Length: {len(body)}"]
        headers += [expand(header, values) for header in self.fields.get("headers", ())]
        head = "\r\n".join([f"{method} {expand(target, values)} HTTP/1.1", *headers]) + "\r\n\r\n"
        return head.encode("latin-1") + (body or b"")

    def method(self) -> str:
        """The request's method, which decides whether the reply has a body."""
        if "raw" in self.fields:
            return str(self.fields["raw"]).lstrip("\n").split(" ", 1)[0]
        return self._parts()[0]

    def _parts(self) -> tuple[str, str, bytes | None]:
        fields = self.fields
        body: bytes | None = None
        if "hex" in fields:
            body = bytes.fromhex(fields["hex"])
        elif "body" in fields or "post" in fields:
            body = expand(fields.get("body", fields.get("post")), {}).encode("utf-8")
        if "get" in fields:
            return "GET", fields["get"], body
        if "send" in fields:
            method, target = fields["send"].split(" ", 1)
            return method, target, body
        return "POST", fields.get("target", "/score"), body if body is not None else b""


@dataclass(frozen=True)
class Case:
    """One server configuration and its checks."""

    id: str
    section: str
    title: str = ""
    script: str | None = None
    files: Mapping[str, str] = field(default_factory=dict)
    env: Mapping[str, str] = field(default_factory=dict)
    args: tuple[str, ...] = ()
    entry: str = "score.py"
    module: bool = False
    checks: tuple[Check, ...] = ()
    log: bool = True
    startup: bool = False
    stderr: bool = False
    exit: bool = False
    compare: tuple[str, ...] = ("exit", "log")
    stop: str = ""
    health_port: bool = False
    ready: str = "line"
    port: bool = True
    # How many workers have said that they are ready when the first request is sent. The log of a later one would appear
    # in the log of some request.
    workers: int = 1

    @property
    def comparison_names(self) -> list[str]:
        """The parts of this case that are compared: requests, start-up text, ways to end."""
        names = [check.id for check in self.checks if "write" not in check.fields]
        return names + ["startup"] * self.startup + ["exit"] * self.exit + ["stop"] * bool(self.stop)


def expand(text: str, values: Mapping[str, str]) -> str:
    """Replace `{{x*3}}` by `xxx`, and `{port}` and `{dir}` by their values. Other braces are not
    changed."""
    text = re.sub(r"\{\{(.+?)\*(\d+)\}\}", lambda match: match[1] * int(match[2]), text, flags=re.DOTALL)
    for name, value in values.items():
        text = text.replace("{" + name + "}", value)
    return text


def _raw(text: str, exact: bool) -> bytes:
    """Make the Latin-1 bytes of a written request. Unless exact, lines of the head get CRLF, and a
    blank line ends the head."""
    if exact:
        return text.encode("latin-1")
    head, blank, body = text.partition("\n\n")
    if not blank:
        head, blank = head.rstrip("\n"), "\n\n"
    return (head + blank).replace("\n", "\r\n").encode("latin-1") + body.encode("latin-1")


def load(folder: Path = FOLDER / "cases") -> list[Case]:
    """Read every case of the folder, in the order of the files. Raises ValueError, which names the
    file, for a mistake."""
    cases: list[Case] = []
    for path in sorted(folder.glob("*.toml")):
        document = tomllib.loads(path.read_text("utf-8"))
        try:
            cases += [_case(raw, str(document["section"])) for raw in document["case"]]
        except (ValueError, KeyError, TypeError) as error:
            raise ValueError(f"{path.name}: {error}") from error
    repeated = sorted({case.id for case in cases if [other.id for other in cases].count(case.id) > 1})
    if repeated:
        raise ValueError(f"case ids used twice: {', '.join(repeated)}")
    return cases


def _case(raw: dict[str, Any], section: str) -> Case:
    _know(raw, CASE_KEYS)
    fields = dict(raw)
    fields.setdefault("section", section)
    name = fields.pop("script_file", None)
    if name:
        fields["script"] = (FOLDER / "scripts" / name).read_text("utf-8")
    fields["args"] = tuple(fields.get("args", ()))
    fields["env"] = {key: str(value) for key, value in fields.get("env", {}).items()}
    if "compare" in fields:
        fields["compare"] = tuple(fields["compare"])
    fields["checks"] = tuple(_checks(fields.get("checks", [])))
    return Case(**fields)


def _checks(raw: list[dict[str, Any]]) -> Iterator[Check]:
    seen: set[str] = set()
    for fields in raw:
        _know(fields, CHECK_KEYS)
        base = fields.get("id") or _slug(fields)
        name, number = base, 1
        while name in seen:
            number += 1
            name = f"{base}-{number}"
        seen.add(name)
        yield Check(name, fields)


def _slug(fields: dict[str, Any]) -> str:
    if "write" in fields:
        return "write"
    for key in ("get", "send", "post", "raw", "hex", "body"):
        if key in fields:
            prefix = key if key in ("get", "post") else ""
            words = re.findall(r"[A-Za-z0-9]+", f"{prefix} {fields.get('target', '')} {fields[key]}")
            return "-".join(words)[:48].strip("-") or key
    return "post-empty"


def _know(fields: Mapping[str, Any], keys: Mapping[str, type]) -> None:
    for name, value in fields.items():
        if name not in keys:
            raise ValueError(f"unknown key {name!r} in {fields.get('id', fields)}")
        if not isinstance(value, keys[name]):
            raise ValueError(f"{name!r} in {fields.get('id', fields)} must be {keys[name].__name__}")
