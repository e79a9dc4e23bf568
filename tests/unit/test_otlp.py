"""What the variables of OpenTelemetry say."""

from __future__ import annotations

import pytest

from azureml_inference_server_http.launch.otlp import OFF, Otlp, Target, resolve

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
        ("EXPORTER_OTLP_COMPRESSION", "zstd", "gzip or none"),
        ("EXPORTER_OTLP_HEADERS", "secret", "=*** is not used: it must be a list name=value"),
        ("EXPORTER_OTLP_HEADERS", "a b=secret", "=*** is not used"),
        ("EXPORTER_OTLP_HEADERS", "a=secret%0Ab", "=*** is not used"),
        ("TRACES_EXPORTER", "console", "otlp or none"),
        ("METRICS_EXPORTER", "console", "otlp, prometheus or none"),
        ("METRIC_EXPORT_INTERVAL", "0", "a whole number of milliseconds, 1 or more"),
        ("EXPORTER_OTLP_METRICS_TEMPORALITY_PREFERENCE", "x", "cumulative, delta or lowmemory"),
        ("TRACES_SAMPLER", "sometimes", "one of always_on"),
        ("RESOURCE_ATTRIBUTES", "x", "a list name=value"),
    ],
)
def test_a_value_that_cannot_be_used_is_named(name: str, value: str, said: str) -> None:
    _, notices = resolved(**{"EXPORTER_OTLP_ENDPOINT": "http://a", name: value})
    assert notices
    assert notices[0].startswith(f"OTEL_{name}=")
    assert said in notices[0]
    assert "secret" not in "".join(notices)


def test_a_share_that_is_none_is_named() -> None:
    for value in ("2", "-1", "x", "nan"):
        _, [notice] = resolved(
            EXPORTER_OTLP_ENDPOINT="http://a", TRACES_SAMPLER="traceidratio", TRACES_SAMPLER_ARG=value
        )
        assert notice == f"OTEL_TRACES_SAMPLER_ARG={value!r} is not used: it must be a number from 0 to 1."


def test_headers_never_show() -> None:
    otlp, _ = resolved(EXPORTER_OTLP_ENDPOINT="http://a", EXPORTER_OTLP_HEADERS="authorization=secret")
    assert "secret" not in repr(otlp)
