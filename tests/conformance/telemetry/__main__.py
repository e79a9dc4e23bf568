"""Runs both servers against a recording receiver, and compares what it got; see ``__init__.py``."""

from __future__ import annotations

import argparse
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

sys.path[:0] = [str(Path(__file__).resolve().parents[2])]

from conformance.telemetry import compare, record  # noqa: E402

THREADS = 4


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--reference", required=True, help="python of the published server")
    parser.add_argument("--candidate", required=True, help="python of this server")
    parser.add_argument("--show", action="store_true", help="show every difference, also those that are meant")
    arguments = parser.parse_args()
    entries = compare.load()
    unexpected: list[str] = []
    pythons = [str(Path(name).absolute()) for name in (arguments.reference, arguments.candidate)]
    with ThreadPoolExecutor(THREADS) as pool:
        # All servers, THREADS at a time, because most of their time is spent waiting.
        sent = pool.map(record.items, *zip(*((setup, python) for setup in record.SETUPS for python in pythons)))
        received = list(sent)
    for setup, published, ours in zip(record.SETUPS, received[::2], received[1::2]):
        found = compare.differences(setup.name, published, ours)
        for difference in found:
            entry = compare.entry_for(difference, entries)
            if entry is None:
                unexpected.append(str(difference))
            elif arguments.show:
                print(f"meant ({entry.reason}): {difference}")
        print(f"{setup.name}: {len(published)} items of the published server, {len(ours)} here")
    for line in unexpected:
        print(f"UNEXPECTED {line}")
    stale = [entry for entry in entries if not entry.is_used]
    for entry in stale:
        print(f"STALE entry: {entry.facets} of {entry.items} no longer differ")
    return 1 if unexpected or stale else 0


if __name__ == "__main__":
    sys.exit(main())
