"""``GET /``: the page for people, and the files that it is made of."""

from pathlib import Path
from typing import Any

from flask import Blueprint, Response, request

from service.settings import Settings
from service.web.errors import ErrorAnswer
from service.web.headers import PAGE
from service.web.operations import JSON, only, operation
from service.web.services import Services
from service.web.static_files import HTML, PAGES, answers, page, respond, send

_UNKNOWN = {JSON: ErrorAnswer}
_ASSETS, _SAMPLES = PAGES / "assets", PAGES / "samples"


def blueprint(services: Services) -> Blueprint:
    """Return the page's routes; all it knows of the service, but what that keeps, it asks of the other routes."""
    routes = Blueprint("page", __name__)
    content = page("index.html", kept=kept_in_words(services.settings))
    asset_name, sample_name = _name_in(_ASSETS), _name_in(_SAMPLES)

    @routes.get("/")
    @operation(answers=answers(".html"))
    def classify() -> Response:
        """Show a page to drop pictures on."""
        return respond(request, content, HTML, PAGE)

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


def kept_in_words(settings: Settings) -> str:
    """Return which pictures are kept, where and for how long; an empty text where none are."""
    if settings.capture_dir is None:
        return ""
    by_chance = f"{100 * settings.capture_share:.3g} of 100 by chance, " if settings.capture_share else ""
    return (
        f"The service keeps some of them, with its answer, for people to label: {by_chance}those that it is "
        "not sure of, those that are unlike the pictures it learned from, and those whose answer somebody calls wrong. "
        f"They lie in a folder of the service, of at most {settings.capture_max_mb:,} MB, for at most "
        f"{settings.capture_days:g} days; those that somebody labels stay, to train on. Only who has a token sees them."
    )


def _name_in(folder: Path) -> Any:
    """Return the type of a parameter that names a file in ``folder``."""
    return only(str, "A file of the pages.", *sorted(file.name for file in folder.iterdir()))
