"""What is noted of every request, whoever answers it: its id, its time, its status, and a line in the log."""

import functools
import logging
import random
import re
from collections.abc import Callable, Iterable, Mapping
from typing import Any, NamedTuple

from prometheus_client import Counter, Histogram

from service.inference.steps import STEPS
from service.observe import logs
from service.observe.metrics import Metrics
from service.observe.tracing import Trace, Tracer
from service.web.bodies import RECEIVED

access_log = logging.getLogger("service.access")

_REQUEST_ID = re.compile(r"[\x21-\x7e]{1,128}")


class Begun(NamedTuple):
    """A request that is being answered, and when that began; its trace, where requests are traced."""

    request_id: str
    started: float
    trace: Trace | None = None


class Answered(NamedTuple):
    """What became of a request; ``size`` is the answer's, in bytes, and ``user`` whose token let it in, if any.

    ``status`` is HTTP's, or the name of gRPC's code.
    """

    route: str
    method: str
    status: int | str
    client: str | None
    path: str
    size: int | None
    user: str | None = None


class Notes:
    """Counts and times requests, names them, and logs them where that is asked for."""

    def __init__(
        self, metrics: Metrics, clock: Callable[[], float], tracer: Tracer | None = None, *, log: bool
    ) -> None:
        """Take the metrics, the clock that times are told in, what traces, and whether each request is logged."""
        self._metrics = metrics
        self._clock = clock
        self._tracer = tracer
        self._log = log
        self._ids = random.Random()  # noqa: S311 - names and no secrets; the system's own take a call each
        # Looking the labels up takes longer than counting.
        self._counters = functools.lru_cache(maxsize=256)(self._look_up)
        self._reasons = functools.lru_cache(maxsize=256)(metrics.errors.labels)

    def expect(self, answers: Iterable[tuple[str, str, int | str]], reasons: Iterable[str]) -> None:
        """Have the counters of ``answers`` (route, method and status) and of errors' ``reasons`` at 0.

        Prometheus sees no increase in the first value of a series, and would miss the first error of a kind.
        """
        for route, method, status in answers:
            self._metrics.requests.labels(route, method, str(status))
        for reason in reasons:
            self._reasons(reason)

    def new_id(self) -> str:
        """Return an id for a request that has none."""
        return f"{self._ids.getrandbits(128):032x}"

    def begin(self, environ: Mapping[str, Any], route: str | None, path: str) -> Begun:
        """Note that a request begins; ``environ`` is WSGI's, ``route`` what its ``path`` matches, if anything."""
        asked = environ.get("HTTP_X_REQUEST_ID", "")
        request_id = asked if _REQUEST_ID.fullmatch(asked) else self.new_id()
        logs.REQUEST_ID.set(request_id)
        self._metrics.in_flight.inc()
        started = self._clock()
        trace = None if self._tracer is None else self._traced(self._tracer, environ, route, path, started)
        return Begun(request_id, started, trace)

    def end(self, begun: Begun, answered: Answered) -> None:
        """Note how a request is answered."""
        seconds = self._clock() - begun.started
        requests, times = self._counters(answered.route, answered.method, answered.status)
        requests.inc()
        times.observe(seconds)
        if self._log:
            _log(answered, seconds)
        if begun.trace is not None:
            begun.trace.end(begun.started + seconds, answered.status, answered.client, begun.request_id)

    def error(self, reason: str) -> None:
        """Note an error that is told to a client, for a request or for one picture of it, by its name."""
        self._reasons(reason).inc()

    def refused(self, request_id: str, answered: Answered, reason: str) -> None:
        """Note a request that was refused before it began."""
        self._reasons(reason).inc()
        self._counters(answered.route, answered.method, answered.status)[0].inc()
        if self._log:
            logs.REQUEST_ID.set(request_id)
            _log(answered, 0.0)
            logs.REQUEST_ID.set(None)

    def leave(self) -> None:
        """Note that no request is being answered here any more: the connection, or the thread, goes on to another."""
        self._metrics.in_flight.dec()
        logs.REQUEST_ID.set(None)
        if self._tracer is not None:
            STEPS.set(None)
            logs.TRACE_ID.set(None)

    def _traced(
        self, tracer: Tracer, environ: Mapping[str, Any], route: str | None, path: str, started: float
    ) -> Trace | None:
        """Begin the trace of a request, which began when its body was there, before a thread was free for it."""
        trace = tracer.begin(environ, route, path, min(started, environ.get(RECEIVED, started)))
        if trace is not None:
            STEPS.set(trace.steps)
            logs.TRACE_ID.set(trace.trace_id)
        return trace

    def _look_up(self, route: str, method: str, status: int | str) -> tuple[Counter, Histogram]:
        labels = (route, method, str(status))
        return self._metrics.requests.labels(*labels), self._metrics.request_seconds.labels(*labels)


def _log(answered: Answered, seconds: float) -> None:
    fields = {
        "client": answered.client,
        "method": answered.method,
        "path": answered.path,
        "status": answered.status,
        "milliseconds": round(seconds * 1000, 3),
        "bytes": answered.size,
        **({} if answered.user is None else {"user": answered.user}),
    }
    access_log.info("request", extra={"fields": fields})
