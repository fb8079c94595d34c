"""Answer short requests for predictions on the event loop, by the same views as Flask, without gunicorn's parser.

Both together take longer than the engine does for a small picture, and where each photograph of a crowd has a thread,
most of the threads wait (benchmarks/NOTES.md). What is not plain, not whole, compressed, or longer than what stays on
the loop goes their way.
"""

import functools
import re
import time
from collections.abc import Sequence
from email.utils import formatdate
from http import HTTPStatus
from typing import Any, NamedTuple

import msgspec
from flask import Flask, Response

from service.inference.errors import InvalidRequest
from service.inference.offload import offloads_plain_request
from service.serving.gateway import Room
from service.serving.loop import Loop
from service.serving.plain_requests import PlainRequest
from service.web.bodies import ShortRequest, compress, compressible
from service.web.errors import Dialect, response_to
from service.web.headers import EVERY_ANSWER_LINES, complete
from service.web.notes import Answered
from service.web.operations import JSON, Prediction, prediction_at, query_fault, response_of
from service.web.services import Services

_FILE = re.compile(rb"\r\ncontent-type:[ \t]*(?:image/|multipart/form-data)", re.IGNORECASE)
_PHRASES = {status.value: status.phrase for status in HTTPStatus}
_JSON_HEADER = f"Content-Type: {JSON}\r\n{EVERY_ANSWER_LINES}"


class _Route(NamedTuple):
    """What answers a target: the view, what its path and its query say, and what is wrong with the query, if any."""

    prediction: Prediction
    path: str
    query: str
    fault: str | None


class ShortRequests:
    """Answers whole requests that came in one piece."""

    def __init__(self, app: Flask, dialects: Sequence[Dialect], services: Services, loop: Loop, room: Room) -> None:
        """Take the application, whose routes say which of them predict, and the ``room`` that all bodies have."""
        self._app = app
        self._dialects = dialects
        self._notes = services.notes
        self._captures = services.captures
        self._access = services.access
        self._origins = services.origins
        self._loop = loop
        self._room = room
        self._max_body = services.settings.max_body_bytes
        self._max_parts = services.settings.max_batch
        self._of = functools.lru_cache(maxsize=256)(self._route)

    def takes(self, request: PlainRequest) -> bool:
        """Say whether ``request`` is answered here once it is whole."""
        file = _FILE.search(request.head) is not None
        long = request.length > self._max_body or offloads_plain_request(request.length, file=file)
        return not long and self._of(request.target) is not None

    def answer(self, request: PlainRequest, client: str | None = None) -> bytes | None:
        """Return the answer to ``request``, which ``takes`` accepted; None where another parser should read it."""
        route = self._of(request.target)
        environ = _environ(request, client) if route is not None else None
        if route is None or environ is None or not self._room.take(request.length):
            return None
        begun = self._notes.begin(environ, route.prediction.rule, route.path)
        client = self._access.client(environ)
        if self._captures is not None:
            self._captures.heed(environ.get("HTTP_X_DARKROOM_CAPTURE"))
        try:
            with self._loop.request():
                user, status, headers, body = self._respond(route, environ, request.body)
            answered = Answered(route.prediction.rule, "POST", status, client, route.path, len(body), user)
            self._notes.end(begun, answered)
        finally:
            self._room.give_back(request.length)
            self._notes.leave()
        more = f"X-Request-ID: {begun.request_id}\r\nContent-Length: {len(body)}\r\nDate: {_date(int(time.time()))}"
        head = f"HTTP/1.1 {status} {_PHRASES[status]}\r\n{headers}{more}\r\nConnection: keep-alive\r\n\r\n"
        return head.encode("latin-1") + body

    def _respond(self, route: _Route, environ: dict[str, Any], content: bytes) -> tuple[str | None, int, str, bytes]:
        """Return whose token let the request in, if any, and the answer: status, headers and body."""
        request = ShortRequest(environ, route.path, route.query, content, self._max_parts)
        user = None
        try:
            user = self._access.check(environ, route.prediction.rule)
            if route.fault is not None:
                raise InvalidRequest(route.fault)
            answer = route.prediction.operation.answer(request, **route.prediction.values)
            if isinstance(answer, msgspec.Struct) and not self._origins.headers(environ):
                body = msgspec.json.encode(answer) + b"\n"
                if not compressible(len(body)):
                    return user, 200, _JSON_HEADER, body
            response = response_of(answer)
        except Exception as error:  # noqa: BLE001 - a view may raise anything, as in Flask
            response = response_to(error, "POST", route.path, self._dialects, self._notes.error)
        compress(request, response)
        complete(response)
        self._origins.allow(environ, response)
        return user, response.status_code, _headers(response), response.get_data()

    def _route(self, target: bytes) -> _Route | None:
        path, _, query = target.decode("ascii").partition("?")
        prediction = None if "%" in path else prediction_at(self._app, path)  # the parser unquotes
        if prediction is None:
            return None
        return _Route(prediction, path, query, query_fault(prediction.operation, path, query, self._dialects))


def _environ(request: PlainRequest, client: str | None) -> dict[str, Any] | None:
    """Return what WSGI calls the environment; None for heads that it has no one word for."""
    environ: dict[str, Any] = {"REQUEST_METHOD": "POST", "REMOTE_ADDR": client}
    for line in request.head.decode("latin-1").split("\r\n")[1:]:
        name, _, value = line.partition(":")
        key = _key(name)
        if key is None or key in environ:
            return None
        environ[key] = value.strip(" \t")
    return environ


@functools.lru_cache(maxsize=256)
def _key(name: str) -> str | None:
    """Return the key of a header in WSGI's environment; None for those that change what a body means.

    Of two headers whose names differ by an underscore, WSGI cannot tell which came.
    """
    word = name.upper().replace("-", "_")
    if "_" in name or word == "CONTENT_ENCODING":
        return None
    return word if word in ("CONTENT_TYPE", "CONTENT_LENGTH") else f"HTTP_{word}"


def _headers(response: Response) -> str:
    return "".join(f"{name}: {value}\r\n" for name, value in response.headers if name != "Content-Length")


@functools.lru_cache(maxsize=1)
def _date(seconds: int) -> str:
    return formatdate(seconds, usegmt=True)
