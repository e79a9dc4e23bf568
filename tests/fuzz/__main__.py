"""``python -m tests.fuzz --seconds 600``: the long run. Prints cases tried and what was wrong; exit
code 1 if so.

Starts one server for each subject, and one for each kind of made-up request, and gives each the
same share of the time. The test process and the server must be the same Python, since ``json`` of
this one is what the other is compared with.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from harness import Server

from fuzz import campaign, http_framings, http_grammar, http_surface
from fuzz.subjects import SCRIPTS, SUBJECTS, Subject

# Subjects that are not compared with Python. Their requests go to a server of their own.
SENT = {"HTTP surface": http_grammar.draw, "HTTP framings": http_framings.draw}


def main() -> int:
    parser = argparse.ArgumentParser(
        prog="python -m tests.fuzz",
        description="Compare the server with Python, and send it what is not HTTP, at length.",
    )
    parser.add_argument("--seconds", type=float, default=600, help="for all subjects together (default: %(default)s)")
    parser.add_argument("--seed", type=int, default=int(time.time()), help="the same seed tries the same cases")
    parser.add_argument("--only", metavar="TEXT", default="", help="subjects whose name contains this")
    options = parser.parse_args()
    subjects = [subject for subject in SUBJECTS if options.only in subject.name]
    kinds = [name for name in SENT if options.only in name]
    if not subjects and not kinds:
        names = [*(subject.name for subject in SUBJECTS), *SENT]
        parser.error(f"no subject is called like that: {', '.join(names)}")
    share = options.seconds / (len(subjects) + len(kinds))
    print(f"Python {sys.version.split()[0]}, --seed {options.seed}", flush=True)
    reports = []
    for subject in subjects:
        reports.append(_run(subject, options.seed, share))
        print(reports[-1], flush=True)
    differing = sum(report.differing for report in reports)
    print(f"{sum(report.cases for report in reports)} cases, {differing} differences", flush=True)
    failures = sum(_send(name, options.seed, share) for name in kinds)
    return 1 if differing or failures else 0


def _run(subject: Subject, seed: int, seconds: float) -> campaign.Report:
    # Without this level, log records about results that cannot be rendered would fill the disk.
    environment = {**subject.environment, "AZUREML_LOG_LEVEL": "CRITICAL"}
    with tempfile.TemporaryDirectory() as folder:
        server = Server(Path(folder), str(SCRIPTS / subject.script), **environment)
        try:
            server.wait_until_ready()
            workers = server.workers()
            with campaign.Client(server.port) as client:
                report = campaign.run(subject, client, seed, seconds=seconds)
            assert server.workers() == workers, f"workers {workers} became {server.workers()}"
        finally:
            server.stop()
    return report


def _send(name: str, seed: int, seconds: float) -> int:
    with tempfile.TemporaryDirectory() as folder:
        server = Server(Path(folder), http_surface.SCRIPT, *http_surface.OPTIONS, AZUREML_LOG_LEVEL="ERROR")
        try:
            report = http_surface.run(server.wait_until_ready(), seed, seconds=seconds, draw=SENT[name], name=name)
        finally:
            server.stop()
    print(report, flush=True)
    return len(report.failures) + len(report.mixed_up)


if __name__ == "__main__":
    sys.exit(main())
