"""What can go wrong with a request, and how it is told: one table of statuses, one place that renders."""

import http
import logging
from typing import NamedTuple

from flask import Flask, Response, g, jsonify
from werkzeug.exceptions import HTTPException, MethodNotAllowed, NotFound

log = logging.getLogger(__name__)


class ServiceError(Exception):
    """A request cannot be answered; the message says why and what to change."""


class InvalidRequest(ServiceError):
    """The request is not what the route takes."""


class InvalidImage(ServiceError):
    """The picture is damaged or cut short."""


class ImageTooLarge(ServiceError):
    """The picture has more pixels than are allowed."""


class BodyTooLarge(ServiceError):
    """The request's body has more bytes than are allowed."""


class TooManyItems(ServiceError):
    """A batch has more items than are allowed."""


class UnsupportedImage(ServiceError):
    """The content is not a picture in a format that is read here."""


class UnsupportedBody(ServiceError):
    """The body's content type is not one that the route takes."""


class SlowBody(ServiceError):
    """The client stopped sending before the body was complete."""


class QueueFull(ServiceError):
    """More images wait for the engine than are allowed."""


class ModelUnavailable(ServiceError):
    """There is no model that could answer."""


class DeadlineExceeded(ServiceError):
    """The request took longer than is allowed."""


class EngineFailed(ServiceError):
    """The engine raised an error on a batch."""


class _Rendering(NamedTuple):
    status: int
    name: str
    retry_after: int | None = None  # seconds


_RENDERINGS: dict[type[ServiceError], _Rendering] = {
    InvalidRequest: _Rendering(400, "invalid_request"),
    InvalidImage: _Rendering(400, "invalid_image"),
    SlowBody: _Rendering(408, "slow_body"),
    ImageTooLarge: _Rendering(413, "image_too_large"),
    BodyTooLarge: _Rendering(413, "body_too_large"),
    TooManyItems: _Rendering(413, "too_many_items"),
    UnsupportedImage: _Rendering(415, "unsupported_image"),
    UnsupportedBody: _Rendering(415, "unsupported_body"),
    EngineFailed: _Rendering(500, "engine_failed"),
    QueueFull: _Rendering(503, "queue_full", retry_after=1),
    ModelUnavailable: _Rendering(503, "model_unavailable", retry_after=5),
    DeadlineExceeded: _Rendering(504, "deadline_exceeded"),
}

_IMPLIED_METHODS = {"HEAD", "OPTIONS"}


def name_of(error: ServiceError) -> str:
    """Return the short name that stands for this kind of error in answers."""
    return _RENDERINGS[type(error)].name


def register(app: Flask) -> None:
    """Make every error of ``app`` a JSON answer ``{"success": false, "error": ..., "message": ...}``."""
    app.register_error_handler(ServiceError, _render_service_error)
    app.register_error_handler(HTTPException, _render_http_exception)
    app.register_error_handler(Exception, _render_unknown)


def _render_service_error(error: ServiceError) -> Response:
    rendering = _RENDERINGS[type(error)]
    response = _render(rendering.status, rendering.name, str(error))
    if rendering.retry_after is not None:
        response.headers["Retry-After"] = str(rendering.retry_after)
    return response


def _render_http_exception(error: HTTPException) -> Response:
    status = error.code or 500
    response = _render(status, _short_name(status), _message(error))
    for header, value in error.get_headers():
        if header.lower() in ("allow", "location", "retry-after"):
            response.headers[header] = value
    return response


def _render_unknown(error: Exception) -> Response:
    log.error("unexpected error", exc_info=error, extra={"fields": {"request_id": g.get("request_id")}})
    return _render(500, "internal_error", "The service failed on this request; its log has the details.")


def _render(status: int, name: str, message: str) -> Response:
    response = jsonify(success=False, error=name, message=message)
    response.status_code = status
    return response


def _short_name(status: int) -> str:
    return http.HTTPStatus(status).phrase.lower().replace(" ", "_").replace("-", "_")


def _message(error: HTTPException) -> str:
    if isinstance(error, NotFound):
        return "There is nothing here; POST a picture to /predict, or look at /health, /model and /metrics."
    if isinstance(error, MethodNotAllowed) and error.valid_methods:
        return f"This route takes {', '.join(sorted(set(error.valid_methods) - _IMPLIED_METHODS))}."
    return error.description or http.HTTPStatus(error.code or 500).phrase
