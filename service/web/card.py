"""``GET /model/card``: the page on the model that answers: the report of its training, its model card, its versions."""

import base64
import hashlib
from pathlib import PurePosixPath
from typing import Any, NamedTuple
from urllib.parse import urlencode

from flask import Blueprint, Response, request
from markupsafe import Markup
from werkzeug.exceptions import NotFound

from artifact.files import read_regular
from artifact.layout import EXTRA, REPORT
from service.inference.errors import ModelUnavailable, UnknownModel
from service.inference.loaded import LoadedModel
from service.inference.registry import Registry
from service.web import markdown
from service.web.errors import ErrorAnswer
from service.web.headers import ISOLATED
from service.web.operations import JSON, operation, read_query
from service.web.services import Services
from service.web.static_files import page, respond
from service.web.versions import side_by_side
from service.web.which import WHICH_QUERY, WhichQuery, asked

HTML, MARKDOWN, PNG = "text/html", "text/markdown", "image/png"
_MOST_BYTES = 16 * 1024 * 1024  # of a report or a plot


class Report(NamedTuple):
    """What is shown of the report that a version carries: the style of its page, and all that is in its ``<main>``."""

    style: str
    body: str


def blueprint(services: Services) -> Blueprint:
    """Return the routes of the page and of the plots on it."""
    routes = Blueprint("card", __name__)

    @routes.get("/model/card")
    @operation(
        query=WHICH_QUERY,
        answers={200: {HTML: str, MARKDOWN: str}, 304: {}, 404: {JSON: ErrorAnswer}},
        errors=(UnknownModel, ModelUnavailable),
    )
    def card() -> Response:
        """Show what is known of the version that answers: the report of its training, and its model card.

        To a client that accepts text/markdown rather than text/html it is the model card as it is in the version.
        """
        model, registry = _asked(services)
        wanted = request.accept_mimetypes.best_match((HTML, MARKDOWN), default=HTML)
        response = _card(model) if wanted == MARKDOWN else _page(model, registry)
        response.vary.add("Accept")
        return response

    @routes.get("/model/<plot>")
    @operation(
        query=WHICH_QUERY,
        answers={200: {PNG: Any}, 304: {}, 404: {JSON: ErrorAnswer}},
        errors=(UnknownModel, ModelUnavailable),
    )
    def plot(plot: str) -> Response:
        """Give a plot that the model card shows."""
        model, _ = _asked(services)
        content = _content(model, f"{EXTRA}/{plot}") if plot in _plots(model) else None
        if content is None:
            raise NotFound
        return respond(request, content, PNG)

    return routes


def _asked(services: Services) -> tuple[LoadedModel, Registry]:
    """Return the version that the request is for, and the registry of its model."""
    name, version, _ = asked(request, read_query(request, WhichQuery))
    registry = services.models.of(name)
    if version is not None:
        return registry.check(version), registry
    if (model := registry.current) is None:
        raise ModelUnavailable(registry.reason)
    return model, registry


def _card(model: LoadedModel) -> Response:
    if model.card is None:
        raise NotFound
    return respond(request, model.card.encode(), f"{MARKDOWN}; charset=utf-8")


def _page(model: LoadedModel, registry: Registry) -> Response:
    """Return the page; only the style that the report came with is let through, and no script at all."""
    report = _report(model)
    this = urlencode({"model": model.name, "version": model.version})
    # The report has all of them, and more. They lie beside the page.
    pictures = {} if report else {name: f"{name}?{this}" for name in _plots(model)}
    content = page(
        "card.html",
        up="../",
        name=model.name,
        version=model.version,
        this=this,
        answers=model.version in registry.shares(),
        report=report and {"style": Markup(report.style), "body": Markup(report.body)},  # noqa: S704 - see the policy
        versions=side_by_side(registry, model),
        parts=markdown.parts(model.card or "", pictures),
        card=None if model.card is None else markdown.to_html(model.card, pictures),
    )
    digest = base64.b64encode(hashlib.sha256(report.style.encode()).digest()).decode() if report else ""
    style = f"'self' 'sha256-{digest}'" if report else "'self'"
    return respond(request, content, f"{HTML}; charset=utf-8", f"{ISOLATED}; style-src {style}; img-src 'self' data:")


def _report(model: LoadedModel) -> Report | None:
    """Return the report of a version; None where it has none that is written as the trainer writes it."""
    text = (_content(model, REPORT) or b"").decode(errors="replace")
    _, opened, after = text.partition("<style>")
    style, closed, rest = after.partition("</style>")
    _, begun, after = rest.partition("<main>")
    body, ended, _ = after.rpartition("</main>")
    return Report(style, body) if opened and closed and begun and ended else None


def _plots(model: LoadedModel) -> set[str]:
    """Return the names of the plots of a version: those that its metadata list, and no other file."""
    listed = (PurePosixPath(name) for name in model.metadata.files)
    return {path.name for path in listed if path.parent == PurePosixPath(EXTRA) and path.suffix == ".png"}


def _content(model: LoadedModel, name: str) -> bytes | None:
    """Return the content of a file of the version; None where it cannot be read, as when it was removed meanwhile."""
    try:
        return read_regular(model.path / name, _MOST_BYTES)
    except OSError:
        return None
