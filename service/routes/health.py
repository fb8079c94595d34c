"""``GET /health``, ``/health/live`` and ``/health/ready``: what probes ask."""

from __future__ import annotations

from typing import TYPE_CHECKING

from flask import Blueprint, Response, jsonify

if TYPE_CHECKING:
    from service.app import Services


def blueprint(services: Services) -> Blueprint:
    """Return the routes for probes."""
    routes = Blueprint("health", __name__, url_prefix="/health")

    @routes.get("")
    def summary() -> Response:
        """Say how it stands; 503 when it is not ready."""
        status, reason = _status(services)
        model = services.registry.current
        response = jsonify(
            status=status,
            reason=reason,
            model={"name": model.name, "version": model.version} if model else None,
            engine={"name": model.engine.name, "precision": model.engine.precision} if model else None,
            uptime_seconds=round(services.clock() - services.started, 3),
        )
        return _coded(response, status)

    @routes.get("/live")
    def live() -> Response:
        """Say that the process is up."""
        return jsonify(status="live")

    @routes.get("/ready")
    def ready() -> Response:
        """Say whether it can answer now: there is a model, it is warm, and the service is not stopping."""
        status, reason = _status(services)
        return _coded(jsonify(status=status, reason=reason), status)

    return routes


def _status(services: Services) -> tuple[str, str | None]:
    if services.draining():
        return "draining", "The service is stopping."
    if services.registry.current is None:
        return "unavailable", services.registry.reason
    return "ready", None


def _coded(response: Response, status: str) -> Response:
    response.status_code = 200 if status == "ready" else 503
    response.headers["Cache-Control"] = "no-store"
    return response
