"""``GET /model/card``: the page on the model that answers: the report of its training, and its model card."""

import base64
import hashlib
from functools import cache
from pathlib import Path
from typing import NamedTuple

from flask import Blueprint, Response, request
from jinja2 import Environment, FileSystemLoader
from markupsafe import Markup
from werkzeug.exceptions import NotFound

from artifact.files import read_regular
from artifact.layout import EXTRA, REPORT
from service.inference.errors import ModelUnavailable
from service.inference.registry import LoadedModel
from service.web import markdown
from service.web.errors import ErrorAnswer
from service.web.headers import ISOLATED
from service.web.operations import JSON, operation
from service.web.services import Services
from service.web.static_files import respond

HTML, MARKDOWN = "text/html", "text/markdown"
_MOST_BYTES = 16 * 1024 * 1024  # of a report or a plot


class Report(NamedTuple):
    """What is shown of the report that a version carries: the style of its page, and all that is in its ``<main>``."""

    style: str
    body: str


def blueprint(services: Services) -> Blueprint:
    """Return the route of the page."""
    routes = Blueprint("card", __name__)

    @routes.get("/model/card")
    @operation(answers={200: {HTML: str, MARKDOWN: str}, 304: {}, 404: {JSON: ErrorAnswer}}, errors=(ModelUnavailable,))
    def card() -> Response:
        """Show what is known of the version that answers: the report of its training, and its model card.

        To a client that accepts text/markdown rather than text/html it is the model card as it is in the version.
        """
        registry = services.registry
        model = registry.current
        if model is None:
            raise ModelUnavailable(registry.reason)
        wanted = request.accept_mimetypes.best_match((HTML, MARKDOWN), default=HTML)
        response = _card(model) if wanted == MARKDOWN else _page(model)
        response.vary.add("Accept")
        return response

    return routes


def _card(model: LoadedModel) -> Response:
    if model.card is None:
        raise NotFound
    return respond(request, model.card.encode(), f"{MARKDOWN}; charset=utf-8")


def _page(model: LoadedModel) -> Response:
    """Return the page; only the style that the report came with is let through, and no script at all."""
    report = _report(model)
    pictures = {} if report else _plots(model)  # the report has all of them, and more
    page = (
        _environment()
        .get_template("card.html")
        .render(
            name=model.name,
            version=model.version,
            report=report and {"style": Markup(report.style), "body": Markup(report.body)},  # noqa: S704 - see the policy
            card=None if model.card is None else markdown.to_html(model.card, pictures),
        )
    )
    digest = base64.b64encode(hashlib.sha256(report.style.encode()).digest()).decode() if report else ""
    style = f"'self' 'sha256-{digest}'" if report else "'self'"
    return respond(
        request, page.encode(), f"{HTML}; charset=utf-8", f"{ISOLATED}; style-src {style}; img-src 'self' data:"
    )


def _report(model: LoadedModel) -> Report | None:
    """Return the report of a version; None where it has none that is written as the trainer writes it."""
    text = (_content(model, REPORT) or b"").decode(errors="replace")
    _, opened, after = text.partition("<style>")
    style, closed, rest = after.partition("</style>")
    _, begun, after = rest.partition("<main>")
    body, ended, _ = after.rpartition("</main>")
    return Report(style, body) if opened and closed and begun and ended else None


def _plots(model: LoadedModel) -> dict[str, str]:
    """Return the plots of a version by name, each as an address that has the picture itself."""
    names = (Path(name) for name in model.metadata.files if name.startswith(f"{EXTRA}/") and name.endswith(".png"))
    found = ((name.name, _content(model, str(name))) for name in names)
    return {name: f"data:image/png;base64,{base64.b64encode(png).decode()}" for name, png in found if png}


def _content(model: LoadedModel, name: str) -> bytes | None:
    """Return the content of a file of the version; None where it cannot be read, as when it was removed meanwhile."""
    try:
        return read_regular(model.path / name, _MOST_BYTES)
    except OSError:
        return None


@cache
def _environment() -> Environment:
    folder = Path(__file__).parent / "templates"
    return Environment(loader=FileSystemLoader(folder), autoescape=True, trim_blocks=True, lstrip_blocks=True)
