"""Between gunicorn and the application: receive the body, then answer on the event loop or, if it takes long, aside."""

from __future__ import annotations

import io
import time
from collections.abc import Callable, Iterable
from typing import IO, Any

from service.inference.errors import OVERLOADED, InvalidRequest, QueueFull, SlowBody
from service.serving.loop import Loop
from service.web.bodies import RECEIVED

Environ = dict[str, Any]
Application = Callable[[Environ, Callable[..., Any]], Iterable[bytes]]

_FIRST_BLOCK = 64 * 1024  # bytes, counted before they come: the most that a client can have counted and not send
_LARGEST_BLOCK = 1024 * 1024
_SHORT_BODY = 16 * 1024  # bytes: the worst that a body of this size can ask for is done in 30 milliseconds
_PROBES = ("/health", "/v2/health")


class Gateway:
    """The WSGI application that the worker calls in a greenlet of its event loop.

    A slow client keeps no thread busy while its body comes, and all bodies together stay within a limit.
    """

    def __init__(self, application: Application, loop: Loop, *, max_body: int, max_bodies: int, max_aside: int) -> None:
        """Take the application and the loop.

        ``max_body`` is the most bytes of one body, ``max_bodies`` of all that are here at one time; ``max_aside`` is
        how many requests with a body may run or wait aside. What is beyond the last two gets a 503.
        """
        self._application = application
        self._loop = loop
        self._max_body = max_body
        self._max_bodies = max_bodies
        self._max_aside = max_aside
        self._bodies = 0  # bytes
        self._aside = 0  # requests

    def __call__(self, environ: Environ, start_response: Callable[..., Any]) -> Iterable[bytes]:
        """Answer one request."""
        body = _Body(environ["wsgi.input"])
        try:
            complete = self._receive(environ, body)
            environ[RECEIVED] = time.monotonic()
            # An incomplete body is refused, which is quick, and what is left of it is read from the loop's socket.
            if not complete or _is_short(environ, body.size) or self._refused_aside(environ, body):
                with self._loop.request():
                    return self._application(environ, start_response)
            return self._answer_aside(environ, start_response)
        finally:
            self._bodies -= body.counted

    def _receive(self, environ: Environ, body: _Body) -> bool:
        """Put the body of ``environ`` into memory; say whether all of it is there.

        What is over the limit is left on the connection, and what goes wrong is raised where the application reads the
        body: it knows how to tell the client.
        """
        chunked = "HTTP_TRANSFER_ENCODING" in environ
        if chunked:
            length = self._max_body + 1
        else:
            length = int(environ.get("CONTENT_LENGTH") or 0)
            if length > self._max_body:
                return False
        try:
            if length and self._loop.overloaded():
                raise QueueFull(OVERLOADED)
            while (block := self._count_block(body, length)) and body.read_block() == block:  # less is the end
                if block == _LARGEST_BLOCK:  # a client that sends as fast as we read would keep all others out
                    self._loop.let_others_go_on()
            if body.size < length and not chunked:
                raise InvalidRequest("The body is shorter than its Content-Length says; send the whole of it.")
        except TimeoutError:  # Werkzeug would take it for a client that is gone
            body.error = SlowBody("The body stopped coming; send it without long pauses.")
        except Exception as error:  # noqa: BLE001 - the socket and gunicorn's parser raise many things
            body.error = error
        environ["wsgi.input"] = body if body.error or body.size > self._max_body else body.whole()
        return environ["wsgi.input"] is not body

    def _count_block(self, body: _Body, length: int) -> int:
        """Count the bytes of the next block of a body of ``length`` bytes before they come; none at its end."""
        block = body.next_block(length)
        if self._bodies + block > self._max_bodies:
            raise QueueFull("The bodies of other requests take all the memory there is; try again in a moment.")
        self._bodies += block
        body.counted += block
        return block

    def _refused_aside(self, environ: Environ, body: _Body) -> bool:
        """Refuse a request with a body where too many long ones wait, by what the application reads; say so."""
        if not body.size or self._aside < self._max_aside:
            return False
        body.error = QueueFull("Too many long requests wait already; try again in a moment.")
        environ["wsgi.input"] = body
        return True

    def _answer_aside(self, environ: Environ, start_response: Callable[..., Any]) -> Iterable[bytes]:
        def answer() -> list[bytes]:
            response = self._application(environ, start_response)
            try:
                return list(response)
            finally:
                if hasattr(response, "close"):
                    response.close()

        self._aside += 1
        try:
            return self._loop.offload(answer)
        finally:
            self._aside -= 1


class _Body:
    """A request's body, as far as it has been received."""

    def __init__(self, rest: IO[bytes]) -> None:
        """Take the stream that the body comes from."""
        self.size = 0  # bytes
        self.counted = 0  # bytes, also of a block that is still coming
        self.error: Exception | None = None
        self._blocks: list[bytes] = []
        self._rest = rest

    def next_block(self, length: int) -> int:
        """Return how many bytes of a body of ``length`` to receive next: no more than have come, from a few on."""
        return min(length - self.size, max(_FIRST_BLOCK, min(self.size, _LARGEST_BLOCK)))

    def read_block(self) -> int:
        """Receive the bytes that are counted; return how many there were."""
        block = self._rest.read(self.counted - self.size)
        self._blocks.append(block)
        self.size += len(block)
        return len(block)

    def whole(self) -> IO[bytes]:
        """Return all that was received as a stream."""
        content = io.BytesIO(b"".join(self._blocks))
        self._blocks.clear()
        return content

    def read(self, size: int = -1) -> bytes:
        """Raise what went wrong, or go on where receiving stopped: for the application, which will refuse it."""
        if self.error is not None:
            raise self.error
        return self._blocks.pop(0) if self._blocks else self._rest.read(size)


def _is_short(environ: Environ, size: int) -> bool:
    """Say whether a request is answered in a few milliseconds, apart from waiting for the engine."""
    if environ["REQUEST_METHOD"] == "POST":
        return size <= _SHORT_BODY and "HTTP_CONTENT_ENCODING" not in environ  # compressed, it may be any size
    path: str = environ["PATH_INFO"]
    return path.startswith(_PROBES)
