"""``GET /metrics`` for Prometheus."""

from flask import Blueprint, Response

from service.observe.metrics import CONTENT_TYPE
from service.web.operations import operation
from service.web.services import Services


def blueprint(services: Services) -> Blueprint:
    """Return the route that Prometheus reads."""
    routes = Blueprint("metrics", __name__)

    @routes.get("/metrics")
    @operation(answers={200: {"text/plain": str}})
    def metrics() -> Response:
        """Return the metrics of all workers in Prometheus' text format."""
        return Response(services.metrics.render(), content_type=CONTENT_TYPE)

    return routes
