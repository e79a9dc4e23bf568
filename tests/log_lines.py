"""The lines that a server logs, as records. Tests import it through ``harness.py``."""

from __future__ import annotations

import re
from typing import NamedTuple


class Record(NamedTuple):
    """A record of the contract's line format; ``text`` has the lines that follow the first one,
    too."""

    time: str
    level: str
    pid: int
    logger: str
    message: str
    text: str


_RECORD = re.compile(r"(\d{4}-\d\d-\d\d \d\d:\d\d:\d\d,\d{3}) ([DIWEC]) \[(\d+)\] ([\w.]+) - (.*)")


def parse_log(output: str) -> list[Record]:
    """The records in what the server wrote to stdout."""
    records: list[Record] = []
    for line in output.splitlines():
        if match := _RECORD.fullmatch(line):
            when, level, pid, logger, message = match.groups()
            records.append(Record(when, level, int(pid), logger, message, message))
        elif records:
            records[-1] = records[-1]._replace(text=f"{records[-1].text}\n{line}")
    return records
