"""What a worker reports for the exporters, and how reports get to the front."""

from __future__ import annotations

import json
import logging
import socket
import sys
import types
from collections.abc import Iterator
from typing import Any

import pytest

from azureml_inference_server_http.launch.settings import RawSettings, load
from azureml_inference_server_http.scripting import telemetry
from azureml_inference_server_http.scripting.current_request import variable
from azureml_inference_server_http.scripting.telemetry import Channel, Reporter

REQUEST: Any = types.SimpleNamespace(
    request_id="r", client_request_id="c", trace_id="ab" * 16, span_id="cd" * 8, is_finished=False
)
KEY = "00000000-0000-4000-8000-00000000000b"


class Reports:
    """Takes reports, unless it is full."""

    def __init__(self) -> None:
        self.texts: list[bytes] = []
        self.is_full = False

    def __call__(self, report: bytes) -> bool:
        if self.is_full:
            return False
        self.texts.append(report)
        return True

    @property
    def found(self) -> list[dict[str, Any]]:
        return [json.loads(text) for text in self.texts]


@pytest.fixture
def reports() -> Reports:
    return Reports()


@pytest.fixture
def reporter(reports: Reports, tmp_path: Any) -> Iterator[Reporter]:
    environment = {"AML_APP_INSIGHTS_KEY": KEY, "AML_APP_INSIGHTS_ENABLED": "true", "AML_MDC_STORAGE_ENABLED": "true"}
    settings = load(RawSettings({}, {**environment, "SERVICE_NAME": "s"}, str(tmp_path)))
    reporter = Reporter(settings, reports, takes_children=True)
    reporter.install()
    yield reporter
    for name in (telemetry.PRINT_LOGGER, telemetry.TRACE_LOGGER):
        logger = logging.getLogger(name)
        logger.handlers[:] = [handler for handler in logger.handlers if not isinstance(handler, telemetry.Handler)]


def _log(*arguments: Any, level: int = logging.ERROR, **options: Any) -> None:
    logging.getLogger(telemetry.TRACE_LOGGER).log(level, *arguments, **options)


@pytest.mark.usefixtures("reporter")
def test_a_record_is_reported_once_however_often_it_is_installed(reporter: Reporter, reports: Reports) -> None:
    reporter.install()
    _log("hello %s", "you", extra={"a": [1], "b": None, "k" * 151: 1})
    [found] = reports.found
    assert (found["message"], found["level"], found["logger"]) == ("hello you", 40, "azmlinfsrv.trace")
    names = [name for name, _ in found["properties"]]
    assert names == ["a", "code.file.path", "code.function.name", "code.line.number"]
    assert found["properties"][0] == ["a", "(1,)"]
    assert found["trace"] == found["span"] == ""


def test_custom_dimensions_are_properties_too(reporter: Reporter, reports: Reports) -> None:
    _log("x", extra={"custom_dimensions": {"stage": 1}})
    properties = reports.found[0]["properties"]
    assert (properties[0], properties[-1]) == (["custom_dimensions", "{'stage': 1}"], ["stage", "1"])


def test_records_belong_to_the_request_of_their_thread(reporter: Reporter, reports: Reports) -> None:
    token = variable.set(REQUEST)
    _log("during")
    reporter.exception(RuntimeError("outer"), ValueError("inner"), "stack")
    variable.reset(token)
    _log("after")
    during, exception, after = reports.found
    assert (during["trace"], during["span"]) == ("ab" * 16, "cd" * 8)
    assert exception["exception"] == {"type": "RuntimeError", "message": "ValueError: inner", "stack": "stack"}
    assert dict(exception["properties"])["Request Id"] == "r"
    assert after["trace"] == ""


def test_an_active_span_of_the_script_counts_more(
    reporter: Reporter, reports: Reports, monkeypatch: pytest.MonkeyPatch
) -> None:
    context = types.SimpleNamespace(trace_id=1, span_id=2, is_valid=True)
    span = types.SimpleNamespace(get_span_context=lambda: context)
    monkeypatch.setitem(sys.modules, "opentelemetry.trace", types.SimpleNamespace(get_current_span=lambda: span))
    _log("x")
    context.is_valid = False
    _log("x")
    monkeypatch.setitem(sys.modules, "opentelemetry.trace", types.SimpleNamespace())
    _log("x")
    assert [found["trace"] for found in reports.found] == [f"{1:032x}", "", ""]


def test_lost_reports_are_told_with_the_next(reporter: Reporter, reports: Reports) -> None:
    reports.is_full = True
    _log("lost")
    _log("lost")
    reports.is_full = False
    _log("sent")
    _log("sent")
    assert [found["lost"] for found in reports.found] == [2, 0]


def test_strange_records_do_no_harm(reporter: Reporter, reports: Reports, monkeypatch: pytest.MonkeyPatch) -> None:
    # pytest would keep the text for its own report, which its parallel processes cannot send: it has no form in UTF-8.
    monkeypatch.setattr(logging.getLogger(telemetry.TRACE_LOGGER), "propagate", False)

    class Mute:
        def __str__(self) -> str:
            raise RuntimeError

    _log("\ud800", extra={"mute": Mute()})
    _log(["not", {1, 2}])
    assert reports.found[0]["message"] == "?"
    assert reports.found[0]["properties"][0] == ["mute", "<no text: RuntimeError>"]
    assert reports.found[1]["message"] == "['not', {1, 2}]"


def test_a_report_fits_into_one_message(reporter: Reporter, reports: Reports) -> None:
    text = "\N{GRINNING FACE}" * 40_000
    try:
        raise ValueError(text)
    except ValueError:
        _log(text, exc_info=True, extra={f"p{number}": text for number in range(50)})
    assert len(reports.texts[0]) <= telemetry.MAX_REPORT
    assert reports.found[0]["exception"]["message"].startswith("\N{GRINNING FACE}")


def test_model_data(reporter: Reporter, reports: Reports) -> None:
    token = variable.set(REQUEST)
    reporter.model_data("in", [1])
    reporter.model_data("in", object())
    variable.reset(token)
    data, fault = reports.found
    properties = dict(data["properties"])
    assert data["message"] == "model_data_collection"
    assert list(properties) == [
        "custom_dimensions",
        *("Container Id", "Request Id", "Client Request Id", "Workspace Name", "Service Name", "Models"),
        *("Input", "Prediction"),
    ]
    assert (properties["Input"], properties["Prediction"]) == ('"in"', "[1]")
    assert fault["exception"]["type"] == "TypeError"


def test_model_ids(tmp_path: Any) -> None:
    for version in ("m/1", "m/2"):
        (tmp_path / version).mkdir(parents=True)
    assert sorted(telemetry.model_ids(str(tmp_path))) == ["m:1", "m:2"]
    assert list(telemetry.model_ids(str(tmp_path / "m" / "2"))) == ["m:2"]
    assert list(telemetry.model_ids("")) == list(telemetry.model_ids(str(tmp_path / "none"))) == []


def test_a_slow_front_costs_one_wait_and_then_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    waits: list[int] = []

    class Poll:
        def register(self, *_: object) -> None:
            pass

        def poll(self, milliseconds: int) -> None:
            waits.append(milliseconds)

    monkeypatch.setattr(telemetry, "_poll", Poll)
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)
    with ours, theirs:
        ours.setblocking(False)
        channel = Channel(ours.fileno())
        sent = 0
        while channel(b"x" * 1000):
            sent += 1
        assert waits == [telemetry.PATIENCE_MS]
        assert not channel(b"x" * 1000)
        assert waits == [telemetry.PATIENCE_MS]
        for _ in range(sent):
            theirs.recv(2000)
        assert channel(b"x")
        while channel(b"x" * 1000):
            pass
        assert waits == [telemetry.PATIENCE_MS] * 2


def test_a_closed_channel_drops_reports() -> None:
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)
    theirs.close()
    with ours:
        assert not Channel(ours.fileno())(b"x")
    assert not Channel(10**6)(b"x")
