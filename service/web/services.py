"""What the routes work with."""

from collections.abc import Callable
from dataclasses import dataclass

from flask import Request

from service.captures.keeper import Keeper
from service.inference.explainer import Explainer
from service.inference.models import Models
from service.inference.predictor import Predictor
from service.inference.registry import Registry
from service.inference.runtime import Runtime
from service.inference.shadow import Shadow
from service.observe.metrics import Metrics
from service.observe.tracing import Tracer
from service.settings import Settings
from service.sources.follower import Follower
from service.web.access import Access
from service.web.bodies import RECEIVED
from service.web.headers import Origins
from service.web.notes import Notes


@dataclass(frozen=True)
class Services:
    """What the routes need, made once per process."""

    settings: Settings
    models: Models
    predictor: Predictor
    explainer: Explainer
    shadow: Shadow
    metrics: Metrics
    notes: Notes
    access: Access
    origins: Origins
    draining: Callable[[], bool]
    clock: Callable[[], float]
    started: float
    runtime: Runtime
    captures: Keeper | None = None  # where pictures are kept
    tracer: Tracer | None = None  # where requests are traced
    source: Follower | None = None  # where models come from elsewhere

    @property
    def registry(self) -> Registry:
        """The registry of the model that answers where a request names none."""
        return self.models.default

    def close(self) -> None:
        """Stop the threads that call native code, and write what waits to be kept, or send what waits to be sent."""
        if self.source is not None:
            self.source.close()
        self.shadow.close()
        self.models.close()
        if self.captures is not None:
            self.captures.close()
        if self.tracer is not None:
            self.tracer.close()

    def deadline(self, request: Request | None = None) -> float:
        """Return when ``request``, or one that is received now, must be answered, as a time of the clock."""
        received = request.environ.get(RECEIVED) if request else None
        return float(received or self.clock()) + self.settings.request_deadline
