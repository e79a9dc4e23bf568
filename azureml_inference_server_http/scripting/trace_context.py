"""Makes spans that a script creates with OpenTelemetry children of the server's span.

Owns the context that is active while the script's code runs. Does not own the ids, which the front chooses
(``src/telemetry/ids.rs``). OpenTelemetry is never imported here: only a script that has imported it can make spans.
Runs in workers, on the thread that calls the script, and on those that it starts.
"""

from __future__ import annotations

import sys
from typing import Any

_API, _CONTEXT = "opentelemetry.trace", "opentelemetry.context"
# It makes a server span of its own from the caller's ``traceparent``, but only if no span is current.
_INSTRUMENTATION = "opentelemetry.instrumentation.flask"


def attach(traceparent: str, tracestate: str) -> Any:
    """Make the span that ``traceparent`` names the current one of this thread. Returns what ``detach`` takes; None if
    the script has not imported OpenTelemetry, or something else of that name, or if OpenTelemetry watches Flask."""
    api, context = sys.modules.get(_API), sys.modules.get(_CONTEXT)
    if api is None or context is None or _INSTRUMENTATION in sys.modules:
        return None
    try:
        _, trace_id, span_id, flags = traceparent.split("-")
        remote = api.SpanContext(
            int(trace_id, 16),
            int(span_id, 16),
            is_remote=True,
            trace_flags=api.TraceFlags(int(flags, 16)),
            trace_state=api.TraceState.from_header([tracestate]) if tracestate else None,
        )
        return context.attach(api.set_span_in_context(api.NonRecordingSpan(remote)))
    except Exception:  # another version of OpenTelemetry: the script's spans begin traces of their own
        return None


def present() -> Any:
    """OpenTelemetry's context of this thread, for ``attach_present`` in another one; None if the script has not
    imported OpenTelemetry."""
    context = sys.modules.get(_CONTEXT)
    get_current = getattr(context, "get_current", None)
    return None if get_current is None else get_current()


def attach_present(found: Any) -> Any:
    """Make a context that ``present`` returned the one of this thread. Returns what ``detach`` takes; None if there is
    nothing to detach."""
    context = sys.modules.get(_CONTEXT)
    attach_context = getattr(context, "attach", None)
    return None if found is None or attach_context is None else attach_context(found)


def detach(token: Any) -> None:
    """Undo ``attach`` or ``attach_present``."""
    context = sys.modules.get(_CONTEXT)
    if context is not None:
        context.detach(token)
