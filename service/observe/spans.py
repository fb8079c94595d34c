"""Spans of OpenTelemetry: one for each request, by the conventions for servers, and below it one for each step.

A collector that is slow or gone keeps nobody waiting: spans wait in a bounded queue, from which a thread sends them.
"""

import logging
import math
import threading
import time
import uuid
from collections.abc import Callable, Mapping
from typing import Any

from opentelemetry import propagate, trace
from opentelemetry.context import Context
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.propagators.textmap import Getter
from opentelemetry.sdk.resources import OTELResourceDetector, Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor
from opentelemetry.trace import Span, SpanKind, Status, StatusCode, format_trace_id

from service import __version__
from service.inference.steps import Step, Steps

log = logging.getLogger(__name__)

_METHODS = ("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS")
_GRPC = "GRPC"  # stands where requests by HTTP have their method
_OF_GRPC = ("UNKNOWN", "DEADLINE_EXCEEDED", "UNIMPLEMENTED", "INTERNAL", "UNAVAILABLE", "DATA_LOSS")
_FAULTS = frozenset((*range(500, 600), *_OF_GRPC))  # of the service, and not of who asks
_OF_PROGRAMS = ("/health", "/v2/health", "/metrics")  # which ask every few seconds; nobody looks for these traces
_MOST_PATH = 1024  # characters
_CLOSE_SECONDS = 1.0
_COMPLAINT_SECONDS = 60.0  # between two lines of the log on what goes wrong


class SpanTracer:
    """Makes the spans of one process; OpenTelemetry's variables say which are sampled, and where they go."""

    def __init__(self, clock: Callable[[], float], *, addresses: bool) -> None:
        """Take the clock that requests are timed by, and whether a span tells the client's address.

        It starts a thread, so it is to be made after the fork. Raises ValueError where a variable is wrong.
        """
        quiet("opentelemetry")
        self._clock = clock
        self._addresses = addresses
        self._provider = TracerProvider(resource=_resource(), shutdown_on_exit=False)
        self._provider.add_span_processor(BatchSpanProcessor(OTLPSpanExporter()))
        self._tracer = self._provider.get_tracer("darkroom", __version__)

    def begin(self, environ: Mapping[str, Any], route: str | None, path: str, started: float) -> "SpanTrace | None":
        """Return the trace of a request that began at ``started`` of the clock; None where it is a probe or a scrape.

        ``environ`` is WSGI's, ``route`` what the ``path`` matches, if anything.
        """
        if route is not None and route.startswith(_OF_PROGRAMS):
            return None
        epoch = time.time_ns() - _nanoseconds(self._clock())
        method = environ["REQUEST_METHOD"]
        if method == _GRPC and route is not None:
            name, attributes = _call(route)
        else:
            name, attributes = _http_request(method, route, path)
        parent = propagate.extract(environ, getter=_HEADERS)
        span = self._tracer.start_span(
            name, parent, SpanKind.SERVER, attributes, start_time=epoch + _nanoseconds(started)
        )
        steps = Steps(self._clock) if span.is_recording() else None
        return SpanTrace(self._tracer, span, epoch, steps, addresses=self._addresses)

    def close(self) -> None:
        """Send what has not been sent yet, for a second at most."""
        closing = threading.Thread(target=self._provider.shutdown, name="traces", daemon=True)
        closing.start()
        closing.join(_CLOSE_SECONDS)


class SpanTrace:
    """The span of one request, and what goes into it."""

    def __init__(self, tracer: trace.Tracer, span: Span, epoch: int, steps: Steps | None, *, addresses: bool) -> None:
        """Take the span, and the time of the clock's 0 in nanoseconds since the epoch.

        ``steps`` are those of the request, and None where its trace is not sampled.
        """
        self.trace_id = format_trace_id(span.get_span_context().trace_id)
        self.steps = steps
        self._tracer = tracer
        self._span = span
        self._epoch = epoch
        self._addresses = addresses

    def end(self, ended: float, status: int | str, client: str | None, request_id: str) -> None:
        """Note the answer: when it was there, by the clock, with which ``status``, and for whom.

        A status is HTTP's, or the name of gRPC's code.
        """
        if self.steps is None:
            return
        span = self._span
        of_grpc = isinstance(status, str)
        attributes: dict[str, str | int] = {
            "rpc.response.status_code" if of_grpc else "http.response.status_code": status,
            "darkroom.request_id": request_id,
        }
        if self.steps.model is not None:
            attributes["darkroom.model"], attributes["darkroom.version"] = self.steps.model
        if self.steps.left_out:
            attributes["darkroom.steps_left_out"] = self.steps.left_out
        if self._addresses and client:
            attributes["client.address"] = client
        if status in _FAULTS:
            attributes["error.type"] = str(status)
            span.set_status(Status(StatusCode.ERROR))
        span.set_attributes(attributes)
        below = trace.set_span_in_context(span, Context())
        for step in self.steps.taken:
            self._add(step, below)
        span.end(self._time(ended))

    def _add(self, step: Step, below: Context) -> None:
        attributes = {f"darkroom.{name}": value for name, value in step.attributes.items()}
        if step.error is not None:
            attributes["error.type"] = step.error
        span = self._tracer.start_span(step.name, below, attributes=attributes, start_time=self._time(step.started))
        if step.error is not None:
            span.set_status(Status(StatusCode.ERROR))
        span.end(self._time(step.ended))

    def _time(self, seconds: float) -> int:
        return self._epoch + _nanoseconds(seconds)


def _http_request(method: str, route: str | None, path: str) -> tuple[str, dict[str, str]]:
    """Return the name of a request's span, and what is known of it at once."""
    known = method in _METHODS
    attributes = {
        "http.request.method": method if known else "_OTHER",
        "url.path": path[:_MOST_PATH],
        "url.scheme": "http",
    }
    name = method if known else "HTTP"
    if route is None:
        return name, attributes
    return f"{name} {route}", {**attributes, "http.route": route}


def _call(route: str) -> tuple[str, dict[str, str]]:
    """Return the same of a call by gRPC."""
    name = route.lstrip("/")
    return name, {"rpc.system.name": "grpc", "rpc.method": name}


class _Headers(Getter[Mapping[str, Any]]):
    """Reads headers from WSGI's environment.

    Baggage is left alone: it is for services that are called from here, and there are none. To read 8 KB of spaces in
    it, as anybody may send them, took 15 ms.
    """

    def get(self, carrier: Mapping[str, Any], key: str) -> list[str] | None:
        value = carrier.get(f"HTTP_{key.upper().replace('-', '_')}")
        return None if value is None or key == "baggage" else [value]

    def keys(self, carrier: Mapping[str, Any]) -> list[str]:
        return [name[5:].replace("_", "-").lower() for name in carrier if name.startswith("HTTP_")]


_HEADERS = _Headers()


class _Complaints(logging.Handler):
    """Passes on what a library logs, once a minute at most: a collector that is down fails every few seconds."""

    def __init__(self) -> None:
        super().__init__(logging.WARNING)
        self._next = -math.inf
        self._left_out = 0

    def emit(self, record: logging.LogRecord) -> None:
        now = time.monotonic()
        if now < self._next:
            self._left_out += 1
            return
        more = f" ({self._left_out} more lines of this kind since the last one)" if self._left_out else ""
        self._next, self._left_out = now + _COMPLAINT_SECONDS, 0
        log.warning("traces: %s%s", record.getMessage(), more, exc_info=record.exc_info)


def quiet(library: str) -> None:
    """Let what ``library`` logs reach the log once a minute at most."""
    logger = logging.getLogger(library)
    logger.propagate = False
    logger.handlers = [_Complaints()]


def _resource() -> Resource:
    """Return what all spans say of this process; what the variables say of it comes first."""
    ours = {"service.name": "darkroom", "service.version": __version__, "service.instance.id": str(uuid.uuid4())}
    return Resource.create({**ours, **OTELResourceDetector().detect().attributes})


def _nanoseconds(seconds: float) -> int:
    return int(seconds * 1e9)
