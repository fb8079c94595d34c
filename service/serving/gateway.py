"""Between gunicorn and the application: receive the body, then answer on the event loop or offload to a thread."""

import errno
import io
import time
from collections.abc import Callable, Iterable
from typing import IO, Any, NamedTuple

import gevent
from gevent.lock import Semaphore

from service.inference.errors import OVERLOADED, InvalidRequest, QueueFull, SlowBody
from service.inference.offload import offloads_request
from service.serving.loop import Loop
from service.web.bodies import RECEIVED

Environ = dict[str, Any]
Application = Callable[[Environ, Callable[..., Any]], Iterable[bytes]]

_FIRST_BLOCK = 16 * 1024  # bytes, counted before they come: the most that a client can have counted and not send
_LARGEST_BLOCK = 256 * 1024
_PATIENCE = 2.0  # seconds for a block, where others need the room


class Snapshot(NamedTuple):
    """What a gateway has at one moment: bytes of bodies that are here or coming, and requests that are offloaded."""

    bodies: int
    offloaded: int


class Room:
    """How many bytes the bodies of requests may take together, and how many they take."""

    def __init__(self, limit: int) -> None:
        """Take the most bytes."""
        self._limit = limit
        self.taken = 0

    def take(self, size: int) -> bool:
        """Take ``size`` bytes; say whether there was room for them."""
        if self.taken + size > self._limit:
            return False
        self.taken += size
        return True

    def give_back(self, size: int) -> None:
        """Give ``size`` bytes back."""
        self.taken -= size


class Gateway:
    """The WSGI application that the worker calls in a greenlet of its event loop.

    A slow client keeps no thread busy while its body comes, and all bodies together stay within a limit.
    """

    def __init__(
        self,
        application: Application,
        loop: Loop,
        *,
        max_body: int,
        room: Room,
        max_offloaded: int,
        overloaded: Callable[[], bool] | None = None,
        lane_of: Callable[[Environ], str] = lambda _: "",
    ) -> None:
        """Take the application and the loop.

        ``max_body`` is the most bytes of one body, ``room`` is for all that are here at one time; ``max_offloaded``
        is how many requests with a body may be in threads or wait for one, of each lane, which ``lane_of`` tells: the
        model that they are for. What is beyond the last two gets a 503, and so does what comes while the loop is
        ``overloaded``.
        """
        self._application = application
        self._loop = loop
        self._max_body = max_body
        self._room = room
        self._max_offloaded = max_offloaded
        self._lane_of = lane_of
        self._overloaded = overloaded or loop.overloaded
        self._offloaded: dict[str, int] = {}  # requests, by lane
        self._coming: dict[_Body, None] = {}  # the one that has waited longest for its block first
        self._late = Semaphore()

    def snapshot(self) -> Snapshot:
        """Return what bodies take and how many requests are offloaded now."""
        return Snapshot(self._room.taken, sum(self._offloaded.values()))

    def __call__(self, environ: Environ, start_response: Callable[..., Any]) -> Iterable[bytes]:
        """Answer one request."""
        body = _Body(environ["wsgi.input"])
        try:
            complete = self._receive(environ, body)
            if isinstance(body.error, SlowBody):
                with self._late:  # one in a turn: thousands that began together end together
                    self._loop.let_others_go_on()
            environ[RECEIVED] = time.monotonic()
            # An incomplete body is refused, which is quick, and what is left of it is read from the loop's socket.
            if complete and _is_offloaded(environ, body.size):
                lane = self._lane_of(environ) if body.size else ""
                if not self._refuse_offloading(body, lane):
                    try:
                        return self._offload(environ, start_response, body, lane)
                    except QueueFull as error:  # of the loop, which has no thread for it
                        body.fail(error)
                environ["wsgi.input"] = body
            elif complete:
                environ["wsgi.input"] = body.whole()
            with self._loop.request():
                return self._application(environ, start_response)
        finally:
            self._room.give_back(body.counted)
            body.let_go()
            environ["wsgi.input"] = None

    def _receive(self, environ: Environ, body: "_Body") -> bool:
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
            if length and self._overloaded():
                raise QueueFull(OVERLOADED)
            while (block := self._count_block(body, length)) and body.read_block() == block:  # less is the end
                if block == _LARGEST_BLOCK:  # a client that sends as fast as we read would keep all others out
                    self._loop.let_others_go_on()
            if body.size < length and not chunked:
                raise InvalidRequest("The body is shorter than its Content-Length says; send the whole of it.")
            if body.size <= self._max_body:
                return True
        except TimeoutError:  # Werkzeug would take it for a client that is gone
            body.fail(SlowBody("The body stopped coming, or came too slowly; send it without long pauses."))
        except Exception as error:  # noqa: BLE001 - the socket and gunicorn's parser raise many things
            body.fail(error)
        finally:
            self._coming.pop(body, None)
        environ["wsgi.input"] = body
        return False

    def _count_block(self, body: "_Body", length: int) -> int:
        """Count the bytes of the next block of a body of ``length`` bytes before they come; none at its end."""
        block = body.next_block(length)
        self._coming.pop(body, None)
        while not self._room.take(block):
            slowest = next(iter(self._coming), None)
            if slowest is None or slowest.since > time.monotonic() - _PATIENCE:
                raise QueueFull("The bodies of other requests take all the memory there is; try again in a moment.")
            del self._coming[slowest]
            self._room.give_back(slowest.counted)
            slowest.give_up()
        body.counted += block
        self._coming[body] = None
        return block

    def _refuse_offloading(self, body: "_Body", lane: str) -> bool:
        """Refuse a request with a body where too many long ones wait, by what the application reads; say so."""
        if not body.size or self._offloaded.get(lane, 0) < self._max_offloaded:
            return False
        body.fail(QueueFull("Too many long requests wait already; try again in a moment."))
        return True

    def _offload(
        self, environ: Environ, start_response: Callable[..., Any], body: "_Body", lane: str
    ) -> Iterable[bytes]:
        """Answer in a thread: metrics and pages, which have no ``body``, do not wait for batches and photographs."""
        connection = environ.get("gunicorn.socket")

        def answer() -> list[bytes]:
            if connection is not None and connection.gone():  # while the request waited for a thread
                raise ConnectionResetError(errno.ECONNRESET, "the client is gone")
            environ["wsgi.input"] = body.whole()
            response = self._application(environ, start_response)
            try:
                return list(response)
            finally:
                if hasattr(response, "close"):
                    response.close()

        self._offloaded[lane] = self._offloaded.get(lane, 0) + 1
        try:
            return self._loop.offload(answer, lane) if body.size else self._loop.offload_beside(answer)
        finally:
            self._offloaded[lane] -= 1


class _Body:
    """A request's body, as far as it has been received."""

    def __init__(self, rest: IO[bytes]) -> None:
        """Take the stream that the body comes from."""
        self.size = 0  # bytes
        self.counted = 0  # bytes, also of a block that is still coming
        self.error: Exception | None = None
        self.since = time.monotonic()  # when the block that is coming was asked for
        self._blocks: list[bytes] = []
        self._rest = rest
        self._greenlet: Any = None  # that waits for a block
        self._given_up = False

    def next_block(self, length: int) -> int:
        """Return how many bytes of a body of ``length`` to receive next: no more than have come, from a few on."""
        return min(length - self.size, max(_FIRST_BLOCK, min(self.size, _LARGEST_BLOCK)))

    def read_block(self) -> int:
        """Receive the bytes that are counted; return how many there were.

        Raises:
            TimeoutError: they stopped coming, or others got their room.
        """
        self.since = time.monotonic()
        self._greenlet = gevent.getcurrent()
        try:
            block = b"" if self._given_up else self._rest.read(self.counted - self.size)
        finally:
            self._greenlet = None
        if self._given_up:
            raise TimeoutError
        self._blocks.append(block)
        self.size += len(block)
        return len(block)

    def fail(self, error: Exception) -> None:
        """Let go of what was received; who reads it is told of ``error``."""
        self._blocks.clear()
        self.error = error

    def let_go(self) -> None:
        """Let go of what was received, also where others hold on to this, as an error's traceback does."""
        self._blocks.clear()
        self.error = None

    def give_up(self) -> None:
        """Let go of what was received, which is not counted any more, and of the greenlet that waits for the rest."""
        self.counted = 0
        self._blocks.clear()
        self._given_up = True
        gevent.get_hub().loop.run_callback(self._interrupt)

    def _interrupt(self) -> None:
        if self._greenlet is not None:
            self._greenlet.throw(TimeoutError())

    def whole(self) -> "IO[bytes] | _Body":
        """Return all that was received as a stream; where there is no memory for that, this, which tells the reader."""
        try:
            content = io.BytesIO(b"".join(self._blocks))
        except MemoryError as error:
            self.fail(error)
            return self
        self._blocks.clear()
        return content

    def read(self, size: int = -1) -> bytes:
        """Raise what went wrong, or go on where receiving stopped: for the application, which will refuse it."""
        if self.error is not None:
            raise self.error
        return self._blocks.pop(0) if self._blocks else self._rest.read(size)


def _is_offloaded(environ: Environ, body: int) -> bool:
    compressed = "HTTP_CONTENT_ENCODING" in environ
    return offloads_request(environ["REQUEST_METHOD"], environ["PATH_INFO"], body, compressed=compressed)
