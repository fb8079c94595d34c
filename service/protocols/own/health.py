"""``GET /health``, ``/health/live`` and ``/health/ready``: what probes ask."""

from flask import Blueprint
from msgspec import Struct

from service.inference.loaded import LoadedModel
from service.web.operations import operation
from service.web.services import Services


class ServedModel(Struct):
    """The model version that answers."""

    name: str
    version: int


class EngineInUse(Struct):
    """What runs the model, and in which arithmetic; ``measured`` is the milliseconds for an image in each one tried."""

    name: str
    precision: str
    measured: dict[str, float]


class Health(Struct):
    """How the service stands: ready, unavailable or draining, and why."""

    status: str
    reason: str | None
    model: ServedModel | None
    engine: EngineInUse | None
    uptime_seconds: float


class Live(Struct):
    """The process is up."""

    status: str


class Ready(Struct):
    """Whether the service can answer: ready, unavailable or draining, and why."""

    status: str
    reason: str | None


def blueprint(services: Services) -> Blueprint:
    """Return the routes for probes."""
    routes = Blueprint("health", __name__, url_prefix="/health")

    @routes.get("")
    @operation(also=(503,))
    def summary() -> tuple[Health, int]:
        """Say how the service stands; 503 when it is not ready."""
        status, reason = readiness(services)
        model = services.registry.current
        health = Health(
            status=status,
            reason=reason,
            model=ServedModel(model.name, model.version) if model else None,
            engine=engine_in_use(model) if model else None,
            uptime_seconds=round(services.clock() - services.started, 3),
        )
        return health, _code(status)

    @routes.get("/live")
    @operation()
    def live() -> Live:
        """Say that the process is up."""
        return Live("live")

    @routes.get("/ready")
    @operation(also=(503,))
    def ready() -> tuple[Ready, int]:
        """Say whether it can answer now: there is a model, it is warm, and the service is not stopping."""
        status, reason = readiness(services)
        return Ready(status, reason), _code(status)

    return routes


def readiness(services: Services) -> tuple[str, str | None]:
    """Return how the service stands, ready, unavailable or draining, and the reason where it is not ready."""
    if services.draining():
        return "draining", "The service is stopping."
    reason = services.models.unready
    if reason is None:
        return "ready", None
    fetching = services.source.reason if services.source is not None and services.registry.current is None else None
    return "unavailable", f"{reason} MODEL_SOURCE: {fetching}" if fetching else reason


def engine_in_use(model: LoadedModel) -> EngineInUse:
    """Return what runs ``model``."""
    measured = {name: round(milliseconds, 3) for name, milliseconds in model.engine.measured.items()}
    return EngineInUse(model.engine.name, model.engine.precision, measured)


def _code(status: str) -> int:
    return 200 if status == "ready" else 503
