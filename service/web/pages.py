"""``GET /``: the page for people, and the files that it is made of."""

from pathlib import Path
from typing import Any

from flask import Blueprint, Response, request

from service.web.errors import ErrorAnswer
from service.web.headers import ISOLATED
from service.web.operations import JSON, only, operation
from service.web.services import Services
from service.web.static_files import PAGES, answers, send

_POLICY = f"{ISOLATED}; script-src 'self'; style-src 'self'; img-src 'self' blob:; connect-src 'self'"
_UNKNOWN = {JSON: ErrorAnswer}
_ASSETS, _SAMPLES = PAGES / "assets", PAGES / "samples"


def blueprint(services: Services) -> Blueprint:
    """Return the page's routes; all it knows of the service it asks of the other routes."""
    routes = Blueprint("page", __name__)
    asset_name, sample_name = _name_in(_ASSETS), _name_in(_SAMPLES)

    @routes.get("/")
    @operation(answers=answers(".html"))
    def page() -> Response:
        """Show a page to drop pictures on."""
        return send(request, PAGES / "index.html", _POLICY)

    @routes.get("/favicon.ico")
    @operation(answers=answers(".svg"))
    def favicon() -> Response:
        """Give the icon that browsers ask for beside answers that are no pages."""
        return send(request, _ASSETS / "icon.svg")

    @routes.get("/assets/<name>")
    @operation(answers={**answers(".css", ".js", ".svg"), 404: _UNKNOWN})
    def asset(name: asset_name) -> Response:  # type: ignore[valid-type]  # made at run time
        """Give a style, a script or a drawing of the pages."""
        return send(request, _ASSETS / name)

    @routes.get("/samples/<name>")
    @operation(answers={**answers(".webp"), 404: _UNKNOWN})
    def sample(name: sample_name) -> Response:  # type: ignore[valid-type]  # made at run time
        """Give a drawing to try the model on."""
        return send(request, _SAMPLES / name)

    return routes


def _name_in(folder: Path) -> Any:
    """Return the type of a parameter that names a file in ``folder``."""
    return only(str, "A file of the pages.", *sorted(file.name for file in folder.iterdir()))
