"""Removes from replies and output what must vary between two runs or two servers, and nothing else.

Turns a reply into facets (named texts) that compare.py sets side by side: outcome, version, status,
one `header:NAME` per header name, body, interim, chunks. Output becomes lines without time and pid.
Every rule says why it exists; rules that hide a decided difference do not belong here but in
known_differences.toml.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field

from conformance.client import Reply

# Headers about the connection and the server, which differ between any two servers or runs.
DROPPED_HEADERS = {"connection", "date", "keep-alive", "server"}
# Records about the process tree. Each server has its own; the contract compares none of them.
DROPPED_LOGGERS = ("gunicorn.",)
OWN_LINES = re.compile(
    r"Listening at: http://|^[A-Z] azmlinfsrv - (Stopping\b|Stopped\.|Worker \(pid:|The front process )"
)
RECORD = re.compile(r"^\d{4}-\d\d-\d\d \d\d:\d\d:\d\d,\d{3} ([A-Z]) \[\d+\] ([\w.]+) - (.*)$")
# Frames of exception groups are indented by a margin of bars.
FRAME = re.compile(r'^([ |]*)File "([^"]*)", line \d+')
UUID = re.compile(r"\b[0-9a-f]{8}-[0-9a-f]{4}-4[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}\b")
REQUEST_LINE = re.compile(r"^(I azmlinfsrv - .* \d+ )\d+\.\d+ms (\S+)$")
# The published server's second log line for a request, if a user's configuration has changed its
# format.
ACCESS_LINE = re.compile(r'^\S+ - \S+ \[\d\d/\w{3}/\d{4}:[\d:]{8} [+-]\d{4}\] "')
TRACEBACK = "Traceback (most recent call last):"
BANNER_TITLE = "Azure ML Inferencing HTTP server v"


@dataclass
class Context:
    """The paths and ports of one server of one case. `seen` numbers the uuids of one reply."""

    directory: str
    environment: str
    port: int
    health_port: int
    seen: list[str] = field(default_factory=list)

    def text(self, text: str) -> str:
        """`text` with paths, ports, versions, uuids and addresses replaced by names."""
        if "/azureml_inference_server_http/" in text:
            text = re.sub(r"/[^\s'\"]{0,300}/azureml_inference_server_http/", "«package»/", text)
        text = text.replace(self.directory, "«dir»").replace(self.environment, "«environment»")
        text = re.sub(rf"\b{self.port}\b", "«port»", text)
        text = re.sub(rf"\b{self.health_port}\b", "«health port»", text)
        text = re.sub(r"azmlinfsrv/\d+\.\d+\.\d+\w*", "azmlinfsrv/«version»", text)
        text = re.sub(rf"({BANNER_TITLE})\S+", r"\1«version»", text)
        text = re.sub(r"\b0x[0-9a-f]{8,}\b", "0x«address»", text)
        return UUID.sub(self._uuid, text)

    def _uuid(self, match: re.Match[str]) -> str:
        if match[0] not in self.seen:
            self.seen.append(match[0])
        return f"«uuid {self.seen.index(match[0]) + 1}»"


def reply_facets(replies: list[Reply], context: Context, *, descriptions: bool, chunks: bool) -> dict[str, str]:
    """The facets of a check's replies; those after the first have a numbered prefix."""
    facets: dict[str, str] = {}
    context.seen.clear()
    for number, reply in enumerate(replies):
        prefix = f"{number + 1}:" if number else ""
        for name, value in _one_reply(reply, context, descriptions, chunks).items():
            facets[prefix + name] = value
    return facets


def _one_reply(reply: Reply, context: Context, descriptions: bool, chunks: bool) -> dict[str, str]:
    # How a connection that carries no reply ends (FIN or RST) depends on unread bytes, not on
    # behaviour.
    facets = {"outcome": reply.outcome}
    if reply.interim:
        facets["interim"] = " ".join(reply.interim)
    if not reply.status:
        return facets
    facets |= {"version": reply.version, "status": reply.status}
    headers: dict[str, list[str]] = {}
    for name, value in reply.headers:
        if name.lower() not in DROPPED_HEADERS:
            headers.setdefault(name.lower(), []).append(_header(name.lower(), context.text(value), reply))
    facets |= {f"header:{name}": "\n".join(values) for name, values in headers.items()}
    facets["body"] = _body(reply.body, context, descriptions)
    if chunks and reply.chunks is not None:
        facets["chunks"] = "\n".join(repr(chunk) for chunk in reply.chunks)
    return facets


def _header(name: str, value: str, reply: Reply) -> str:
    if name == "x-ms-run-fn-exec-ms":
        return re.sub(r"^\d+\.\d{3}$", "«ms»", value)
    # If a body contains a path, its length differs between the servers. The bodies themselves are
    # compared.
    if name == "content-length" and value == str(len(reply.body)):
        return "«length of the body»"
    # The published server sends the methods in random order.
    if name == "allow":
        return ", ".join(sorted(value.split(", ")))
    return value


def _body(body: bytes, context: Context, descriptions: bool) -> str:
    text = context.text(body.decode("utf-8", "backslashreplace"))
    # Each server has its own words for descriptions in swagger documents, so they are compared only
    # if they are the user's.
    if not descriptions and text.startswith(('{"swagger": "2.0"', '{"openapi": "3.')):
        text = re.sub(r'("description": )"(?:[^"\\]|\\.)*"', r'\1"«words»"', text)
    return text


def log_lines(text: str, context: Context, *, banner: bool = False) -> list[str]:
    """Lines of stdout: records as `LEVEL logger - text`, with continuation lines, and plain lines
    as they are."""
    context.seen.clear()
    lines = [_line(context.text(line)) for line in text.splitlines()]
    lines = [line for line in lines if line is not None]
    lines = [line for line in lines if not OWN_LINES.search(line) and not ACCESS_LINE.match(line)]
    if not banner:
        lines = _without_banner(lines)
    return _user_frames(lines)


def stderr_lines(text: str, context: Context) -> list[str]:
    """Lines of stderr without the records of the process tree and what belongs to them."""
    kept: list[str] = []
    dropping = False
    for line in text.splitlines():
        record = RECORD.match(line)
        own = record is not None and record[2].startswith((*DROPPED_LOGGERS, "azmlinfsrv"))
        if record:
            # A traceback belongs to the record before it. After any other record, the next line
            # does not belong to the record.
            dropping = own and record[1] in "EC"
        if not dropping and not own:
            kept.append(_line(context.text(line)) or "")
    return _user_frames(kept)


def _line(line: str) -> str | None:
    record = RECORD.match(line)
    if record:
        if record[2].startswith(DROPPED_LOGGERS):
            return None
        line = f"{record[1]} {record[2]} - {record[3]}"
    line = REQUEST_LINE.sub(r"\1«ms» \2", line)
    return re.sub(r"\bpid([ :])\d+", r"pid\1«pid»", line)


def _without_banner(lines: list[str]) -> list[str]:
    """Remove the banner: from the blank line before its title to the one after the routes. Only
    start-up cases compare it."""
    for start, line in enumerate(lines):
        if line.startswith(BANNER_TITLE):
            for end in range(start, len(lines)):
                if lines[end].startswith("Score:"):
                    return lines[: max(start - 1, 0)] + lines[end + 2 :]
    return lines


def _user_frames(lines: list[str]) -> list[str]:
    """Remove the frames that are not in the user's files from tracebacks, because they show the
    inside of a server or a library.

    The heading of a traceback is removed too, because no frames may be left. If a record began with
    it, the record begins with the next line that is kept.
    """
    kept: list[str] = []
    frame_indent: int | None = None
    joined = False
    for line in lines:
        frame = FRAME.match(line)
        if frame:
            frame_indent = None if frame[2].startswith("«dir»") else len(frame[1])
        elif frame_indent is not None and not line.replace("|", " ").startswith(" " * (frame_indent + 2)):
            frame_indent = None
        if frame_indent is not None or line == TRACEBACK or line.startswith("  [Previous line repeated"):
            continue
        if joined:
            kept[-1] += line
        else:
            kept.append(line)
        joined = line.endswith(TRACEBACK)
        kept[-1] = kept[-1].removesuffix(TRACEBACK)
    return kept
