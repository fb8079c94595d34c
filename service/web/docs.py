"""``GET /openapi.json``: the description of all routes; ``GET /docs`` shows it."""

import importlib.resources
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import msgspec
from flask import Blueprint, Flask, Response, current_app, request
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

    described = _Description(services, dialects)

    @blueprint.get("/openapi.json")
    @operation(answers={200: {JSON: dict[str, Any]}})
    def description() -> Response:
        """Describe every route by OpenAPI 3.1, with the images that the model takes and the labels that it knows."""
        return Response(described.encoded(current_app), content_type=JSON)

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


class _Description:
    """The description as JSON, which takes milliseconds to make and is the same as long as a version answers."""

    def __init__(self, services: Services, dialects: Sequence[Dialect]) -> None:
        self._services = services
        self._dialects = dialects
        self._made: tuple[object, bytes] | None = None  # of which version, and the description

    def encoded(self, app: Flask) -> bytes:
        """Return the description of ``app`` with the version that answers now."""
        model, several = self._services.registry.current, self._services.models.count > 1
        version = None if model is None else (model.name, model.version, model.loaded_at, model.labels, several)
        made = self._made
        if made is None or made[0] != version:
            refusals = self._services.access.refusals
            description = openapi.describe(app, self._dialects, model, refusals, several=several)
            made = self._made = (version, msgspec.json.encode(description) + b"\n")
        return made[1]


def _swagger_ui() -> Path:
    """Return the folder of Swagger UI's files; its package's own Flask routes need scripts inside of the page."""
    return Path(str(importlib.resources.files("flask_swagger_ui"))) / "dist"
