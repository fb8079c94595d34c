"""``GET /openapi.json``: the description of all routes."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from flask import Blueprint, current_app

from service import openapi, routes
from service.operations import operation

if TYPE_CHECKING:
    from service.app import Services


def blueprint(services: Services) -> Blueprint:
    """Return the routes that describe the others."""
    blueprint = Blueprint("docs", __name__)

    @blueprint.get("/openapi.json")
    @operation()
    def description() -> dict[str, Any]:
        """Describe every route by OpenAPI 3.1, with the images that the model takes."""
        model = services.registry.current
        return openapi.describe(current_app, routes.dialects(), model.metadata if model else None)

    return blueprint
