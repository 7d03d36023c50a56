"""The trace of the request at hand; without traces nothing of OpenTelemetry is imported."""

from __future__ import annotations

from typing import TYPE_CHECKING

from fastapi import Request

if TYPE_CHECKING:
    from vllm_csp.serving.tracing.trace import Trace

TRACE = "vllm_csp.trace"
"""Where it stands in the request's scope."""


def trace_of(raw_request: Request | None) -> Trace | None:
    """The request's trace, if there is one and it is kept."""
    trace: Trace | None = None if raw_request is None else raw_request.scope.get(TRACE)
    return trace if trace is not None and trace.wanted else None
