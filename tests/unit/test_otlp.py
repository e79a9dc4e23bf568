"""What the variables of OpenTelemetry say."""

from __future__ import annotations

import pytest

from azureml_inference_server_http.launch.otlp import OFF, Otlp, Target, resolve
from azureml_inference_server_http.launch.settings_table import OTEL_VARIABLES, OTEL_WITHOUT_EFFECT

PLAIN = Target("http://localhost:4318/v1/traces", (), 10000, False, None, None, None)


def resolved(**environment: str) -> tuple[Otlp, list[str]]:
    return resolve({f"OTEL_{name}": value for name, value in environment.items()}, "the service")


def test_nothing_is_sent_unless_something_says_so() -> None:
    assert resolved() == (OFF, [])
    assert resolved(EXPORTER_OTLP_ENDPOINT="", EXPORTER_OTLP_TIMEOUT="5", TRACES_SAMPLER="junk") == (OFF, [])
    none = {"TRACES_EXPORTER": "none", "LOGS_EXPORTER": "NONE", "METRICS_EXPORTER": "none"}
    assert resolved(EXPORTER_OTLP_ENDPOINT="http://a", **none) == (OFF, [])
    assert resolved(EXPORTER_OTLP_ENDPOINT="http://a", **{**none, "METRICS_EXPORTER": "prometheus"}) == (OFF, [])


def test_the_endpoint_for_all_signals_gets_their_paths_and_that_of_a_signal_does_not() -> None:
    otlp, notices = resolved(EXPORTER_OTLP_ENDPOINT="http://a/b/", EXPORTER_OTLP_LOGS_ENDPOINT="https://c/d")
    assert otlp.traces is not None
    assert otlp.logs is not None
    assert (otlp.traces.url, otlp.logs.url, notices) == ("http://a/b/v1/traces", "https://c/d", [])
    assert otlp.metrics is not None
    assert otlp.metrics.url == "http://a/b/v1/metrics"
    assert resolved(TRACES_EXPORTER="otlp")[0].traces == PLAIN
    assert resolved(TRACES_EXPORTER="otlp")[0].logs is None


def test_options_of_a_signal_count_more() -> None:
    otlp, notices = resolved(
        EXPORTER_OTLP_ENDPOINT="http://a",
        EXPORTER_OTLP_HEADERS="a=1, b=%20x%2C",
        EXPORTER_OTLP_TRACES_HEADERS="c=2",
        EXPORTER_OTLP_COMPRESSION="gzip",
        EXPORTER_OTLP_LOGS_COMPRESSION="none",
        EXPORTER_OTLP_TIMEOUT="5",
        EXPORTER_OTLP_CERTIFICATE="ca.pem",
        EXPORTER_OTLP_CLIENT_CERTIFICATE="me.pem",
        EXPORTER_OTLP_CLIENT_KEY="key.pem",
    )
    files = ("ca.pem", "me.pem", "key.pem")
    assert otlp.traces == Target("http://a/v1/traces", (("c", "2"),), 5, True, *files)
    assert otlp.logs == Target("http://a/v1/logs", (("a", "1"), ("b", " x,")), 5, False, *files)
    assert notices == []


@pytest.mark.parametrize(
    ("sampler", "argument", "expected"),
    [
        ("", "", (True, 1.0)),
        ("always_on", "", (False, 1.0)),
        ("always_off", "0.5", (False, 0.0)),
        ("traceidratio", "0.25", (False, 0.25)),
        ("parentbased_traceidratio", ".1", (True, 0.1)),
        ("parentbased_traceidratio", "", (True, 1.0)),
        ("parentbased_always_off", "", (True, 0.0)),
    ],
)
def test_samplers(sampler: str, argument: str, expected: tuple[bool, float]) -> None:
    otlp, notices = resolved(EXPORTER_OTLP_ENDPOINT="http://a", TRACES_SAMPLER=sampler, TRACES_SAMPLER_ARG=argument)
    assert (otlp.follows_parent, otlp.share) == expected
    assert notices == []


def resource(**environment: str) -> dict[str, str]:
    return dict(resolved(EXPORTER_OTLP_ENDPOINT="http://a", **environment)[0].resource)


def test_the_resource() -> None:
    given = "service.instance.id=i,"
    expected = {"service.name": "x", "service.instance.id": "i", "a": "é"}
    assert resource(RESOURCE_ATTRIBUTES=f"{given}service.name=x, a=%C3%A9") == expected
    expected = {"service.name": "y", "service.instance.id": "i"}
    assert resource(RESOURCE_ATTRIBUTES=f"{given}service.name=x", SERVICE_NAME="y") == expected
    servers = [resource() for _ in range(2)]
    assert {each["service.name"] for each in servers} == {"the service"}
    assert len({each["service.instance.id"] for each in servers}) == 2


def test_how_metrics_are_sent() -> None:
    otlp, notices = resolved(EXPORTER_OTLP_METRICS_ENDPOINT="http://a/m")
    assert otlp.metrics == PLAIN._replace(url="http://a/m")
    assert (otlp.traces, otlp.metrics_interval_ms, otlp.is_delta) == (None, 60_000, False)
    otlp, more = resolved(
        METRICS_EXPORTER="otlp",
        METRIC_EXPORT_INTERVAL="500",
        METRIC_EXPORT_TIMEOUT="400",
        EXPORTER_OTLP_METRICS_TEMPORALITY_PREFERENCE="Delta",
        EXPORTER_OTLP_METRICS_COMPRESSION="gzip",
    )
    assert otlp.metrics == Target("http://localhost:4318/v1/metrics", (), 400, True, None, None, None)
    assert (otlp.metrics_interval_ms, otlp.is_delta) == (500, True)
    assert notices == more == []


@pytest.mark.parametrize(
    ("name", "value", "said"),
    [
        ("EXPORTER_OTLP_ENDPOINT", "junk", "'junk' is not used: it must be a URL, so traces are not sent."),
        ("EXPORTER_OTLP_PROTOCOL", "grpc", "must be http/protobuf, so traces are not sent."),
        ("EXPORTER_OTLP_PROTOCOL", "http/json", "must be http/protobuf, which is used."),
        ("EXPORTER_OTLP_TIMEOUT", "soon", "a whole number of milliseconds"),
        ("EXPORTER_OTLP_TIMEOUT", "9" * 5000, "a whole number of milliseconds"),
        ("EXPORTER_OTLP_COMPRESSION", "zstd", "gzip or none"),
        ("EXPORTER_OTLP_HEADERS", "secret", "=*** is not used: it must be a list name=value"),
        ("EXPORTER_OTLP_HEADERS", "a b=secret", "=*** is not used"),
        ("EXPORTER_OTLP_HEADERS", "a=secret%0Ab", "=*** is not used"),
        ("TRACES_EXPORTER", "console", "must be otlp or none, so traces are not sent."),
        ("METRICS_EXPORTER", "console", "must be otlp, prometheus or none, so metrics are not sent."),
        ("METRIC_EXPORT_INTERVAL", "0", "a whole number of milliseconds, 1 or more"),
        ("EXPORTER_OTLP_METRICS_TEMPORALITY_PREFERENCE", "x", "cumulative, delta or lowmemory"),
        ("TRACES_SAMPLER", "sometimes", "one of always_on"),
        ("RESOURCE_ATTRIBUTES", "x", "a list name=value"),
        ("PROPAGATORS", "b3,tracecontext", "a list of tracecontext and baggage, or none"),
        ("BSP_MAX_QUEUE_SIZE", "0", "a whole number, 1 or more"),
        ("BLRP_SCHEDULE_DELAY", "x", "a whole number of milliseconds, 1 or more"),
        ("ATTRIBUTE_COUNT_LIMIT", "-1", "a whole number, 0 or more"),
    ],
)
def test_a_value_that_cannot_be_used_is_named(name: str, value: str, said: str) -> None:
    _, notices = resolved(**{"EXPORTER_OTLP_ENDPOINT": "http://a", name: value})
    assert notices
    assert notices[0].startswith(f"OTEL_{name}=")
    assert said in notices[0]
    assert "secret" not in "".join(notices)


def test_a_certificate_and_its_key_belong_together() -> None:
    none = {"LOGS_EXPORTER": "none", "METRICS_EXPORTER": "none", "EXPORTER_OTLP_ENDPOINT": "http://a"}
    certificate, key = "OTEL_EXPORTER_OTLP_TRACES_CLIENT_CERTIFICATE", "OTEL_EXPORTER_OTLP_CLIENT_KEY"
    assert resolved(**none, EXPORTER_OTLP_TRACES_CLIENT_CERTIFICATE="me.pem", EXPORTER_OTLP_CLIENT_KEY="k")[1] == []
    assert resolved(**none, EXPORTER_OTLP_TRACES_CLIENT_CERTIFICATE="me.pem")[1] == [
        f"{certificate} has no effect without {key}."
    ]
    assert resolved(**none, EXPORTER_OTLP_CLIENT_KEY="k")[1] == [
        f"{key} has no effect without {certificate.replace('TRACES_', '')}."
    ]


def test_a_number_may_begin_with_zeros() -> None:
    traces = resolved(EXPORTER_OTLP_ENDPOINT="http://a", EXPORTER_OTLP_TIMEOUT="0" * 30 + "7")[0].traces
    assert traces is not None
    assert traces.timeout_ms == 7


def test_a_share_that_is_none_is_named() -> None:
    for value in ("2", "-1", "x", "nan"):
        _, [notice] = resolved(
            EXPORTER_OTLP_ENDPOINT="http://a", TRACES_SAMPLER="traceidratio", TRACES_SAMPLER_ARG=value
        )
        assert notice == f"OTEL_TRACES_SAMPLER_ARG={value!r} is not used: it must be a number from 0 to 1."


def test_limits_for_what_waits_and_what_is_sent_at_once() -> None:
    otlp, notices = resolved(
        EXPORTER_OTLP_ENDPOINT="http://a",
        BSP_EXPORT_TIMEOUT="700",
        BSP_MAX_EXPORT_BATCH_SIZE="10",
        BSP_MAX_QUEUE_SIZE="20",
        BLRP_MAX_QUEUE_SIZE="30",
        BLRP_SCHEDULE_DELAY="40",
        ATTRIBUTE_COUNT_LIMIT="0",
        LOGRECORD_ATTRIBUTE_COUNT_LIMIT="5",
        SPAN_ATTRIBUTE_VALUE_LENGTH_LIMIT="6",
    )
    spans = PLAIN._replace(url="http://a/v1/traces", timeout_ms=700, batch_items=10, queue_items=20)
    assert otlp.traces == spans._replace(attribute_count=0, attribute_length=6)
    assert otlp.logs == PLAIN._replace(url="http://a/v1/logs", queue_items=30, attribute_count=5)
    assert (otlp.logs_delay_ms, notices) == (40, [])
    assert resolved(EXPORTER_OTLP_ENDPOINT="http://a")[0].logs_delay_ms is None


@pytest.mark.parametrize(
    ("propagators", "begins_own", "is_refused"),
    [
        ("", False, False),
        ("tracecontext", False, False),
        ("baggage, TraceContext", False, False),
        ("none", True, False),
        ("baggage", True, False),
        ("b3", True, True),
        ("b3,tracecontext", False, True),
    ],
)
def test_propagators(propagators: str, begins_own: bool, is_refused: bool) -> None:
    otlp, notices = resolved(EXPORTER_OTLP_ENDPOINT="http://a", PROPAGATORS=propagators)
    assert (otlp.begins_own_traces, bool(notices)) == (begins_own, is_refused)
    assert resolved(PROPAGATORS=propagators)[0].begins_own_traces == begins_own


def test_variables_that_mean_nothing_are_named_once_if_something_is_sent() -> None:
    given = {"SPAN_LINK_COUNT_LIMIT": "3", "METRICS_EXEMPLAR_FILTER": "always_on", "LOG_LEVEL": ""}
    _, notices = resolved(EXPORTER_OTLP_ENDPOINT="http://a", **given)
    assert notices == [
        "OTEL_SPAN_LINK_COUNT_LIMIT has no effect on the server: its spans have neither events nor links.",
        "OTEL_METRICS_EXEMPLAR_FILTER has no effect on the server: its metrics have no exemplars.",
    ]
    assert resolved(**given) == (OFF, [])
    assert not {variable.name for variable in OTEL_VARIABLES} & set(OTEL_WITHOUT_EFFECT)


def test_headers_never_show() -> None:
    otlp, _ = resolved(EXPORTER_OTLP_ENDPOINT="http://a", EXPORTER_OTLP_HEADERS="authorization=secret")
    assert "secret" not in repr(otlp)
