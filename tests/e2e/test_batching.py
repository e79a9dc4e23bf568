"""Requests that one call of run() answers together: each gets the answer that it gets alone."""

from __future__ import annotations

import json
import random
import re
from pathlib import Path

import pytest
from harness import eventually, request
from held import Held

any_worker_class = pytest.mark.any_worker_class
WAIT, FAIL, DIE, SLOW = 1001, 1002, 1003, 1004
JSON = {"content_type": "application/json"}
SCRIPTS = str(Path(__file__).resolve().parents[1] / "scripts")
OPTIONS = ("rows.py", "--max_batch_size", "8")


def body(*first, **more):
    """A request whose rows begin with these values."""
    return json.dumps({"data": [[value, 2] for value in first], **more})


def ask_later(server, *first, **more):
    return server.score_later(body(*first, **more), **JSON)


def calls(server):
    """The rows of each call of run() so far."""
    return [int(count) for count in re.findall(r"run\(\) got (\d+) rows", server.output())]


def hold(server):
    return Held(server, body(WAIT))


@any_worker_class
def test_joint_answers_are_the_single_answers(shared):
    """Random requests at once, and then one after the other."""
    server, chance = shared(*OPTIONS), random.Random(5)
    bodies = [body(*(chance.uniform(-9, 9) for _ in range(chance.randint(1, 3)))) for _ in range(60)]
    held = hold(server)
    asked = [server.score_later(each, **JSON) for each in bodies]
    held.queued(60)
    held.go()
    together = [each.result() for each in asked]
    assert len(calls(server)) < 60, "requests have shared calls"
    alone = [server.score(each, **JSON) for each in bodies]
    assert [(each.status, each.body) for each in together] == [(each.status, each.body) for each in alone]
    assert all(float(each["x-ms-run-fn-exec-ms"]) > 0 for each in together)


@any_worker_class
def test_the_sizes_of_calls_are_in_the_metrics(start):
    """Each request has one row, so the rows of a call are its requests."""
    server = start(*OPTIONS)
    assert "azmlinfsrv_run_batch_size_count" not in server.get("/metrics").text
    held = hold(server)
    asked = [ask_later(server, value) for value in range(9)]
    held.queued(9)
    held.go()
    assert [each.result().status for each in asked] == [200] * 9
    sizes = calls(server)
    assert max(sizes) > 1
    for line in (f"count {len(sizes)}", f"sum {sum(sizes)}", f'bucket{{le="1"}} {sizes.count(1)}'):
        assert f"azmlinfsrv_run_batch_size_{line}\n" in server.get("/metrics").text


@any_worker_class
def test_only_the_guilty_fail(shared):
    server = shared(*OPTIONS)
    held = hold(server)
    values = [1, FAIL, 3, 4]
    asked = [ask_later(server, value) for value in values]
    wrong = server.score_later(b'{"data": "text"}', **JSON)
    held.queued(5)
    held.go()
    assert [each.result().status for each in asked] == [200, 500, 200, 200]
    assert asked[1].result()["x-ms-run-error-location"].endswith("ValueError")
    assert wrong.result().status == 500


@any_worker_class
def test_a_client_that_leaves_before_the_call_is_left_out(shared):
    server = shared(*OPTIONS)
    held = hold(server)
    before = len(calls(server))
    connection = server.connect().send(
        request("POST", "/score?left", body(7, 7, 7, 7, 7).encode(), {"content-type": "application/json"})
    )
    stays = ask_later(server, 1)
    held.queued(2)
    connection.close()
    held.queued(1)
    held.go()
    assert stays.result().json()["sum"] == [3.0]
    assert calls(server)[before:] == [1]


@any_worker_class
def test_a_result_that_cannot_be_split_is_told_once(start):
    server = start(*OPTIONS)
    held = hold(server)
    # A new worker joins two requests at most, and five results in a row have to be of no use.
    asked = [ask_later(server, value, kind="mean") for value in range(12)]
    held.queued(12)
    held.go()
    assert [each.result().json() for each in asked] == [{"mean": (value + 2) / 2} for value in range(12)]
    server.wait_for_record("Each request gets a call of its own from now on", level="W")
    assert server.output().count("which has no rows") == 1


@any_worker_class
def test_a_script_whose_rows_depend_on_each_other_never_gives_a_wrong_answer(start):
    """The first joint calls fail, and those after them are of equal requests: neither proves anything."""
    server = start(*OPTIONS)
    held = hold(server)
    values = [1, FAIL, 5, FAIL, 7, 7, 7, 7, 1, 5, 9, 13]
    asked = []
    for value in values:
        asked.append(ask_later(server, value, kind="centred"))
        held.queued(len(asked))
    held.go()
    for value, each in zip(values, asked):
        centred = [[(value - 2) / 2, (2 - value) / 2]]
        assert each.result().status == 500 if value == FAIL else each.result().json() == centred
    server.wait_for_record("something else for a request alone", level="W")


@any_worker_class
def test_a_batch_goes_on_after_joint_calls_have_ended(start):
    """A batch of two kinds: the joint call of the first kind proves that calls cannot be joined."""
    server = start(*OPTIONS)
    held = hold(server)
    asked = []
    # Two calls of two requests are checked, the next one is not, so that four may share the batch after it.
    for value, kind in zip(range(10), [*["plain"] * 6, "centred", "centred", "plain", "plain"]):
        asked.append(ask_later(server, value, kind=kind))
        held.queued(len(asked))
    held.go()
    answers = [each.result().json() for each in asked]
    plain = [*range(6), 8, 9]
    assert [answers[place]["sum"] for place in plain] == [[place + 2.0] for place in plain]
    assert [answers[place] for place in (6, 7)] == [[[2.0, -2.0]], [[2.5, -2.5]]]
    assert calls(server) == [1, *[2, 1, 1] * 2, 2, *[2, 1, 1], 1, 1]
    server.wait_for_record("something else for a request alone", level="W")


@any_worker_class
def test_one_request_of_some_calls_is_checked(start):
    """After the calls that are checked in full, every second one has a sample here. The last one finds an answer that
    depends on the other requests: then none of them gets its part."""
    server = start("sampled_rows.py", "--max_batch_size", "2")
    held = hold(server)
    asked = []
    for value in (1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 200, 300):
        asked.append(server.score_later(json.dumps({"data": [[value, value]]}), **JSON))
        held.queued(len(asked))
    held.go()
    answers = [each.result().json() for each in asked]
    assert answers == [*([[value, value]] for value in range(1, 11)), *[[[0.0, 0.0]]] * 2]
    assert calls(server) == [1, *[2, 1, 1] * 2, 2, *[2, 1], 2, *[2, 1, 1]]
    server.wait_for_record("something else for a request alone", level="W")


@any_worker_class
def test_a_request_that_is_checked_is_one_request(start):
    """Its model data is exported once, its errors have its id, and ``current_request`` stays the same until its reply,
    however many calls it takes."""
    nowhere = "InstrumentationKey=00000000-0000-0000-0000-000000000001;IngestionEndpoint=http://127.0.0.1:9/"
    server = start(
        *OPTIONS,
        "--log_format",
        "json",
        APPLICATIONINSIGHTS_CONNECTION_STRING=nowhere,
        AML_APP_INSIGHTS_ENABLED="true",
        AML_MDC_STORAGE_ENABLED="true",
    )
    held = hold(server)
    asked = []
    for value in (1, 2, 3, FAIL):
        asked.append(ask_later(server, value))
        held.queued(len(asked))
    wrong = server.score_later(b"\xff", **JSON)
    held.queued(5)
    asked.append(ask_later(server, 6))
    held.queued(6)
    held.go()
    assert [each.result().status for each in asked] == [200, 200, 200, 500, 200]
    assert wrong.result().status >= 400
    lines = [json.loads(line) for line in server.output().splitlines() if line.startswith("{")]
    # The array in the model data has no form in JSON, so that each export is told.
    assert sum("Error logging to Application Insights" in line["message"] for line in lines) == 1 + 4
    assert sum(wrong.result()["x-request-id"] in line.values() for line in lines if line["level"] == "ERROR") == 1
    assert "a request has two objects" not in server.output()


def test_all_requests_of_a_lost_worker_are_told_and_the_others_go_on(start):
    server = start(*OPTIONS)
    held = hold(server)
    # A new worker joins two requests at most.
    asked = [ask_later(server, DIE)]
    held.queued(1)
    asked.append(ask_later(server, 5))
    held.queued(2)
    asked.append(ask_later(server, 6))
    held.queued(3)
    held.go()
    assert [each.result().status for each in asked] == [500, 500, 200]
    assert all("SIGKILL" in each.result().text for each in asked[:2])


@any_worker_class
def test_each_call_has_the_whole_time_limit(start):
    """A joint call takes too long, and a call for each request does not."""
    server = start(*OPTIONS, SCORING_TIMEOUT_MS="1200")
    asked = [ask_later(server, SLOW) for _ in range(3)]
    assert [each.result().status for each in asked] == [200] * 3


SLOW_TO_JOIN = """
import time
import rows
from azureml_inference_server_http.scripting.batching import JoinedRows

def init():
    def slow(function):
        def after_a_while(*args):
            time.sleep(2.4)
            return function(*args)
        return after_a_while

    JoinedRows.convert, JoinedRows.join = slow(JoinedRows.convert), slow(JoinedRows.join)

@rows.input_schema("data", rows.NumpyParameterType(rows.np.array([[1.0, 2.0]])))
def run(data):
    print(f"run() got {len(data)} rows")
    time.sleep(60 if len(data) > 1 else 0)
    return data.tolist()
"""


def test_reading_large_inputs_is_no_part_of_the_time_limit(start, script):
    """The front kills a worker two seconds after the limit. The conversions of two inputs take longer together, as do
    joining them and the joint call. No step takes longer alone."""
    options = ("--max_batch_size", "2", "--batch_wait_ms", "250")
    server = start(script(SLOW_TO_JOIN), *options, PYTHONPATH=SCRIPTS, SCORING_TIMEOUT_MS="2000")

    def share_a_call():
        asked = [ask_later(server, value) for value in (1, 2)]
        assert [each.result().status for each in asked] == [200, 200]
        return 2 in calls(server)

    eventually(share_a_call, "two requests share a call")


@any_worker_class
def test_a_request_waits_for_others_if_it_may(start):
    server = start("rows.py", "--max_batch_size", "2", "--batch_wait_ms", "250")

    def share_a_call():
        asked = [ask_later(server, value) for value in (1, 2)]
        assert [each.result().status for each in asked] == [200, 200]
        return 2 in calls(server)

    eventually(share_a_call, "two requests share a call")


@any_worker_class
def test_a_run_that_asks_for_batches(start):
    server = start("batched.py")
    held = Held(server, "wait")
    asked = [server.score_later(text) for text in ("a", "raise", "c", "d")]
    held.queued(4)
    held.go()
    assert [each.result().status for each in asked] == [200, 500, 200, 200]
    assert [asked[place].result().json() for place in (0, 2, 3)] == ["A", "C", "D"]
    assert asked[1].result()["x-ms-run-error-location"].endswith("KeyError")
    assert calls(server) == [1, 4]
    assert server.score("fail").status == 500


def test_an_async_run_that_asks_for_batches(start):
    server = start("async_batched.py")

    def share_a_call():
        asked = [server.score_later(text) for text in ("a", "raise", "c", "d")]
        assert [each.result().status for each in asked] == [200, 500, 200, 200]
        return any(count > 1 for count in calls(server))

    eventually(share_a_call, "requests share a call")
    assert server.wait_for_record("One call of run() answers up to")
    made = calls(server)
    metrics = server.get("/metrics").text
    assert f"azmlinfsrv_run_batch_size_count {len(made)}\n" in metrics
    assert f"azmlinfsrv_run_batch_size_sum {sum(made)}\n" in metrics


RAW = """
from azureml_inference_server_http.api import batched
from azureml_inference_server_http.api.aml_request import rawhttp
from azureml_inference_server_http.api.aml_response import AMLResponse
def init(): pass
@rawhttp
@batched(max_size=4, max_wait_ms=50)
async def run(requests):
    return [AMLResponse(request.headers["X-Name"], 200) for request in requests]
"""
FLASK = """
import flask
from azureml_inference_server_http.api import batched
from azureml_inference_server_http.api.aml_response import AMLResponse
def init(): pass
@batched(max_size=4, max_wait_ms=50)
async def run(texts):
    print(f"run() got {len(texts)} rows")
    return [AMLResponse(flask.request.headers["X-Name"], 200) for _ in texts]
"""


@pytest.mark.parametrize("text", [RAW, FLASK], ids=["raw", "flask"])
def test_requests_that_share_a_call_of_an_async_run_never_see_the_request_of_another_one(start, tmp_path, text):
    """Their arguments with @rawhttp, and flask.request otherwise, are what the request context of the call says."""
    (tmp_path / "score.py").write_text(text)
    server = start(str(tmp_path / "score.py"))
    for _ in range(3):
        asked = [server.score_later("text", x_name=name) for name in "abcd"]
        assert [each.result().body for each in asked] == [b"a", b"b", b"c", b"d"]
    if text is RAW:
        assert server.wait_for_record("@batched has no effect, and run() gets lists of one input", level="W")
    else:
        assert 1 in calls(server)


def test_only_the_guilty_request_exceeds_the_time_limit_of_an_async_run(start):
    server = start("async_batched.py", SCORING_TIMEOUT_MS="2000")

    def share_a_call():
        asked = [server.score_later(text) for text in ("a", "hang", "c")]
        assert [each.result().status for each in asked] == [200, 500, 200]
        assert "Scoring timeout" in asked[1].result().text
        return 3 in calls(server)

    eventually(share_a_call, "requests share a call")


# docs/batching.md

PAGE = (Path(__file__).resolve().parents[2] / "docs" / "batching.md").read_text("utf-8")
FILES = dict(re.findall(r"^<!-- file: (\S+) -->\n```python\n(.*?)^```$", PAGE, re.MULTILINE | re.DOTALL))


def test_the_scripts_of_the_page_are_served(start, script):
    assert set(FILES) == {"score.py", "batched.py"}
    server = start(script(FILES["score.py"]), "--max_batch_size", "32")
    assert server.score(body(1, 3), **JSON).json() == [[3.0], [5.0]]
    assert "answers up to 32 waiting requests" in server.output()
    server = start(script(FILES["batched.py"]))
    assert server.score('{"name": "you"}').json() == {"hello": "you"}
    assert server.score("{}").status == 500
