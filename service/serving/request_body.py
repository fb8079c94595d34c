"""A request's body: what it costs to read is bounded, and one that cannot be read is the last of its connection."""

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
    """A request's body whose length the client has said.

    It takes the place of gunicorn's, whose buffers copy a photograph of 3 MB twenty times.
    """

    def __init__(self, request: Any, length: int) -> None:
        """Take the request, and the bytes of its body."""
        self.length = length
        self.failed = False  # where reading it did, and nobody knows what follows; gunicorn's name for it
        self._request = request
        self._unreader = request.unreader
        self._left = length  # bytes that are not read yet

    def coming(self) -> int:
        """Return how many bytes have not been received yet; fewer than none where more than the body has been."""
        return self._left - int(self._unreader.buf.tell())

    def skip(self) -> None:
        """Forget what was received and not read; nobody will read the rest either."""
        self._unreader.buf = io.BytesIO()
        self._left = 0

    def read(self, size: int | None = None) -> bytes:
        """Return the next ``size`` bytes, or all that are left; fewer only where the body or the stream ends.

        Raises:
            TimeoutError: the client went silent, or sends too slowly.
        """
        missing = self._left if size is None or size < 0 else min(size, self._left)
        blocks = []
        try:
            while missing and (block := self._receive(missing)):
                blocks.append(block)
                missing -= len(block)
        except BaseException:
            self.failed = self._request.must_close = True
            raise
        return b"".join(blocks)

    def _receive(self, most: int) -> bytes:
        """Return the next bytes, ``most`` at most: those that came with the head, then what the client sends."""
        block: bytes = self._unreader.buf.getvalue()
        if block:
            self._unreader.buf = io.BytesIO()
        else:
            block = self._unreader.chunk(most)
        if len(block) > most:  # of the next request, or not asked for yet
            self._unreader.buf.write(block[most:])
            block = block[:most]
        self._left -= len(block)
        return block


def announced(request: Request) -> AnnouncedBody | None:
    """Return the body of ``request`` where its length is known."""
    reader = request.body.reader if request.body else None
    return AnnouncedBody(request, reader.length) if isinstance(reader, LengthReader) else None


def watch(request: Any, announced: AnnouncedBody | None) -> None:
    """Bound what reading the body of ``request`` costs, and let the connection end where it cannot be read.

    ``announced`` is the body where its length is known.
    """
    if announced is not None:
        request.body = announced
        return
    body = request.body
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
