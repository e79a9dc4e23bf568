"""What the variables of OpenTelemetry say: where spans, log records and metrics are sent by OTLP, and which.

Owns their meaning (OpenTelemetry specification, "Environment Variable Specification" and "OTLP Exporter"). Does not own
their names and defaults (``settings_table.OTEL_VARIABLES``). An empty value counts as absent; for a wrong one the
default is used, and a notice says so, because telemetry must not keep the script from being served. Runs in the
launcher.
"""

from __future__ import annotations

import re
import urllib.parse
import uuid
from collections.abc import Mapping
from typing import NamedTuple

from .connection_string import is_url
from .settings_table import OTEL_VARIABLES, OTEL_WITHOUT_EFFECT

_EXPORTER = "OTEL_EXPORTER_OTLP_"
_SAMPLERS = {
    # Whether the caller's decision counts, and the share of traces without one; None: OTEL_TRACES_SAMPLER_ARG says it.
    "always_on": (False, 1.0),
    "always_off": (False, 0.0),
    "traceidratio": (False, None),
    "parentbased_always_on": (True, 1.0),
    "parentbased_always_off": (True, 0.0),
    "parentbased_traceidratio": (True, None),
}
_MANY = 10**9
_MILLISECONDS = "a whole number of milliseconds, 1 or more"
_HEADER_NAME = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")


class Target(NamedTuple):
    """Where one signal is sent. ``headers`` may be secrets."""

    url: str
    headers: tuple[tuple[str, str], ...]
    timeout_ms: int
    gzip: bool
    certificate: str | None
    client_certificate: str | None
    client_key: str | None
    # Limits in items: of a request, and of what waits; then in number and characters of attributes.
    batch_items: int = 512
    queue_items: int | None = None
    attribute_count: int = 128
    attribute_length: int | None = None


class Otlp(NamedTuple):
    """What is exported by OTLP; a signal that is None is not."""

    traces: Target | None
    logs: Target | None
    metrics: Target | None
    # How often metrics are sent, and whether their counters begin again each time.
    metrics_interval_ms: int
    is_delta: bool
    resource: tuple[tuple[str, str], ...]
    # Whether the decision of a caller counts, and the share of other traces that is recorded.
    follows_parent: bool
    share: float
    # Whether each request begins a trace, also if its caller has one.
    begins_own_traces: bool = False
    # How long log records are gathered, if less than other items.
    logs_delay_ms: int | None = None

    @property
    def sends(self) -> bool:
        """Whether anything is sent by OTLP."""
        return not (self.traces is None and self.logs is None and self.metrics is None)

    def __repr__(self) -> str:
        # Headers are secrets, and this text may get into logs and tracebacks.
        return (
            f"Otlp({', '.join(f'{name}={getattr(self, name) is not None}' for name in ('traces', 'logs', 'metrics'))})"
        )


OFF = Otlp(None, None, None, 60_000, False, (), True, 1.0)


def resolve(environment: Mapping[str, str], service_name: str) -> tuple[Otlp, list[str]]:
    """What the variables say, and sentences about values that cannot be used."""
    variables = _Variables(environment)
    traces, logs, metrics = (_target(variables, signal) for signal in ("TRACES", "LOGS", "METRICS"))
    begins_own_traces, unknown = _begins_own_traces(variables)
    if not (traces or logs or metrics):
        return OFF._replace(begins_own_traces=begins_own_traces), variables.notices
    if unknown:
        variables.refuse(
            "OTEL_PROPAGATORS", "a list of tracecontext and baggage, or none; what else is in it is left out"
        )
    traces = traces and _with_limits(variables, traces, "BSP", "SPAN")
    logs = logs and _with_limits(variables, logs, "BLRP", "LOGRECORD")
    delay = logs and variables.number("OTEL_BLRP_SCHEDULE_DELAY", 1, _MILLISECONDS)
    interval = OFF.metrics_interval_ms
    if metrics is not None:
        interval = variables.milliseconds("OTEL_METRIC_EXPORT_INTERVAL")
        patience = variables.milliseconds("OTEL_METRIC_EXPORT_TIMEOUT")
        metrics = metrics._replace(timeout_ms=min(metrics.timeout_ms, patience))
    is_delta = metrics is not None and _is_delta(variables)
    follows_parent, share = _sampler(variables)
    resource = _resource(variables, service_name)
    otlp = Otlp(traces, logs, metrics, interval, is_delta, resource, follows_parent, share, begins_own_traces, delay)
    return otlp, variables.notices + _without_effect(environment)


class _Variables:
    """The variables, with notices about those that cannot be used."""

    def __init__(self, environment: Mapping[str, str]) -> None:
        self._environment = environment
        self._known = {variable.name: variable for variable in OTEL_VARIABLES}
        self.notices: list[str] = []

    def is_given(self, name: str) -> bool:
        return bool(self._environment.get(name, "").strip())

    def text(self, name: str) -> str:
        """The value, else the default."""
        return self._environment.get(name, "").strip() or self._known[name].default

    def of_signal(self, signal: str, option: str) -> tuple[str, str]:
        """The name and the value of the signal's own variable if it is given, else of the one for all signals."""
        own = f"{_EXPORTER}{signal}_{option}"
        name = own if self.is_given(own) else _EXPORTER + option
        return name, self.text(name)

    def milliseconds(self, name: str) -> int:
        """The value as a number, else the default."""
        return self.number(name, 1, _MILLISECONDS) or int(self._known[name].default)

    def number(self, name: str, least: int, allowed: str) -> int | None:
        """The value as a whole number, else the default; None if there is no default."""
        for text in (self.text(name), self._known[name].default):
            # int() refuses texts of more than 4300 digits with an exception of its own.
            digits = text.lstrip("0")[:20] or "0"
            if text.isascii() and text.isdecimal() and least <= int(digits) <= _MANY:
                return int(digits)
            if text:
                self.refuse(name, allowed)
        return None

    def refuse(self, name: str, allowed: str) -> None:
        value = "***" if self._known[name].secret else repr(self._environment.get(name, ""))
        self.notices.append(f"{name}={value} is not used: it must be {allowed}.")


def _target(variables: _Variables, signal: str) -> Target | None:
    exporter = f"OTEL_{signal}_EXPORTER"
    own, shared = f"{_EXPORTER}{signal}_ENDPOINT", f"{_EXPORTER}ENDPOINT"
    wanted = variables.text(exporter).lower()
    if signal == "METRICS" and wanted == "prometheus":
        # GET /metrics is there anyway.
        return None
    if wanted not in ("otlp", "none"):
        allowed = "otlp, prometheus or none" if signal == "METRICS" else "otlp or none"
        variables.refuse(exporter, f"{allowed}, so {signal.lower()} are not sent")
        return None
    is_on = variables.is_given(own) or variables.is_given(shared) or variables.is_given(exporter)
    if wanted == "none" or not is_on:
        return None
    name, protocol = variables.of_signal(signal, "PROTOCOL")
    if protocol not in ("http/protobuf", "http/json"):
        variables.refuse(name, f"http/protobuf, so {signal.lower()} are not sent")
        return None
    if protocol == "http/json":
        variables.refuse(name, "http/protobuf, which is used")
    if variables.is_given(own):
        name, url = own, variables.text(own)
    else:
        name, url = shared, f"{variables.text(shared).rstrip('/')}/v1/{signal.lower()}"
    if not is_url(url):
        variables.refuse(name, f"a URL, so {signal.lower()} are not sent")
        return None
    certificate, key = (variables.of_signal(signal, option) for option in ("CLIENT_CERTIFICATE", "CLIENT_KEY"))
    if bool(certificate[1]) != bool(key[1]):
        given, missing = (certificate, key) if certificate[1] else (key, certificate)
        variables.notices.append(f"{given[0]} has no effect without {missing[0]}.")
    return Target(
        url,
        _headers(variables, signal),
        _timeout(variables, signal),
        _compresses(variables, signal),
        variables.of_signal(signal, "CERTIFICATE")[1] or None,
        certificate[1] or None,
        key[1] or None,
    )


def _headers(variables: _Variables, signal: str) -> tuple[tuple[str, str], ...]:
    name, text = variables.of_signal(signal, "HEADERS")
    pairs, is_wrong = _pairs(text)
    valid = {
        key: value
        for key, value in pairs.items()
        if _HEADER_NAME.fullmatch(key) and value.isprintable() and value.isascii()
    }
    if is_wrong or len(valid) < len(pairs):
        variables.refuse(name, "a list name=value,name=value of header fields; what is wrong in it is left out")
    return tuple(valid.items())


def _timeout(variables: _Variables, signal: str) -> int:
    name, _ = variables.of_signal(signal, "TIMEOUT")
    return variables.milliseconds(name)


def _compresses(variables: _Variables, signal: str) -> bool:
    name, text = variables.of_signal(signal, "COMPRESSION")
    if text not in ("gzip", "none"):
        variables.refuse(name, "gzip or none")
    return text == "gzip"


def _with_limits(variables: _Variables, target: Target, processor: str, kind: str) -> Target:
    """The target with what the variables of the batch processor and of the attributes say."""

    def of_attributes(option: str) -> int | None:
        own, shared = f"OTEL_{kind}_ATTRIBUTE_{option}_LIMIT", f"OTEL_ATTRIBUTE_{option}_LIMIT"
        return variables.number(own if variables.is_given(own) else shared, 0, "a whole number, 0 or more")

    at_least_one = "a whole number, 1 or more"
    count = of_attributes("COUNT")
    return target._replace(
        timeout_ms=min(target.timeout_ms, variables.milliseconds(f"OTEL_{processor}_EXPORT_TIMEOUT")),
        batch_items=variables.number(f"OTEL_{processor}_MAX_EXPORT_BATCH_SIZE", 1, at_least_one) or target.batch_items,
        queue_items=variables.number(f"OTEL_{processor}_MAX_QUEUE_SIZE", 1, at_least_one),
        attribute_count=target.attribute_count if count is None else count,
        attribute_length=of_attributes("VALUE_LENGTH"),
    )


def _begins_own_traces(variables: _Variables) -> tuple[bool, bool]:
    """Whether the caller's trace does not count, and whether something in the list of propagators is unknown."""
    names = {name.strip().lower() for name in variables.text("OTEL_PROPAGATORS").split(",")} - {""}
    return "tracecontext" not in names, bool(names - {"tracecontext", "baggage", "none"})


def _without_effect(environment: Mapping[str, str]) -> list[str]:
    """A sentence for each variable that is given and means nothing to the server."""
    return [
        f"{name} has no effect on the server: {reason}."
        for name, reason in OTEL_WITHOUT_EFFECT.items()
        if environment.get(name, "").strip()
    ]


def _is_delta(variables: _Variables) -> bool:
    name = f"{_EXPORTER}METRICS_TEMPORALITY_PREFERENCE"
    wanted = variables.text(name).lower()
    if wanted not in ("cumulative", "delta", "lowmemory"):
        variables.refuse(name, "cumulative, delta or lowmemory")
    # lowmemory means delta for counters and histograms, which add up here too.
    return wanted in ("delta", "lowmemory")


def _sampler(variables: _Variables) -> tuple[bool, float]:
    name = variables.text("OTEL_TRACES_SAMPLER")
    if name not in _SAMPLERS:
        variables.refuse("OTEL_TRACES_SAMPLER", f"one of {', '.join(_SAMPLERS)}")
        return True, 1.0
    follows_parent, share = _SAMPLERS[name]
    if share is not None:
        return follows_parent, share
    text = variables.text("OTEL_TRACES_SAMPLER_ARG")
    if re.fullmatch(r"\d*\.?\d+|\d+\.", text, re.ASCII) and float(text) <= 1:
        return follows_parent, float(text)
    variables.refuse("OTEL_TRACES_SAMPLER_ARG", "a number from 0 to 1")
    return follows_parent, 1.0


def _resource(variables: _Variables, service_name: str) -> tuple[tuple[str, str], ...]:
    given, is_wrong = _pairs(variables.text("OTEL_RESOURCE_ATTRIBUTES"))
    if is_wrong:
        variables.refuse("OTEL_RESOURCE_ATTRIBUTES", "a list name=value,name=value; what is wrong in it is left out")
    # Receivers tell the metrics of several servers apart by the instance.
    resource = {"service.name": service_name, "service.instance.id": str(uuid.uuid4()), **given}
    if variables.is_given("OTEL_SERVICE_NAME"):
        resource["service.name"] = variables.text("OTEL_SERVICE_NAME")
    return tuple(resource.items())


def _pairs(text: str) -> tuple[dict[str, str], bool]:
    """The names and values of ``name=value,name=value``, percent-decoded; and whether something in it is wrong."""
    pairs: dict[str, str] = {}
    is_wrong = False
    for part in text.split(","):
        name, separator, value = (word.strip() for word in part.partition("="))
        if name and separator:
            pairs[urllib.parse.unquote(name)] = urllib.parse.unquote(value)
        elif part.strip():
            is_wrong = True
    return pairs, is_wrong
