"""The Flask application without its routes: bounded bodies, errors in JSON, request ids, metrics and the access log."""

import logging
import re
import secrets
from collections.abc import Iterable, Sequence

from flask import Blueprint, Flask, Request, Response, g, request
from flask.sessions import NullSession, SessionInterface
from werkzeug.routing import BaseConverter

from service.observe import logs
from service.settings import Settings
from service.web import errors
from service.web.bodies import BodyRequest, bound_body, compress
from service.web.errors import Dialect
from service.web.services import Services

access_log = logging.getLogger("service.access")

_REQUEST_ID = re.compile(r"[\x21-\x7e]{1,128}")
_METHODS = ("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS")
_UNKNOWN = "unknown"


class ModelConverter(BaseConverter):
    """The name of a model in a path; what follows a colon is what to do with it."""

    regex = "[^/:]+"


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
    app.url_map.converters["model"] = ModelConverter
    errors.register(app, dialects)
    _observe(app, services)
    _limit_body(app, services.settings)
    app.after_request(_compress)
    for blueprint in routes:
        app.register_blueprint(blueprint)
    return app


def _compress(response: Response) -> Response:
    compress(request, response)
    return response


def _limit_body(app: Flask, settings: Settings) -> None:
    @app.before_request
    def refuse_large_body() -> None:
        bound_body(request, settings.max_body_bytes)


def _observe(app: Flask, services: Services) -> None:
    """Count and time every request, name it, and log it where that is asked for."""
    metrics = services.metrics

    @app.before_request
    def begin() -> None:
        g.started = services.clock()
        asked = request.headers.get("X-Request-ID", "")
        g.request_id = asked if _REQUEST_ID.fullmatch(asked) else secrets.token_hex(16)
        logs.REQUEST_ID.set(g.request_id)
        metrics.in_flight.inc()

    @app.after_request
    def end(response: Response) -> Response:
        seconds = services.clock() - g.started
        route = request.url_rule.rule if request.url_rule else _UNKNOWN
        method = request.method if request.method in _METHODS else _UNKNOWN
        labels = (route, method, str(response.status_code))
        metrics.requests.labels(*labels).inc()
        metrics.request_seconds.labels(*labels).observe(seconds)
        response.headers["X-Request-ID"] = g.request_id
        if services.settings.access_log:
            _log_request(response, seconds)
        return response

    @app.teardown_request
    def leave(_: BaseException | None) -> None:
        metrics.in_flight.dec()
        logs.REQUEST_ID.set(None)  # the connection, or the thread, goes on to another request


def _log_request(response: Response, seconds: float) -> None:
    fields = {
        "client": request.remote_addr,
        "method": request.method,
        "path": request.path,
        "status": response.status_code,
        "milliseconds": round(seconds * 1000, 3),
        "bytes": response.content_length,
    }
    access_log.info("request", extra={"fields": fields})
