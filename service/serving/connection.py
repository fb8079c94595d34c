"""A client's connection: answers in one piece, refusals under overload, and an end that loses nobody's answer."""

import contextlib
import errno
import logging
import os
from collections.abc import Callable
from typing import Any, Protocol

import gevent
from gevent import socket
from gevent.hub import Waiter

log = logging.getLogger(__name__)

STALLED_SECONDS = 20  # a client that sends nothing for so long in the middle of a request loses its connection

# What is left of a body when its answer is sent is read up to these limits; beyond, the connection ends.
DRAIN_BYTES = 128 * 1024 * 1024
DRAIN_SECONDS = 5.0

_BLOCK = 1024 * 1024  # bytes
_FIRST_BYTES = 8192  # what gunicorn's parser asks for
_HELD_BYTES = 64 * 1024  # of an answer, before they are sent
_READ = 1  # libev's name for it


class Shedding(Protocol):
    """What refuses requests while the service is overloaded."""

    def overloaded(self) -> bool:
        """Say whether requests come faster than they can be answered."""

    def refuse(self, data: bytes) -> bytes | None:
        """Return the answer that refuses the request that ``data`` is; None where it must not be refused."""


class Connection(socket.socket):
    """A client's socket. An answer is sent in one piece: that saves both sides a system call."""

    def __init__(self, client: socket.socket, idle: "set[Connection]", shedding: Shedding) -> None:
        """Take over ``client``; while no request has begun, the connection is in ``idle``.

        A request that ``shedding`` refuses is seen by nobody else.
        """
        super().__init__(client.family, client.type, client.proto, fileno=client.detach())
        self.settimeout(STALLED_SECONDS)
        self._idle = idle
        self._shedding = shedding
        self._begun = b""  # of a request, received and not read yet
        self._readable = gevent.get_hub().loop.io(self.fileno(), _READ)
        self._between_requests = True
        self._held: list[bytes] = []
        self._held_bytes = 0

    def recv(self, size: int, flags: int = 0) -> bytes:
        """Return what the client sent, up to ``size`` bytes; empty where it is gone.

        Raises:
            TimeoutError: it went silent in the middle of a request.
        """
        if self._between_requests:
            self._between_requests = False
            self._await_request()
        if self._begun:
            begun, self._begun = self._begun, b""
            return begun
        try:
            return super().recv(size, flags)
        except TimeoutError as error:
            raise _gone_silent() from error

    def sendall(self, data: Any, flags: int = 0) -> None:
        """Hold ``data`` until the answer is complete or long."""
        self._held.append(data)
        self._held_bytes += len(data)
        if self._held_bytes > _HELD_BYTES:
            self.flush()

    def flush(self) -> None:
        """Send what is held."""
        if self._held:
            data = memoryview(b"".join(self._held))
            self._held.clear()
            self._held_bytes = 0
            while data:  # sendall would give the client no longer for all of it than it may take for the next part
                try:
                    data = data[super().send(data) :]
                except TimeoutError as error:
                    raise _gone_silent() from error

    def drain(self, body: Any = None) -> bool:
        """Read and drop what is left of ``body`` after its answer; say whether another request may follow.

        Where too much is left or where it ends is unknown (None), the connection is half-closed, and what the client
        still sends is dropped for a while: closed at once, with bytes that nobody read, the kernel would reset it, and
        the client lose its answer.
        """
        if body is not None and _drop(body.read, DRAIN_BYTES):
            return True
        with contextlib.suppress(OSError):
            self.shutdown(socket.SHUT_WR)
            _drop(super().recv)
        return False

    def await_request(self, *, begun: bool) -> None:
        """Note that what comes next is another request, of which the parser has something already where ``begun``."""
        self._between_requests = not begun

    def hang_up(self) -> None:
        """Let the greenlet that waits for a request find the end of the stream, after what has arrived already."""
        with contextlib.suppress(OSError):
            self.shutdown(socket.SHUT_RD)

    def close(self) -> None:
        """Send what is held and close the socket."""
        try:
            self.flush()
        finally:
            self._readable.close()
            super().close()

    def _await_request(self) -> None:
        """Wait for what the client sends next, as long as the worker lets it; other connections go first."""
        waiter: Waiter[None] = Waiter()
        self._idle.add(self)
        self._readable.start(self._on_readable, waiter)
        try:
            waiter.get()
        finally:
            self._readable.stop()
            self._idle.discard(self)

    def _on_readable(self, waiter: "Waiter[None]") -> None:
        """Refuse the request that has arrived, or let the greenlet that waits for it go on.

        It is called by the event loop itself: changing to the greenlet would cost as much as the refusal.
        """
        if self._shedding.overloaded():
            begun = _read_unless_refused(self, self._shedding)
            if begun is None:
                return
            self._begun = begun
        waiter.switch(None)


def _read_unless_refused(connection: socket.socket, shedding: Shedding) -> bytes | None:
    """Return what has arrived of the next request on ``connection``; None where ``shedding`` has refused it."""
    data = b""
    try:
        data = os.read(connection.fileno(), _FIRST_BYTES)
        if (answer := shedding.refuse(data)) is not None:
            written = os.write(connection.fileno(), answer)
            if written == len(answer):
                return None
            data = b""
            connection.shutdown(socket.SHUT_RDWR)  # it asks and does not read; nothing may follow half an answer
    except OSError:
        pass  # the greenlet finds out; gevent's own methods would wait here
    except Exception:
        log.exception("a request could not be refused, so it is answered")
    return data


def _drop(read: Callable[[int], bytes], limit: float = float("inf")) -> bool:
    """Read and drop up to ``limit`` bytes, for some seconds; say whether that was all there is."""

    def all_dropped() -> bool:
        left = limit
        while left > 0:
            block = read(_BLOCK)
            if not block:
                return True
            left -= len(block)
            gevent.sleep(0)  # a client that sends as fast as it is read would keep all others waiting
        return False

    with contextlib.suppress(Exception):  # it is malformed, or the client is gone; the answer has been sent
        return bool(gevent.with_timeout(DRAIN_SECONDS, all_dropped, timeout_value=False))
    return False


def _gone_silent() -> TimeoutError:
    """Return the error for a silent client, with the number of one that is gone: gunicorn logs all others as faults."""
    return TimeoutError(errno.ECONNRESET, "the client went silent")
