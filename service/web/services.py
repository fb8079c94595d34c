"""What the routes work with."""

from collections.abc import Callable
from dataclasses import dataclass

from flask import Request

from service.inference.predictor import Predictor
from service.inference.registry import Registry
from service.inference.runtime import Runtime
from service.observe.metrics import Metrics
from service.settings import Settings
from service.web.access import Access
from service.web.bodies import RECEIVED
from service.web.headers import Origins
from service.web.notes import Notes


@dataclass(frozen=True)
class Services:
    """What the routes need, made once per process."""

    settings: Settings
    registry: Registry
    predictor: Predictor
    metrics: Metrics
    notes: Notes
    access: Access
    origins: Origins
    draining: Callable[[], bool]
    clock: Callable[[], float]
    started: float
    runtime: Runtime

    def deadline(self, request: Request | None = None) -> float:
        """Return when ``request``, or one that is received now, must be answered, as a time of the clock."""
        received = request.environ.get(RECEIVED) if request else None
        return float(received or self.clock()) + self.settings.request_deadline
