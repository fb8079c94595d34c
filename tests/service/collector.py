"""A collector for traces, as the service's exporter sends them: OTLP over HTTP, in protobuf."""

import contextlib
import threading
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.common.v1.common_pb2 import KeyValue

_PATIENCE = 30.0  # seconds; machines that run tests are busy
SOON = {"OTEL_BSP_SCHEDULE_DELAY": "50"}  # milliseconds that spans wait to be sent together


@dataclass(frozen=True)
class Sent:
    """One span as it arrived; times are in nanoseconds since the epoch, ids in hexadecimal digits."""

    name: str
    kind: int
    trace_id: str
    span_id: str
    parent_id: str
    state: str
    started: int
    ended: int
    failed: bool
    attributes: Mapping[str, Any]
    resource: Mapping[str, Any]


@dataclass(frozen=True)
class Request:
    """The span of a request, and those of its steps in the order in which they were sent."""

    span: Sent
    steps: list[Sent]

    def named(self, name: str) -> list[Sent]:
        """Return the steps of this name."""
        return [step for step in self.steps if step.name == name]


@dataclass
class Collector:
    """What listens at ``url``, and what has come."""

    url: str
    status: int = 200
    spans: list[Sent] = field(default_factory=list)
    requests: int = 0  # that came, also those that were refused

    def request(self, request_id: str) -> "Request":
        """Return what came of a request, once that is all there; its own span is the last one that is sent."""
        deadline = time.monotonic() + _PATIENCE
        while not (found := [span for span in self.spans if span.attributes.get("darkroom.request_id") == request_id]):
            assert time.monotonic() < deadline, f"{self.requests} messages came, with {self.spans}"
            time.sleep(0.02)
        [span] = found
        return Request(span, [step for step in self.spans if step.parent_id == span.span_id])

    def environment(self, **more: str) -> dict[str, str]:
        """Return the variables that make a service send its spans here at once."""
        return {"OTEL_EXPORTER_OTLP_ENDPOINT": self.url, **SOON, **more}

    def take(self, body: bytes) -> None:
        """Keep the spans of one message."""
        for resource in ExportTraceServiceRequest.FromString(body).resource_spans:
            of_resource = _values(resource.resource.attributes)
            for scope in resource.scope_spans:
                self.spans += [
                    Sent(
                        name=span.name,
                        kind=span.kind,
                        trace_id=span.trace_id.hex(),
                        span_id=span.span_id.hex(),
                        parent_id=span.parent_span_id.hex(),
                        state=span.trace_state,
                        started=span.start_time_unix_nano,
                        ended=span.end_time_unix_nano,
                        failed=span.status.code == span.status.STATUS_CODE_ERROR,
                        attributes=_values(span.attributes),
                        resource=of_resource,
                    )
                    for span in scope.spans
                ]


def _values(pairs: Any) -> dict[str, Any]:
    def value(pair: KeyValue) -> Any:
        return getattr(pair.value, str(pair.value.WhichOneof("value")))

    return {pair.key: value(pair) for pair in pairs}


@contextlib.contextmanager
def collecting(port: int = 0) -> Iterator[Collector]:
    """Listen for the time of the block, on a free port unless one is given."""

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"]))
            assert (self.path, self.headers["Content-Type"]) == ("/v1/traces", "application/x-protobuf")
            collector.requests += 1
            if collector.status == 200:
                collector.take(body)
            self.send_response(collector.status)
            self.send_header("Content-Length", "0")
            self.end_headers()

        def log_message(self, *_: Any) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", port), Handler)
    collector = Collector(f"http://127.0.0.1:{server.server_address[1]}")
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield collector
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
