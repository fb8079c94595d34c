"""The Flask application: what every route shares, and the routes."""

import logging
import re
import secrets
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from flask import Flask, Request, Response, g, has_request_context, request
from flask.sessions import NullSession, SessionInterface
from werkzeug.routing import BaseConverter

from service import errors, logs, routes
from service.batcher import Batcher
from service.bodies import RECEIVED, BodyRequest, bound_body, compress, discard_body
from service.decoding import Decoder
from service.engine import Engine, load
from service.machine import usable_cores, usable_memory
from service.metrics import Metrics
from service.predictor import Predictor
from service.registry import Registry
from service.settings import BYTES_OF_A_PIXEL, Settings
from service.waiting import Threads, Waiting

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


@dataclass(frozen=True)
class Services:
    """What the routes need, made once per process."""

    settings: Settings
    registry: Registry
    predictor: Predictor
    metrics: Metrics
    draining: Callable[[], bool]
    clock: Callable[[], float]
    started: float

    def deadline(self) -> float:
        """Return when the present request must be answered, as a time of the clock."""
        received = request.environ.get(RECEIVED) if has_request_context() else None
        return float(received or self.clock()) + self.settings.request_deadline


def make_services(
    settings: Settings,
    metrics: Metrics,
    draining: Callable[[], bool],
    clock: Callable[[], float] = time.monotonic,
    waiting: Waiting | None = None,
) -> Services:
    """Wire the parts of one process. Nothing is loaded before ``registry.start`` or ``registry.refresh``.

    ``waiting`` is how requests wait; without it each has a thread of its own.
    """
    waiting = waiting or Threads()
    cores = usable_cores()
    engine_threads = max(1, cores // settings.workers)

    def load_engine(path: Path) -> Engine:
        return load(settings.engine, path, settings.precision, engine_threads)

    def make_batcher(engine: Engine, version: int) -> Batcher:
        return Batcher(engine, settings.queue_length, metrics.of(version), clock, waiting=waiting)

    registry = Registry(
        settings.model_dir, settings.model_name, settings.model_version, load_engine, make_batcher, metrics
    )
    decoder = Decoder(settings.max_image_pixels, _large_at_once(settings, cores), clock, waiting)
    predictor = Predictor(decoder, metrics.of, clock, waiting)
    return Services(settings, registry, predictor, metrics, draining, clock, clock())


def _large_at_once(settings: Settings, cores: int) -> int:
    """Return how many pictures of the largest size may be decoded at once: half of the memory is for them."""
    fit = usable_memory() // settings.workers // 2 // (settings.max_image_pixels * BYTES_OF_A_PIXEL)
    return max(1, min(cores, 4, fit))


def create_app(services: Services) -> Flask:
    """Return the application with all routes; ``services`` is all it works with."""
    app = Flask("service", static_folder=None)
    app.extensions["services"] = services
    app.request_class = BodyRequest
    app.session_interface = NoSessions()
    app.config["MAX_CONTENT_LENGTH"] = services.settings.max_body_bytes
    app.config["MAX_FORM_PARTS"] = services.settings.max_batch
    app.url_map.converters["model"] = ModelConverter
    errors.register(app, routes.dialects())
    _observe(app, services)
    _limit_body(app, services.settings)
    app.after_request(_compress)
    for blueprint in routes.blueprints(services):
        app.register_blueprint(blueprint)
    return app


def _compress(response: Response) -> Response:
    compress(request, response)
    return response


def _limit_body(app: Flask, settings: Settings) -> None:
    @app.before_request
    def refuse_large_body() -> None:
        bound_body(request, settings.max_body_bytes)

    @app.after_request
    def drop_the_rest(response: Response) -> Response:
        if response.status_code >= 400:  # an error may leave the body unread
            discard_body(request, limit=4 * settings.max_body_bytes)
        return response


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
