"""Whether requests are traced: by OpenTelemetry's own variables, and without a cost where these do not ask for it.

``spans.py`` has the traces themselves. It is imported here alone, and only where it is asked for: so OpenTelemetry need
not be installed.
"""

import logging
from collections.abc import Callable, Mapping
from typing import Any, Protocol

from service.inference.steps import Steps

log = logging.getLogger(__name__)

_ENDPOINTS = ("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "OTEL_EXPORTER_OTLP_ENDPOINT")
_PROTOCOLS = ("OTEL_EXPORTER_OTLP_TRACES_PROTOCOL", "OTEL_EXPORTER_OTLP_PROTOCOL")
_PROTOCOL = "http/protobuf"
_NO_TRACES = "Requests are answered, and not traced"


class Trace(Protocol):
    """What is told of one request."""

    trace_id: str  # 32 hexadecimal digits
    steps: Steps | None
    """Where the request's steps are noted; None where its trace is not sampled."""

    def end(self, ended: float, status: int | str, client: str | None, request_id: str) -> None:
        """Note the answer: when it was there, by the clock, with which ``status``, and for whom.

        A status is HTTP's, or the name of gRPC's code.
        """


class Tracer(Protocol):
    """Begins traces, and sends what came of them to a collector."""

    def begin(self, environ: Mapping[str, Any], route: str | None, path: str, started: float) -> Trace | None:
        """Return the trace of a request that began at ``started`` of the clock; None where there is none of it.

        ``environ`` is WSGI's, with ``GRPC`` as the method of a call by gRPC; ``route`` is what the ``path`` matches, if
        anything.
        """

    def close(self) -> None:
        """Send what has not been sent yet, for a second at most."""


def make_tracer(environment: Mapping[str, str], clock: Callable[[], float], *, addresses: bool) -> Tracer | None:
    """Return what traces requests, if ``environment`` asks for it; to be called in the process that answers them.

    Where it asks for what cannot be had, the log says so, and there is none: the variables may be meant for all that
    runs on a platform, and answers do not depend on traces. ``clock`` is what requests are timed by, in seconds;
    ``addresses`` says whether those of clients are told.
    """
    if not is_asked_for(environment):
        return None
    variable, protocol = _first(environment, _PROTOCOLS)
    if protocol not in ("", _PROTOCOL):
        log.warning(
            "%s is %r, but traces are sent as %s only: set that, and the port for it (mostly 4318). %s.",
            variable,
            protocol,
            _PROTOCOL,
            _NO_TRACES,
        )
        return None
    variable, _ = _first(environment, _ENDPOINTS)
    try:
        from service.observe.spans import SpanTracer

        return SpanTracer(clock, addresses=addresses)
    except ModuleNotFoundError as missing:
        log.warning(
            "%s asks for traces, and %s, which they need, is not installed: pip install 'darkroom[tracing]', or set "
            "OTEL_SDK_DISABLED=true. %s.",
            variable,
            missing.name,
            _NO_TRACES,
        )
    except Exception as error:  # noqa: BLE001 - also of samplers and propagators that are installed beside it
        log.warning("Tracing cannot begin; look at the variables OTEL_*: %s. %s.", error, _NO_TRACES)
    return None


def is_asked_for(environment: Mapping[str, str]) -> bool:
    """Say whether ``environment`` names a collector for traces, and turns them off nowhere."""
    exporters = [name.strip() for name in environment.get("OTEL_TRACES_EXPORTER", "").lower().split(",")]
    disabled = environment.get("OTEL_SDK_DISABLED", "").strip().lower() == "true"
    sent = exporters == [""] or "otlp" in exporters
    return bool(_first(environment, _ENDPOINTS)[1]) and sent and not disabled


def _first(environment: Mapping[str, str], variables: tuple[str, ...]) -> tuple[str, str]:
    """Return the first of ``variables`` that is not empty, and its value; an empty one where all are."""
    found = ((variable, environment.get(variable, "").strip()) for variable in variables)
    return next((pair for pair in found if pair[1]), (variables[-1], ""))
