"""The trace of one HTTP request."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Any

from opentelemetry import trace as api
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator
from starlette.types import Scope
from vllm.tracing import SpanKind, extract_trace_context, instrument_manual

from vllm_csp.timeline import Span

_HEADERS = (b"traceparent", b"tracestate")
# The clocks of two processes, and of a GPU, agree to this.
_SLACK_NS = 1_000_000


class Trace:
    """A span around the request, in the client's trace if it names one, and spans below it.

    vLLM's own spans (`llm_request`) go below it too: they take their parent from the headers.
    """

    def __init__(self, scope: Scope) -> None:
        self._began_ns = time.time_ns()
        headers = {
            name.decode("latin-1"): value.decode("latin-1")
            for name, value in scope["headers"]
            if name in _HEADERS
        }
        self._span = api.get_tracer("vllm_csp").start_span(
            f"{scope['method']} request",
            context=extract_trace_context(headers),
            kind=SpanKind.SERVER,
            start_time=self._began_ns,
        )
        self._context = api.set_span_in_context(self._span)
        self._added: set[tuple[str, int]] = set()
        carrier: dict[str, str] = {}
        TraceContextTextMapPropagator().inject(carrier, context=self._context)
        others = [pair for pair in scope["headers"] if pair[0] not in _HEADERS]
        own = [(name.encode(), value.encode()) for name, value in carrier.items()]
        scope["headers"] = [*others, *own]

    @property
    def wanted(self) -> bool:
        """Whether anyone keeps this trace: a client may say that nobody does."""
        return self._span.is_recording()

    def add(self, spans: Sequence[Span]) -> None:
        """Spans of the worker.

        What several questions share (an image's encoding, a step of the engine) is added once, and
        what was done before this request came (an image that was known) not at all.
        """
        for span in spans:
            known = (span["name"], span["start"])
            if known in self._added or span["start"] < self._began_ns - _SLACK_NS:
                continue
            self._added.add(known)
            instrument_manual(
                span["name"],
                span["start"],
                span["end"],
                attributes=span["attributes"],
                context=self._context,
            )

    def end(self, name: str, attributes: dict[str, Any]) -> None:
        """The answer has been sent."""
        self._span.update_name(name)
        self._span.set_attributes(attributes)
        if attributes.get("http.response.status_code", 0) >= 500:
            self._span.set_status(api.StatusCode.ERROR)
        self._span.end()
