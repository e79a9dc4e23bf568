"""``python -m tests.chaos --seconds 600``: the long run. Prints the report; exit code 1 if a
promise was not kept."""

from __future__ import annotations

import argparse
import random
import sys
import tempfile
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from chaos import campaign
from chaos.subjects import GROUPS, NEEDS_PROCESSES


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.chaos", description="Do harm to servers under load.")
    parser.add_argument("--seconds", type=float, default=600, help="of chaos (default: %(default)s)")
    parser.add_argument("--seed", type=int, default=random.randrange(1_000_000), help="decides what is sent and done")
    parser.add_argument(
        "--scripts", choices=list(GROUPS), default="serial", help="whose servers are harmed (default: %(default)s)"
    )
    parser.add_argument("--worker_class", choices=["process", "thread"], default="process")
    parser.add_argument("--keep", metavar="FOLDER", type=Path, help="leave logs and journals there, in a new folder")
    options = parser.parse_args()
    if options.worker_class == "thread" and options.scripts in NEEDS_PROCESSES:
        parser.error(f"--scripts {options.scripts} needs --worker_class process")
    print(f"--seed {options.seed}", flush=True)
    with tempfile.TemporaryDirectory(prefix="chaos-") as temporary:
        folder = options.keep or Path(temporary)
        folder.mkdir(parents=True, exist_ok=not options.keep)
        report = campaign.run(folder, options.seconds, options.seed, options.scripts, options.worker_class)
    print(report, flush=True)
    return 1 if report.violations else 0


if __name__ == "__main__":
    sys.exit(main())
