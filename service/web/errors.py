"""What can go wrong with a request, and how it is told: one table of statuses, one place that renders.

Protocols tell errors in their own form, a ``Dialect``, which goes by the beginning of the path.
"""

import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from http import HTTPStatus
from typing import NamedTuple

import msgspec
from flask import Flask, Response, request
from msgspec import Struct
from werkzeug.exceptions import HTTPException, MethodNotAllowed, NotFound

from service.captures.errors import FolderFails, Forbidden, NothingKept, TakenByAnother, UnknownCapture
from service.inference.errors import (
    BodyTooLarge,
    DeadlineExceeded,
    EngineFailed,
    ImageTooLarge,
    InvalidImage,
    InvalidRequest,
    ModelLoading,
    ModelUnavailable,
    NotExplainable,
    QueueFull,
    ReadOnlyModels,
    ServiceError,
    SlowBody,
    TooManyItems,
    UnknownModel,
    UnsupportedBody,
    UnsupportedImage,
)
from service.web.headers import EVERY_ANSWER_LINES

log = logging.getLogger(__name__)


class _Rendering(NamedTuple):
    status: int
    name: str
    content: bool = False  # the fault is in what the body says
    retry_after: int | None = None  # seconds


_RENDERINGS: dict[type[ServiceError], _Rendering] = {
    InvalidRequest: _Rendering(400, "invalid_request", content=True),
    InvalidImage: _Rendering(400, "invalid_image", content=True),
    UnknownModel: _Rendering(404, "unknown_model"),
    Forbidden: _Rendering(403, "forbidden"),
    NothingKept: _Rendering(404, "nothing_kept"),
    UnknownCapture: _Rendering(404, "unknown_capture"),
    SlowBody: _Rendering(408, "slow_body"),
    TakenByAnother: _Rendering(409, "taken_by_another"),
    ReadOnlyModels: _Rendering(409, "read_only_models"),
    ImageTooLarge: _Rendering(413, "image_too_large", content=True),
    BodyTooLarge: _Rendering(413, "body_too_large"),
    TooManyItems: _Rendering(413, "too_many_items", content=True),
    UnsupportedImage: _Rendering(415, "unsupported_image", content=True),
    UnsupportedBody: _Rendering(415, "unsupported_body"),
    EngineFailed: _Rendering(500, "engine_failed"),
    NotExplainable: _Rendering(501, "not_explainable"),
    FolderFails: _Rendering(503, "folder_fails", retry_after=5),
    QueueFull: _Rendering(503, "queue_full", retry_after=1),
    ModelUnavailable: _Rendering(503, "model_unavailable", retry_after=5),
    ModelLoading: _Rendering(503, "model_loading", retry_after=1),
    DeadlineExceeded: _Rendering(504, "deadline_exceeded"),
}

REASONS = (*(rendering.name for rendering in _RENDERINGS.values()), "internal_error")
"""The names that errors of predictions have; what is no request at all is named after its status."""

# Where these come from is the same for every route.
BODY_ERRORS = (InvalidRequest, SlowBody, BodyTooLarge, UnsupportedBody)
PREDICTION_ERRORS = (
    InvalidImage,
    ImageTooLarge,
    TooManyItems,
    UnsupportedImage,
    EngineFailed,
    QueueFull,
    ModelUnavailable,
    DeadlineExceeded,
)
CAPTURE_ERRORS = (Forbidden, NothingKept, FolderFails)

# Names for what cannot be read as a request, where they are not the status's own; Python renamed that of 414.
_UNREAD = {400: _RENDERINGS[InvalidRequest].name, 414: "uri_too_long"}

_IMPLIED_METHODS = {"HEAD", "OPTIONS"}
_KEPT_HEADERS = ("allow", "location", "retry-after", "www-authenticate")
_NO_ROUTE = "There is nothing here; POST a picture to /predict, or look at /docs, which lists every route."


@dataclass(frozen=True)
class Failure:
    """An error on its way to the client."""

    status: int
    name: str
    message: str
    retry_after: int | None = None  # seconds


@dataclass(frozen=True)
class Dialect:
    """How the clients of one protocol are told about errors.

    It holds for the paths that begin with ``prefix``. ``body`` is the type of what ``render`` makes. Where
    ``one_fault``, all that can be wrong with the content of a request is a 400. ``unknown_path`` is the status of a
    path that is no route, and ``no_route`` makes the message of its method and path.
    """

    prefix: str
    body: type[Struct]
    render: Callable[[Failure], Struct]
    one_fault: bool = False
    unknown_path: int = 404
    no_route: Callable[[str, str], str] = lambda method, path: _NO_ROUTE

    def status(self, error: type[ServiceError]) -> int:
        """Return the status of ``error`` in this dialect."""
        rendering = _RENDERINGS[error]
        return 400 if self.one_fault and rendering.content else rendering.status


class ErrorAnswer(Struct, kw_only=True):
    """What went wrong, as a word for programs and a sentence for people."""

    success: bool = False
    error: str
    message: str


OWN = Dialect("/", ErrorAnswer, lambda failure: ErrorAnswer(error=failure.name, message=failure.message))


def dialect_of(path: str, dialects: Sequence[Dialect]) -> Dialect:
    """Return the one of ``dialects`` that holds for ``path``; the project's own where none does."""
    return next((dialect for dialect in dialects if path.startswith(dialect.prefix)), OWN)


def name_of(error: ServiceError) -> str:
    """Return the short name that stands for this kind of error in answers."""
    return _RENDERINGS[type(error)].name


def failure_of(error: ServiceError, dialect: Dialect) -> Failure:
    """Return what ``error`` is to the clients of ``dialect``."""
    rendering = _RENDERINGS[type(error)]
    return Failure(dialect.status(type(error)), rendering.name, str(error), rendering.retry_after)


def encode(failure: Failure, dialect: Dialect) -> bytes:
    """Return the body of the answer that tells ``failure`` to the clients of ``dialect``."""
    return msgspec.json.encode(dialect.render(failure)) + b"\n"


def head_of(failure: Failure, body: bytes, connection: str) -> str:
    """Return the head of the answer with ``body``, for those that make it without Flask; its last lines are theirs."""
    again = "" if failure.retry_after is None else f"Retry-After: {failure.retry_after}\r\n"
    return (
        f"HTTP/1.1 {failure.status} {HTTPStatus(failure.status).phrase}\r\nContent-Type: application/json\r\n"
        f"Content-Length: {len(body)}\r\n{EVERY_ANSWER_LINES}{again}Connection: {connection}\r\n"
    )


def whole_answer(status: int, message: str, request_id: str) -> bytes:
    """Return an answer with its head, for what never becomes a request; the connection ends with it."""
    failure = Failure(status, _UNREAD.get(status) or _short_name(status), message)
    body = encode(failure, OWN)
    return f"{head_of(failure, body, 'close')}X-Request-ID: {request_id}\r\n\r\n".encode() + body


def register(app: Flask, dialects: Sequence[Dialect] = (), note: Callable[[str], None] = lambda name: None) -> None:
    """Make every error of ``app`` a JSON answer in the dialect of its path; ``note`` is told the error's name."""

    def answer(error: Exception) -> Response:
        return response_to(error, request.method, request.path, dialects, note)

    app.register_error_handler(Exception, answer)


def response_to(
    error: Exception, method: str, path: str, dialects: Sequence[Dialect], note: Callable[[str], None]
) -> Response:
    """Return the answer that tells the client who asked for ``path`` of ``error``; log what is the service's fault.

    ``note`` is told the error's name.
    """
    dialect = dialect_of(path, dialects)
    failure, headers = _failure(error, method, path, dialect)
    note(failure.name)
    response = Response(encode(failure, dialect), failure.status, content_type="application/json")
    if failure.retry_after is not None:
        response.headers["Retry-After"] = str(failure.retry_after)
    for header, value in headers:
        response.headers.add(header, value)
    return response


def failure_of_call(error: Exception, path: str) -> Failure:
    """Return what ``error`` is to a client who called ``path`` by another way than HTTP; see ``response_to``."""
    return _failure(error, "POST", path, OWN)[0]


def _failure(error: Exception, method: str, path: str, dialect: Dialect) -> tuple[Failure, list[tuple[str, str]]]:
    """Return what ``error`` is to the client, and the headers that belong to it."""
    if isinstance(error, MemoryError):
        log.warning("%s is refused: there is no memory for it", path)
        error = QueueFull("There is no memory for this request at the moment; try again later, or send less at once.")
    if isinstance(error, ServiceError):
        failure = failure_of(error, dialect)
        if failure.status == HTTPStatus.INTERNAL_SERVER_ERROR:
            log.error("%s answers %d: %s", path, failure.status, error)  # what failed has no request's id
        return failure, []
    if isinstance(error, HTTPException):
        status, message = error.code or 500, _message(error)
        if isinstance(error, NotFound):
            status, message = dialect.unknown_path, dialect.no_route(method, path)
        kept = [(name, value) for name, value in error.get_headers() if name.lower() in _KEPT_HEADERS]
        return Failure(status, _short_name(status), message), kept
    log.error("unexpected error", exc_info=error)
    return Failure(500, "internal_error", "The service failed on this request; its log has the details."), []


def _short_name(status: int) -> str:
    return HTTPStatus(status).phrase.lower().replace(" ", "_").replace("-", "_")


def _message(error: HTTPException) -> str:
    if isinstance(error, MethodNotAllowed) and error.valid_methods:
        return f"This route takes {', '.join(sorted(set(error.valid_methods) - _IMPLIED_METHODS))}."
    return error.description or HTTPStatus(error.code or 500).phrase
