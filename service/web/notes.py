"""What is noted of every request, whoever answers it: its id, its time, its status, and a line in the log."""

import functools
import logging
import random
import re
from collections.abc import Callable
from typing import NamedTuple

from prometheus_client import Counter, Histogram

from service.observe import logs
from service.observe.metrics import Metrics

access_log = logging.getLogger("service.access")

_REQUEST_ID = re.compile(r"[\x21-\x7e]{1,128}")


class Begun(NamedTuple):
    """A request that is being answered, and when that began."""

    request_id: str
    started: float


class Answered(NamedTuple):
    """What became of a request; ``size`` is the answer's, in bytes, and ``user`` whose token let it in, if any."""

    route: str
    method: str
    status: int
    client: str | None
    path: str
    size: int | None
    user: str | None = None


class Notes:
    """Counts and times requests, names them, and logs them where that is asked for."""

    def __init__(self, metrics: Metrics, clock: Callable[[], float], *, log: bool) -> None:
        """Take the metrics, the clock that times are told in, and whether each request is logged."""
        self._metrics = metrics
        self._clock = clock
        self._log = log
        self._ids = random.Random()  # noqa: S311 - names and no secrets; the system's own take a call each
        # Looking the labels up takes longer than counting.
        self._counters = functools.lru_cache(maxsize=256)(self._look_up)

    def new_id(self) -> str:
        """Return an id for a request that has none."""
        return f"{self._ids.getrandbits(128):032x}"

    def begin(self, asked: str) -> Begun:
        """Note that a request begins, which ``asked`` for an id of its own."""
        request_id = asked if _REQUEST_ID.fullmatch(asked) else self.new_id()
        logs.REQUEST_ID.set(request_id)
        self._metrics.in_flight.inc()
        return Begun(request_id, self._clock())

    def end(self, begun: Begun, answered: Answered) -> None:
        """Note how a request is answered."""
        seconds = self._clock() - begun.started
        requests, times = self._counters(answered.route, answered.method, answered.status)
        requests.inc()
        times.observe(seconds)
        if self._log:
            _log(answered, seconds)

    def refused(self, request_id: str, answered: Answered) -> None:
        """Note a request that was refused before it began."""
        self._counters(answered.route, answered.method, answered.status)[0].inc()
        if self._log:
            logs.REQUEST_ID.set(request_id)
            _log(answered, 0.0)
            logs.REQUEST_ID.set(None)

    def leave(self) -> None:
        """Note that no request is being answered here any more: the connection, or the thread, goes on to another."""
        self._metrics.in_flight.dec()
        logs.REQUEST_ID.set(None)

    def _look_up(self, route: str, method: str, status: int) -> tuple[Counter, Histogram]:
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
