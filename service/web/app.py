"""The Flask application without its routes: who may ask, bounded bodies, errors in JSON, request ids, metrics, log."""

import re
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

from flask import Blueprint, Flask, Request, Response, g, request
from flask.sessions import NullSession, SessionInterface
from werkzeug.routing import BaseConverter

from service.inference.errors import InvalidRequest
from service.inference.plan import LABEL, NUMBER
from service.settings import Settings
from service.web import errors
from service.web.bodies import BodyRequest, bound_body, compress
from service.web.errors import Dialect, dialect_of
from service.web.headers import complete
from service.web.notes import Answered
from service.web.operations import declared, query_fault
from service.web.services import Services
from service.web.which import version_in

_METHODS = ("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS")
_UNKNOWN = "unknown"
_SLASHES = re.compile("/{2,}")


class ModelConverter(BaseConverter):
    """The name of a model in a path; what follows a colon is what to do with it."""

    regex = "[^/:]+"


class VersionConverter(BaseConverter):
    """A version in a path: its number, or a label."""

    regex = f"{NUMBER.pattern}|{LABEL.pattern}"

    def to_python(self, value: str) -> int | str:
        """Return the number, or the label."""
        return version_in(value)


class LabelConverter(BaseConverter):
    """The label of a version in a path."""

    regex = LABEL.pattern


class NoSessions(SessionInterface):
    """There are no sessions; Flask would look for a cookie at each request, and for changes at each answer."""

    session = NullSession()

    def open_session(self, app: Flask, request: Request) -> NullSession:
        """Return the one session, which is none."""
        return self.session


def make_app(services: Services, routes: Iterable[Blueprint], dialects: Sequence[Dialect]) -> Flask:
    """Return the application with ``routes``, which tells errors in ``dialects``; ``services`` is all it works with."""
    app = Flask("service", static_folder=None)
    app.extensions["services"] = services
    app.request_class = BodyRequest
    app.session_interface = NoSessions()
    app.config["MAX_CONTENT_LENGTH"] = services.settings.max_body_bytes
    app.config["MAX_FORM_PARTS"] = services.settings.max_batch
    app.url_map.converters.update(model=ModelConverter, version=VersionConverter, label=LabelConverter)
    _merge_slashes(app)
    errors.register(app, dialects, services.notes.error)
    _observe(app, services)
    _admit(app, services)
    _check_query(app, dialects)
    _limit_body(app, services.settings)
    app.after_request(_compress)
    for blueprint in routes:
        app.register_blueprint(blueprint)
    services.notes.expect(_answers(app, dialects, services.access.refusals), errors.REASONS)
    return app


def _answers(app: Flask, dialects: Sequence[Dialect], refusals: Sequence[int]) -> Iterator[tuple[str, str, int]]:
    """Yield what requests that are traffic may get: the route, the method and the status of each answer."""
    for rule in app.url_map.iter_rules():
        operation = declared(app.view_functions[rule.endpoint])
        if operation is None or "POST" not in (rule.methods or ()):
            continue
        dialect = dialect_of(rule.rule, dialects)
        faults = (dialect.status(error) for error in (*operation.errors, *errors.BODY_ERRORS))
        for status in {*operation.answers, *faults, *refusals, 500}:
            yield rule.rule, "POST", int(status)


def _merge_slashes(app: Flask) -> None:
    """Read several slashes as one: a redirect would lead to the origin's root, also where a proxy took a path away."""
    answer = app.wsgi_app

    def wsgi_app(environ: dict[str, Any], start_response: Any) -> Any:
        if "//" in environ["PATH_INFO"]:
            environ["PATH_INFO"] = _SLASHES.sub("/", environ["PATH_INFO"])
        return answer(environ, start_response)

    app.wsgi_app = wsgi_app  # type: ignore[method-assign]  # as Flask's documentation does


def _compress(response: Response) -> Response:
    compress(request, response)
    return response


def _check_query(app: Flask, dialects: Sequence[Dialect]) -> None:
    """Refuse parameters that a route does not take: one that is misspelt would else be as good as none."""

    @app.before_request
    def refuse_unknown_parameters() -> None:
        if not request.query_string or request.endpoint is None or request.method == "OPTIONS":
            return
        operation = declared(app.view_functions[request.endpoint])
        query = request.query_string.decode("latin-1")
        fault = operation and query_fault(operation, request.path, query, dialects)
        if fault:
            raise InvalidRequest(fault)


def _limit_body(app: Flask, settings: Settings) -> None:
    @app.before_request
    def refuse_large_body() -> None:
        bound_body(request, settings.max_body_bytes)


def _admit(app: Flask, services: Services) -> None:
    """Let in who may ask, and say in every answer what browsers may do with it."""

    @app.before_request
    def check() -> None:
        rule = request.url_rule.rule if request.url_rule else None
        preflight = services.origins.is_preflight(request.environ)
        g.user = services.access.check(request.environ, rule, preflight=preflight)

    @app.after_request
    def protect(response: Response) -> Response:
        complete(response)
        services.origins.allow(request.environ, response)
        return response


def _observe(app: Flask, services: Services) -> None:
    """Note what becomes of every request."""
    notes = services.notes

    @app.before_request
    def begin() -> None:
        g.begun = notes.begin(request.environ, request.url_rule.rule if request.url_rule else None, request.path)
        if services.captures is not None:
            services.captures.heed(request.headers.get("X-Darkroom-Capture"))

    @app.after_request
    def end(response: Response) -> Response:
        route = request.url_rule.rule if request.url_rule else _UNKNOWN
        method = request.method if request.method in _METHODS else _UNKNOWN
        size = response.content_length
        client = services.access.client(request.environ)
        answered = Answered(route, method, response.status_code, client, request.path, size, g.get("user"))
        notes.end(g.begun, answered)
        response.headers["X-Request-ID"] = g.begun.request_id
        return response

    @app.teardown_request
    def leave(_: BaseException | None) -> None:
        if "begun" in g:
            notes.leave()
