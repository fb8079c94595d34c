"""``GET /``: the page for people, and the files that it is made of."""

from flask import Blueprint, Response, request

from service.web.errors import ErrorAnswer
from service.web.operations import JSON, operation
from service.web.services import Services
from service.web.static_files import ISOLATED, PAGES, FileName, answers, send

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
        return send(request, PAGES / "assets" / "icon.svg")

    @routes.get("/assets/<name>")
    @operation(answers={**answers(".css", ".js", ".svg"), 404: _UNKNOWN})
    def asset(name: FileName) -> Response:
        """Give a style, a script or a drawing of the pages."""
        return send(request, PAGES / "assets" / name)

    @routes.get("/samples/<name>")
    @operation(answers={**answers(".webp"), 404: _UNKNOWN})
    def sample(name: FileName) -> Response:
        """Give a drawing to try the model on."""
        return send(request, PAGES / "samples" / name)

    return routes
