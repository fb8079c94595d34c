"""gunicorn's gevent worker, as this service needs it: a greenlet for each connection, and nobody is left behind."""

from __future__ import annotations

import contextlib
import ctypes
import errno
import functools
import logging
import os
import secrets
import struct
import sys
import time
from types import FrameType
from typing import Any, Protocol, runtime_checkable

import gevent
from gevent import socket
from gevent.event import Event
from gevent.hub import Waiter
from gevent.pool import Pool
from gevent.server import StreamServer
from gunicorn.http.errors import (  # type: ignore[attr-defined]  # the types lack those of responses
    ExpectationFailed,
    InvalidResponseHeader,
    InvalidResponseHeaderName,
    LimitRequestHeaders,
    LimitRequestLine,
    ParseException,
    UnsupportedTransferCoding,
)
from gunicorn.http.message import Request
from gunicorn.workers.ggevent import GeventWorker

log = logging.getLogger(__name__)

_STALLED_SECONDS = 20  # a client that sends nothing for so long in the middle of a request loses its connection
_SILENT_SECONDS = 2.0  # what a stopping worker leaves to a client that has not said anything yet
_HANDSHAKE_SECONDS = 0.1  # for connections that are being made when the port closes
_NOTIFY_SECONDS = 1.0  # gunicorn kills a worker that does not show life for 30
_ACCEPTED_AT_ONCE = 1000
_READ = 1  # libev's name for it
_DROPPED_AT_ONCE = 1024 * 1024  # bytes
_FIRST_BYTES = 8192  # what gunicorn's parser asks for
_HELD_BYTES = 64 * 1024  # of an answer, before they are sent

# What is left of a body when its answer is sent is read up to these limits; beyond, the connection ends.
_LEFT_OVER_BYTES = 64 * 1024
_LEFT_OVER_SECONDS = 5.0

# What gunicorn's parser finds wrong, where it is not a 400.
_STATUSES: dict[type[BaseException], int] = {
    LimitRequestLine: 414,
    ExpectationFailed: 417,
    LimitRequestHeaders: 431,
    UnsupportedTransferCoding: 501,
}

_OF_THE_APPLICATION = (InvalidResponseHeader, InvalidResponseHeaderName)  # its fault, and not the client's

_SO_ATTACH_FILTER = 26
# Classic BPF over the TCP header: drop what has SYN and not ACK in its flags, the first packet of a new connection.
_NO_NEW_CONNECTIONS = (
    (0x30, 0, 0, 13),  # load byte 13, the flags
    (0x54, 0, 0, 0x12),  # keep SYN and ACK
    (0x15, 0, 1, 0x02),  # SYN alone?
    (0x06, 0, 0, 0),  # drop it
    (0x06, 0, 0, 0xFFFFFFFF),  # let everything else through
)


@runtime_checkable
class Served(Protocol):
    """What the worker's application can tell."""

    def draining(self) -> bool:
        """Say whether the whole service is stopping, and not only this worker."""

    def overloaded(self) -> bool:
        """Say whether requests come faster than they can be answered."""

    def refuse(self, data: bytes) -> bytes | None:
        """Return the answer that refuses the request that ``data`` is; None where it must not be refused."""

    def reject(self, status: int, message: str, request_id: str) -> bytes:
        """Return the answer to what never became a request."""


class DarkroomWorker(GeventWorker):
    """The worker class that the server names to gunicorn."""

    def patch(self) -> None:
        """Make the listening sockets gevent's; called by gunicorn in the worker's process.

        gunicorn's own replaces the standard library's threads, locks and sockets as well. Here what takes long runs in
        real threads, and only connections belong to the event loop.
        """
        listeners: list[Any] = self.sockets  # gunicorn's own class, at this moment
        self.sockets = [
            socket.socket(listener.FAMILY, socket.SOCK_STREAM, fileno=listener.sock.detach()) for listener in listeners
        ]
        self._connections = _Connections(self.worker_connections)
        self._silent: set[Connection] = set()
        self._stopping = Event()

    def run(self) -> None:
        """Accept connections until a signal stops the worker, then let them end."""
        servers = [self._serve(listener) for listener in self.sockets]
        while self.alive:
            self.notify()
            self._stopping.wait(_NOTIFY_SECONDS)
        self._leave(servers)

    def handle(self, listener: Any, client: Any, address: Any) -> None:
        """Answer the requests of one connection; runs in a greenlet of its own."""
        served = self.app if isinstance(self.app, Served) else None
        # Not by the method of gunicorn's gevent worker, which takes all timeouts from the socket.
        super(GeventWorker, self).handle(listener, Connection(client, self._silent, served), address)

    def handle_request(self, listener_name: Any, req: Request, sock: Any, addr: Any) -> bool:
        """Answer one request on the ``Connection`` ``sock``; raises StopIteration where it can take no other."""
        try:
            super().handle_request(listener_name, req, sock, addr)
            last = False
        except StopIteration:
            last = True
        sock.flush()
        if not gevent.with_timeout(_LEFT_OVER_SECONDS, _use_up, req.body, timeout_value=False):
            sock.part()
            last = True
        if last:
            raise StopIteration
        sock.await_request(begun=req.unreader.buf.tell() > 0)
        return True

    def handle_error(self, req: Request | None, client: Any, addr: Any, exc: BaseException) -> None:
        """Answer what cannot be read as a request as every other error is answered, and end the connection.

        gunicorn's own sends a page of HTML, and closes a connection that is still sent to, so that the answer is lost.
        """
        unreadable = isinstance(exc, ParseException) and not isinstance(exc, _OF_THE_APPLICATION)
        if not isinstance(self.app, Served) or not unreadable:
            super().handle_error(req, client, addr, exc)
            return
        request_id = secrets.token_hex(16)
        fields = {"client": addr[0] if addr else None, "request_id": request_id}
        log.warning("a request cannot be read: %s", exc, extra={"fields": fields})
        client.sendall(
            self.app.reject(_STATUSES.get(type(exc), 400), f"The request cannot be read: {exc}.", request_id)
        )
        client.flush()
        client.part()

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        """Stop when what is under way is done."""
        super().handle_exit(sig, frame)
        gevent.get_hub().loop.run_callback_threadsafe(self._stopping.set)  # wakes the loop wherever the signal came

    def _serve(self, listener: Any) -> StreamServer:
        server = StreamServer(listener, handle=functools.partial(self.handle, listener), spawn=self._connections)
        server.max_accept = _ACCEPTED_AT_ONCE if self.cfg.workers == 1 else 1  # leave some for the others
        server.start()
        return server

    def _leave(self, servers: list[StreamServer]) -> None:
        """Close the port and wait for the connections, leaving nobody behind.

        A worker that stops alone leaves the port to the others. gunicorn's own closes it while the kernel still holds
        connections that nobody accepted, which are reset.
        """
        if isinstance(self.app, Served) and self.app.draining():
            for server in servers:
                _refuse_new_connections(server.socket)
            gevent.sleep(_HANDSHAKE_SECONDS)  # in which those that are connected already are accepted
        for server in servers:
            server.close()
        started = time.monotonic()
        while self._connections and time.monotonic() < started + self.cfg.graceful_timeout:
            self.notify()
            if time.monotonic() > started + _SILENT_SECONDS:
                # Who is connected and says nothing (browsers do that) must not hold up the end.
                for connection in list(self._silent):
                    connection.hang_up()
            gevent.sleep(0.02)
        self._connections.kill(block=False)


class _Connections(Pool):
    """The greenlets of connections, which begin at once.

    gevent's own begin in a later turn of the loop, few in each: under load, new clients would wait for seconds.
    """

    def start(self, greenlet: gevent.Greenlet[..., Any], *_: Any, **__: Any) -> None:
        """Take ``greenlet`` in and run it until it waits for something; called by the loop."""
        self.add(greenlet)
        greenlet.switch()


class Connection(socket.socket):
    """A client's socket. An answer is sent in one piece: that saves both sides a system call."""

    def __init__(self, client: socket.socket, silent: set[Connection], served: Served | None) -> None:
        """Take over ``client``; while no request has begun, the connection is in ``silent``.

        A request that ``served`` refuses is seen by nobody else.
        """
        super().__init__(client.family, client.type, client.proto, fileno=client.detach())
        self.settimeout(_STALLED_SECONDS)
        self._silent = silent
        self._served = served
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

    def _await_request(self) -> None:
        """Wait for what the client sends next, as long as the worker lets it; other connections go first."""
        waiter: Waiter[None] = Waiter()
        self._silent.add(self)
        self._readable.start(self._on_readable, waiter)
        try:
            waiter.get()
        finally:
            self._readable.stop()
            self._silent.discard(self)

    def _on_readable(self, waiter: Waiter[None]) -> None:
        """Refuse the request that has arrived, or let the greenlet that waits for it go on.

        It is called by the event loop itself: changing to the greenlet would cost as much as the refusal.
        """
        if self._served is None or not self._served.overloaded() or not self._refused(self._served):
            waiter.switch(None)

    def _refused(self, served: Served) -> bool:
        """Refuse the request that has arrived; say whether that was done."""
        try:
            self._begun = os.read(self.fileno(), _FIRST_BYTES)
            if (answer := served.refuse(self._begun)) is not None:
                written = os.write(self.fileno(), answer)
                self._begun = b""
                if written == len(answer):
                    return True
                self.shutdown(socket.SHUT_RDWR)  # it asks and does not read; nothing may follow half an answer
        except OSError:
            pass  # the greenlet finds out; gevent's own methods would wait here
        except Exception:
            log.exception("a request could not be refused, so it is answered")
        return False

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

    def await_request(self, *, begun: bool) -> None:
        """Note that what comes next is another request, of which the parser has something already where ``begun``."""
        self._between_requests = not begun

    def hang_up(self) -> None:
        """Let the greenlet that waits for a request find the end of the stream, after what has arrived already."""
        with contextlib.suppress(OSError):
            self.shutdown(socket.SHUT_RD)

    def part(self) -> None:
        """End the connection with the answer that was sent, though the client may still be sending.

        Closed at once, with bytes that nobody read, the kernel would reset it, and the client lose its answer.
        """
        with contextlib.suppress(OSError):
            self.shutdown(socket.SHUT_WR)
            gevent.with_timeout(_LEFT_OVER_SECONDS, self._drop_the_rest, timeout_value=None)

    def _drop_the_rest(self) -> None:
        while super().recv(_DROPPED_AT_ONCE):
            pass

    def close(self) -> None:
        """Send what is held and close the socket."""
        try:
            self.flush()
        finally:
            self._readable.close()
            super().close()


def _gone_silent() -> TimeoutError:
    """Return the error for a silent client, with the number of one that is gone: gunicorn logs all others as faults."""
    return TimeoutError(errno.ECONNRESET, "the client went silent")


def _use_up(body: Any) -> bool:
    """Read what an application left of a request's body, within a limit; say whether nothing is left."""
    left = _LEFT_OVER_BYTES
    with contextlib.suppress(Exception):  # it is malformed, or the client is gone; the answer has been sent
        while left > 0:
            block = body.read(left)
            if not block:
                return True
            left -= len(block)
    return False


def _refuse_new_connections(listener: Any) -> None:
    """Make the kernel ignore new connections to ``listener`` while those it has stay acceptable.

    A connection that the kernel completes after the last ``accept`` and before ``close`` would be reset, perhaps with
    a request on it. One whose first packet is dropped is tried again by the client's kernel and refused: nothing is
    lost. Only Linux can do this, and hardened kernels keep it from ordinary users; then that moment stays.
    """
    if sys.platform != "linux":
        return
    code = ctypes.create_string_buffer(b"".join(struct.pack("HBBI", *step) for step in _NO_NEW_CONNECTIONS))
    program = struct.pack("HP", len(_NO_NEW_CONNECTIONS), ctypes.addressof(code))
    with contextlib.suppress(OSError):
        listener.setsockopt(socket.SOL_SOCKET, _SO_ATTACH_FILTER, program)
