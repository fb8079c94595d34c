"""``GET /``: the page for people, and the files that it is made of."""

from __future__ import annotations

from typing import Literal, get_args

from flask import Blueprint, Response, request
from werkzeug.exceptions import NotFound

from service.web.errors import ErrorAnswer
from service.web.operations import JSON, operation
from service.web.services import Services
from service.web.static_files import ISOLATED, PAGES, answers, send

Asset = Literal[
    "cards.js",
    "curl.js",
    "docs.css",
    "docs.js",
    "files.js",
    "filters.js",
    "icon.svg",
    "model.js",
    "page.css",
    "page.js",
    "send.js",
]
Sample = Literal["airplane.webp", "automobile.webp", "bird.webp", "cat.webp", "frog.webp", "ship.webp"]

_POLICY = f"{ISOLATED}; script-src 'self'; style-src 'self'; img-src 'self' blob:; connect-src 'self'"
_UNKNOWN = {JSON: ErrorAnswer}


def blueprint(services: Services) -> Blueprint:
    """Return the page's routes; all it knows of the service it asks of the other routes."""
    routes = Blueprint("page", __name__)

    @routes.get("/")
    @operation(answers=answers(".html"))
    def page() -> Response:
        """Show a page to drop pictures on."""
        return send(request, PAGES / "index.html", _POLICY)

    @routes.get("/favicon.ico")
    @operation(answers=answers(".svg"))
    def favicon() -> Response:
        """Give the icon that browsers ask for beside answers that are no pages."""
        return send(request, PAGES / "icon.svg")

    @routes.get("/assets/<name>")
    @operation(answers={**answers(".css", ".js", ".svg"), 404: _UNKNOWN})
    def asset(name: Asset) -> Response:
        """Give a style, a script or a drawing of the pages."""
        if name not in get_args(Asset):
            raise NotFound
        return send(request, PAGES / name)

    @routes.get("/samples/<name>")
    @operation(answers={**answers(".webp"), 404: _UNKNOWN})
    def sample(name: Sample) -> Response:
        """Give a drawing to try the model on."""
        if name not in get_args(Sample):
            raise NotFound
        return send(request, PAGES / "samples" / name)

    return routes
