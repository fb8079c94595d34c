"""``GET /openapi.json``: the description of all routes; ``GET /docs`` shows it."""

import importlib.resources
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from flask import Blueprint, Response, current_app, request
from werkzeug.exceptions import NotFound

from service.web import openapi
from service.web.errors import Dialect, ErrorAnswer
from service.web.headers import ISOLATED
from service.web.operations import JSON, only, operation
from service.web.services import Services
from service.web.static_files import PAGES, answers, send

SWAGGER_FILES = ("swagger-ui-bundle.js", "swagger-ui.css")

# Swagger UI sets styles in its elements and keeps its drawings in data: addresses; scripts come from files only.
_POLICY = (
    f"{ISOLATED}; script-src 'self'; style-src 'self' 'unsafe-inline'; img-src 'self' data: blob:; connect-src 'self'"
)


def blueprint(services: Services, dialects: Sequence[Dialect]) -> Blueprint:
    """Return the routes that describe the others."""
    blueprint = Blueprint("docs", __name__)
    file_name = only(str, "A file of Swagger UI.", *SWAGGER_FILES)

    @blueprint.get("/openapi.json")
    @operation()
    def description() -> dict[str, Any]:
        """Describe every route by OpenAPI 3.1, with the images that the model takes."""
        return openapi.describe(current_app, dialects, services.registry.current, services.access.refusals)

    @blueprint.get("/docs")
    @operation(answers=answers(".html"))
    def docs() -> Response:
        """Show a page that describes every route and lets one try them."""
        return send(request, PAGES / "docs.html", _POLICY)

    @blueprint.get("/docs/<name>")
    @operation(answers={**answers(".css", ".js"), 404: {JSON: ErrorAnswer}})
    def swagger_file(name: file_name) -> Response:  # type: ignore[valid-type]  # made at run time
        """Give a file of Swagger UI."""
        if name not in SWAGGER_FILES:
            raise NotFound
        return send(request, _swagger_ui() / name)

    return blueprint


def _swagger_ui() -> Path:
    """Return the folder of Swagger UI's files; its package's own Flask routes need scripts inside of the page."""
    return Path(str(importlib.resources.files("flask_swagger_ui"))) / "dist"
