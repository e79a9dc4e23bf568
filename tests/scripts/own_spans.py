"""Answers with the ids of the parents of spans that it makes with OpenTelemetry's own SDK."""

import os
import threading
from concurrent.futures import ThreadPoolExecutor

from azureml_inference_server_http.api.aml_response import AMLResponse

if os.environ.get("IMPORT_OPENTELEMETRY") != "in run":
    from opentelemetry import trace  # noqa: F401
    from opentelemetry.sdk.trace import TracerProvider  # noqa: F401


def init():
    pass


def parent():
    """Trace id, id of the parent, and whether the span is recorded."""
    from opentelemetry.sdk.trace import TracerProvider

    with TracerProvider().get_tracer("script").start_as_current_span("work") as span:
        context, parent = span.get_span_context(), getattr(span, "parent", None)
        return [f"{context.trace_id:032x}", f"{parent.span_id:016x}" if parent else "", span.is_recording()]


def parts():
    for _ in range(2):
        yield f"{parent()}\n"


def run(data):
    if data == "stream":
        return AMLResponse(parts(), 200)
    if data == "thread":
        found = []
        thread = threading.Thread(target=lambda: found.append(parent()))
        thread.start()
        thread.join()
        return found[0]
    if data == "pool":
        with ThreadPoolExecutor(1) as pool:
            return pool.submit(parent).result()
    return parent()
