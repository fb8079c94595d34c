"""``GET /review``: the page on which people label the pictures that were kept, one after another."""

from flask import Blueprint, Response, request

from service.captures.errors import NothingKept
from service.web.errors import CAPTURE_ERRORS
from service.web.headers import PAGE
from service.web.operations import operation
from service.web.services import Services
from service.web.static_files import HTML, answers, page, respond


def blueprint(services: Services) -> Blueprint:
    """Return the page's route; all it knows of the pictures it asks of ``/captured``."""
    routes = Blueprint("review", __name__)
    content = page("review.html")

    @routes.get("/review")
    @operation(answers=answers(".html"), errors=CAPTURE_ERRORS)
    def review() -> Response:
        """Show a page to label the pictures that were kept; it needs a token, which browsers ask for as a password."""
        if services.captures is None:
            raise NothingKept("The service keeps no pictures: set CAPTURE_DIR to a folder for them.")
        return respond(request, content, HTML, PAGE)

    return routes
