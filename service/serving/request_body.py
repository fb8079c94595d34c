"""A request's body as gunicorn reads it: what it costs to read is bounded, and one that cannot be read is the last."""

import io
from collections.abc import Iterator
from typing import Any

import gevent
from gunicorn.http.body import ChunkedReader, LengthReader
from gunicorn.http.message import Request

from service.inference.errors import InvalidRequest

# What chunks cost to read goes by their number. Most clients send some kilobytes in each.
_MOST_CHUNKS = 4096
_LEAST_CHUNK = 256  # bytes of each, in the mean of more than those
_CHUNKS_AT_ONCE = 64  # take up to a millisecond
_PAUSE = 0.0005  # seconds


class AnnouncedBody:
    """A request's body whose length the client has said."""

    def __init__(self, request: Request, reader: LengthReader) -> None:
        """Take the request, and gunicorn's reader of its body."""
        self._unreader = request.unreader
        self._reader = reader
        self.length = reader.length  # bytes

    def coming(self) -> int:
        """Return how many bytes have not been received yet; fewer than none where more than the body has been."""
        return self._reader.length - int(self._unreader.buf.tell())

    def skip(self) -> None:
        """Forget what was received and not read; nobody will read the rest either."""
        self._unreader.buf = io.BytesIO()
        self._reader.length = 0


def announced(request: Request) -> AnnouncedBody | None:
    """Return the body of ``request`` where its length is known."""
    reader = request.body.reader if request.body else None
    return AnnouncedBody(request, reader) if isinstance(reader, LengthReader) else None


def watch(request: Request) -> None:
    """Bound what reading the body of ``request`` costs, and let the connection end where it cannot be read."""
    body: Any = request.body  # the types are narrower than what gunicorn needs
    if body is None:
        return
    if isinstance(body.reader, ChunkedReader):
        chunks: Any = body.reader
        chunks.parser = _bounded(chunks.parser)
    body.reader = _Reader(body.reader, request)


class _Reader:
    """A reader of gunicorn's whose request is the last of its connection where it fails: what follows is unknown."""

    def __init__(self, reader: Any, request: Request) -> None:
        self._reader = reader
        self._request = request

    def read(self, size: int) -> bytes:
        try:
            data: bytes = self._reader.read(size)
        except Exception:
            self._request.must_close = True
            raise
        return data


def _bounded(blocks: Iterator[bytes]) -> Iterator[bytes]:
    """Yield ``blocks``, one or more for each chunk of a body, letting others go on meanwhile.

    Raises:
        InvalidRequest: the chunks are many and short.
    """
    size = 0
    for number, block in enumerate(blocks, 1):
        size += len(block)
        if number > _MOST_CHUNKS + size // _LEAST_CHUNK:
            raise InvalidRequest(
                f"The body comes in chunks of {size / number:.0f} bytes; send longer chunks, or the body's length."
            )
        if number % _CHUNKS_AT_ONCE == 0:
            gevent.sleep(_PAUSE)  # by a timer, so that the loop looks at its sockets
        yield block
