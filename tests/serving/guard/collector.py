"""An OTLP collector on loopback that keeps the spans it is sent."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest


@dataclass(frozen=True)
class Seen:
    """One span; times in nanoseconds, ids in hex."""

    name: str
    trace: str
    parent: str
    span: str
    start: int
    end: int
    attributes: dict[str, Any]


class Collector:
    """Its address for `--otlp-traces-endpoint`, and what came."""

    def __init__(self) -> None:
        self.spans: list[Seen] = []
        self.url = ""

    def of_trace(self, trace: str) -> list[Seen]:
        """The spans of one trace."""
        return [one for one in self.spans if one.trace == trace]

    def take(self, message: bytes) -> None:
        """Read a message of the protocol."""
        request = ExportTraceServiceRequest.FromString(message)
        for resource in request.resource_spans:
            for scope in resource.scope_spans:
                for span in scope.spans:
                    kinds = ((one.key, one.value) for one in span.attributes)
                    attributes = {
                        key: getattr(value, value.WhichOneof("value")) for key, value in kinds
                    }
                    self.spans.append(
                        Seen(
                            name=span.name,
                            trace=span.trace_id.hex(),
                            parent=span.parent_span_id.hex(),
                            span=span.span_id.hex(),
                            start=span.start_time_unix_nano,
                            end=span.end_time_unix_nano,
                            attributes=attributes,
                        )
                    )


@contextmanager
def collecting() -> Iterator[Collector]:
    """A running collector."""
    collector = Collector()

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            collector.take(self.rfile.read(int(self.headers["Content-Length"])))
            self.send_response(200)
            self.send_header("Content-Length", "0")
            self.end_headers()

        def log_message(self, *args: Any) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    collector.url = f"http://127.0.0.1:{server.server_port}/v1/traces"
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield collector
    finally:
        server.shutdown()
        server.server_close()
