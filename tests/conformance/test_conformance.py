"""Tests of the conformance suite itself: the rules of its data, how it normalises and how it
compares.

They need no server. `make conform` runs the cases. Requires Python 3.11 (tomllib).
"""

from __future__ import annotations

import fnmatch
import os
import subprocess
import sys
from pathlib import Path

import pytest

if sys.version_info < (3, 11):
    pytest.skip("the conformance suite reads TOML with tomllib, new in Python 3.11", allow_module_level=True)

from conformance import cases, compare, normalise, report, runner
from conformance.client import Reply
from conformance.server import ServerProblem, WarmStart, clean_environment, environment

CASES = cases.load()
ENTRIES = compare.load(runner.KNOWN)
CHECKS = [f"{case.id}/{name}" for case in CASES for name in case.comparison_names]


def test_every_section_of_the_contract_has_cases() -> None:
    assert {case.section for case in CASES} == set(report.SECTIONS)


def test_entries_name_checks_that_exist() -> None:
    unknown = [pattern for entry in ENTRIES for pattern in entry.checks if not fnmatch.filter(CHECKS, pattern)]
    assert not unknown


def test_compatibility_page_is_up_to_date() -> None:
    assert runner.PAGE.read_text("utf-8") == runner.page_text()


def test_case_with_an_unknown_key_is_refused(tmp_path: Path) -> None:
    (tmp_path / "x.toml").write_text('section = "5"\n[[case]]\nid = "a"\nscripts = ""\n')
    with pytest.raises(ValueError, match=r"x\.toml: unknown key 'scripts'"):
        cases.load(tmp_path)


def test_request_text() -> None:
    check = cases.Check("x", {"post": "é{{a*3}}", "type": "a/b", "headers": ["X: {port}"]})
    head = b"POST /score HTTP/1.1\r\nHost: 127.0.0.1:80\r\nContent-Type: a/b\r\nContent-Length: 5\r\nX: 80\r\n\r\n"
    assert check.request(80, "/d") == head + "éaaa".encode()
    raw = cases.Check("y", {"raw": "GET / HTTP/1.1\nHost: x\n\nbody\n"})
    assert raw.request(80, "/d") == b"GET / HTTP/1.1\r\nHost: x\r\n\r\nbody\n"


def context() -> normalise.Context:
    return normalise.Context("/t/app", "/v", 4001, 4002)


def test_reply_is_normalised() -> None:
    uuid = "9505ed95-633c-4c0a-9374-54255aca74c9"
    reply = Reply(
        "reply",
        "HTTP/1.1",
        "200",
        [("Date", "x"), ("X-Request-Id", uuid), ("x-ms-request-id", uuid), ("Content-Length", "9"), ("Allow", "B, A")],
        b"/t/app/x\n",
    )
    assert normalise.reply_facets([reply], context(), descriptions=False, chunks=False) == {
        "outcome": "reply",
        "version": "HTTP/1.1",
        "status": "200",
        "header:x-request-id": "«uuid 1»",
        "header:x-ms-request-id": "«uuid 1»",
        "header:content-length": "«length of the body»",
        "header:allow": "A, B",
        "body": "«dir»/x\n",
    }


def test_log_is_normalised() -> None:
    text = """\
2026-11-22 13:30:25,853 E [22927] azmlinfsrv - Encountered Exception: Traceback (most recent call last):
  File "/v/lib/azureml_inference_server_http/server/user_script.py", line 132, in invoke_run
    hidden()
    ^^^^^^^^
  File "/t/app/score.py", line 3, in run
    raise ValueError
ValueError
2026-11-22 13:30:25,858 I [22927] azmlinfsrv - POST /score 500 8.688ms 92
2026-11-22 13:30:25,859 I [22927] gunicorn.access - 127.0.0.1 - - "POST /score HTTP/1.1" 500 92
2026-11-22 13:30:25,860 I [22927] azmlinfsrv - Worker with pid 22927 ready for serving traffic
"""
    assert normalise.log_lines(text, context()) == [
        'E azmlinfsrv - Encountered Exception:   File "«dir»/score.py", line 3, in run',
        "    raise ValueError",
        "ValueError",
        "I azmlinfsrv - POST /score 500 «ms» 92",
        "I azmlinfsrv - Worker with pid «pid» ready for serving traffic",
    ]


def entry(**fields: object) -> compare.Entry:
    return compare.Entry(**{"title": "t", "kind": "decided", "reason": "", "published": "", "here": "", **fields})


def test_difference_needs_an_entry() -> None:
    known = entry(checks=["a/*"], differs=["status"], expect={"status": "4.."})
    assert compare.differences("a/x", {"status": "200"}, {"status": "400"}, [known])[0].entry is known
    assert compare.differences("a/x", {"status": "200"}, {"status": "500"}, [known])[0].entry is None
    assert compare.differences("a/x", {"body": "1"}, {"body": "2"}, [known])[0].entry is None
    assert compare.differences("b/x", {"status": "200"}, {"status": "400"}, [known])[0].entry is None
    assert compare.differences("a/x", {"status": "200"}, {"status": "200"}, [known]) == []


def test_lines_of_an_entry_are_removed_from_logs() -> None:
    known = entry(checks=["a/*"], lines=["^extra"])
    assert compare.differences("a/x", {"log": "one"}, {"log": "one\nextra 1"}, [known])[0].entry is known
    found = compare.differences("a/x", {"log": "one"}, {"log": "two\nextra 1"}, [known])
    assert [difference.entry for difference in found] == [known, None]


def test_entry_without_a_difference_is_stale() -> None:
    known = entry(checks=["a/*"], differs=["status"])
    assert compare.stale([known], ["a/x"]) == ["t: a/* no longer differs"]
    assert compare.stale([known], ["b/x"]) == ["t: a/* matches no check"]
    compare.differences("a/x", {"status": "200"}, {"status": "400"}, [known])
    assert compare.stale([known], ["a/x"]) == []


def test_environment_says_what_is_missing(tmp_path: Path) -> None:
    with pytest.raises(ServerProblem, match="no azmlinfsrv beside"):
        environment(str(tmp_path / "python"))


def test_a_forked_server_is_like_one_that_was_started(tmp_path: Path) -> None:
    command = tmp_path / "command.py"
    command.write_text(
        "import os, sys, __main__\n"
        "print(sys.argv, sys.path[0], os.getcwd(), os.environ.get('ADDED'), os.environ.get('TMPDIR'))\n"
        "print(__name__, __file__, __main__.__file__, os.getsid(0) == os.getpid(), sys.stdin.read(), file=sys.stderr)\n"
        "sys.exit(7)\n"
    )
    words = [sys.executable, str(command), "--port", "1"]
    environment = {**clean_environment(sys.executable, tmp_path), "ADDED": "ä"}
    started = subprocess.run(
        words, cwd=tmp_path, env=environment, stdin=subprocess.DEVNULL, capture_output=True, start_new_session=True
    )
    with WarmStart(sys.executable, ["json", "json.no_such_module"]) as warm:
        outputs = [os.pipe(), os.pipe()]
        process = warm.start(words[1:], str(tmp_path), environment, *(writer for _, writer in outputs))
        for _, writer in outputs:
            os.close(writer)
        texts = []
        for reader, _ in outputs:
            with open(reader, "rb") as file:
                texts.append(file.read())
        code = process.wait(30)
    assert (code, *texts) == (started.returncode, started.stdout, started.stderr) == (7, texts[0], texts[1])
    assert b"True" in texts[1], texts


def test_a_log_is_compared_only_when_all_workers_are_ready() -> None:
    """A worker that starts later would write into the log of a request."""
    for case in CASES:
        count = case.env.get("WORKER_COUNT", "1")
        if "--worker_count" in case.args:
            count = case.args[case.args.index("--worker_count") + 1]
        if not case.exit and any(check.option("log", case.log) for check in case.checks):
            assert case.workers == int(count), case.id
