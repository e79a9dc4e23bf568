"""benchmarks: the clients, against a server that answers at once and says how long it worked."""

from __future__ import annotations

import http.server
import itertools
import shutil
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from benchmarks import load
from benchmarks.load import Request
from benchmarks.queueing import Arrival


class Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    numbers = itertools.count()

    def do_POST(self) -> None:
        self.rfile.read(int(self.headers["Content-Length"]))
        # 7, 8, 9, 7, ...: the median is 8, whichever comes last.
        body = b'{"other": 1, "slept_ms": %d.5}' % (7 + next(self.numbers) % 3)
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def port() -> Iterator[int]:
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield server.server_address[1]
        server.shutdown()
        thread.join()


def test_open_loop_tells_when_each_was_sent_and_how_long_its_run_took(port: int) -> None:
    due = [Arrival(0.1, 20), Arrival(0, 20), Arrival(0.05, 200)]
    served = load.open_loop(port, due)
    assert len(served) == 3
    # A client never sends early. The order of sending shows in the times.
    assert all(request.arrival.at >= at for request, at in zip(served, [0, 0.05, 0.1]))
    assert [request.arrival.at for request in served] == sorted(request.arrival.at for request in served)
    assert sorted(request.arrival.ms for request in served) == [7.5, 8.5, 9.5]
    assert all(0 < request.seconds < load.PATIENCE for request in served)


@pytest.mark.skipif(shutil.which("wrk") is None, reason="wrk is not installed")
@pytest.mark.parametrize(("tell", "told"), [("slept_ms", 8.5), ("other", 1), (None, 0)])
def test_wrk_tells_the_median_of_a_number_in_the_answers(
    port: int, tmp_path: Path, tell: str | None, told: float
) -> None:
    body = tmp_path / "body"
    body.write_text('{"ms": 10}')
    outcome = load.wrk(port, Request(body), connections=1, seconds=1, tell=tell)
    assert outcome.requests > 0
    assert outcome.told == told
