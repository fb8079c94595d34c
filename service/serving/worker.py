"""gunicorn's gevent worker, as this service needs it: a greenlet for each connection, and nobody is left behind."""

import _socket
import contextlib
import ctypes
import functools
import logging
import math
import os
import secrets
import struct
import sys
import time
from collections.abc import Callable
from types import FrameType, TracebackType
from typing import Any, Protocol, cast

import gevent
from gevent import socket
from gevent.event import Event
from gevent.pool import Pool
from gevent.server import StreamServer
from gunicorn.http import wsgi
from gunicorn.http.errors import (  # type: ignore[attr-defined]  # the types lack those of responses
    ExpectationFailed,
    InvalidResponseHeader,
    InvalidResponseHeaderName,
    LimitRequestHeaders,
    LimitRequestLine,
    ParseException,
)
from gunicorn.http.message import Request
from gunicorn.workers.ggevent import GeventWorker

from machine import lasting_thread, start_thread
from service.observe import logs
from service.serving.connection import KEEPALIVE_SECONDS, Answering, Connection
from service.serving.connection_table import ConnectionTable
from service.serving.request_body import announced, watch
from service.serving.turns import Turns

log = logging.getLogger(__name__)

_SILENT_SECONDS = 2.0  # what a stopping worker leaves to a client that has not said anything yet
_HANDSHAKE_SECONDS = 0.1  # for connections that are being made when the port closes
_LOOK_SECONDS = 1.0  # between two looks at what is idle
_BEAT_SECONDS = 0.25  # between two signs of life
_TURN_PATIENCE = 10.0  # seconds in which the loop has to turn, or the worker gives no more signs of life
_LOAD_PATIENCE = 30.0  # seconds for what comes before the loop turns
_ACCEPTED_AT_ONCE = 100  # a tenth of a millisecond each
_ACCEPTED_BESIDE_OTHERS = 8  # leave some for the other workers
_LET_IN_SECONDS = 0.01  # between two looks at who has come, where the loop is behind
_REQUESTS_AT_ONCE = 16
_PAUSE = 0.0005  # seconds; not 0, so that the loop looks at its sockets
_AGAIN_SECONDS = 1.0  # until another worker begins, where one could not
_MOST_TOLD = 200  # characters of what a client sent, in an answer or in the log

# What gunicorn's parser finds wrong, where it is not a 400. An unknown transfer coding is one too, and no 501: alerts
# count faults of the service from 500 on.
_STATUSES: dict[type[BaseException], int] = {
    LimitRequestLine: 414,
    ExpectationFailed: 417,
    LimitRequestHeaders: 431,
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


class Served(Answering, Protocol):
    """What the worker's application can tell."""

    def answering(self, port: int) -> Answering:
        """Return what answers at ``port`` without a parser."""

    def draining(self) -> bool:
        """Say whether the whole service is stopping, and not only this worker."""

    def reject(self, status: int, message: str, request_id: str) -> bytes:
        """Return the answer to what never became a request."""

    def takes_body(self, length: int) -> bool:
        """Say whether a body of ``length`` bytes may be sent at all."""

    def most_unsent(self) -> int:
        """Return how many bytes of answers one worker may hold for clients that do not take them."""

    def lost_grpc(self) -> bool:
        """Say whether calls by gRPC are not taken any more, though nobody has ended that."""

    def leave_grpc(self) -> Callable[[], bool]:
        """Begin to end the calls by gRPC; return what says whether they have ended."""


class _Response(wsgi.Response):
    """An answer that does not tell what serves it."""

    def default_headers(self) -> list[str]:
        """Return the lines of the head that every answer has."""
        return [line for line in super().default_headers() if not line.startswith("Server:")]


class DarkroomWorker(GeventWorker):
    """The worker class that the server names to gunicorn."""

    def patch(self) -> None:
        """Make the listening sockets gevent's; called by gunicorn in the worker's process.

        gunicorn's own replaces the standard library's threads, locks and sockets as well. Here what takes long runs in
        real threads, and only connections belong to the event loop.
        """
        wsgi.Response = _Response  # type: ignore[misc]  # gunicorn has no setting for it
        listeners: list[Any] = self.sockets  # gunicorn's own class, at this moment
        self.sockets = [
            socket.socket(listener.FAMILY, socket.SOCK_STREAM, fileno=listener.sock.detach()) for listener in listeners
        ]
        self._table = ConnectionTable(self.worker_connections, self.served.most_unsent())
        self._connections = _Connections(self._table)
        self._turns = Turns()
        self._stopping = Event()
        gevent.get_hub().print_exception = _tell  # type: ignore[method-assign, assignment]

    @property
    def served(self) -> Served:
        """The application, as the worker knows it beyond what every worker of gunicorn knows."""
        return cast(Served, self.app)

    def init_process(self) -> None:
        """Load the application and serve it; called by gunicorn in the worker's process."""
        self._turned = math.inf
        _beat(self.tmp.fileno(), ahead=_LOAD_PATIENCE)
        super().init_process()

    def load_wsgi(self) -> None:
        """Load the application; called by gunicorn in the worker's process.

        One that takes another's place leaves without a word to the master where it cannot begin, as where memory is
        short: gunicorn's would end the service, with all workers that are well.
        """
        try:
            super().load_wsgi()
        except Exception as error:
            if self.age <= self.cfg.workers:  # at the start somebody looks at what is wrong
                raise
            log.exception("a worker cannot begin; another one tries it soon")
            time.sleep(_AGAIN_SECONDS)
            raise SystemExit(1) from error

    def run(self) -> None:
        """Accept connections until a signal stops the worker, then let them end."""
        start_thread(lasting_thread(self._keep_beating, "heart"))
        servers = [self._serve(listener) for listener in self.sockets]
        while self.alive:
            self.notify()
            self._stopping.wait(_LOOK_SECONDS)
            self._table.hang_up(KEEPALIVE_SECONDS)
            if self.alive:
                for server in servers:
                    _look_again(server)
                if self.served.lost_grpc():
                    log.error("calls by gRPC are not taken any more: the worker ends, and another one takes its place")
                    self.alive = False
        self._leave(servers)
        self._turned = math.inf

    def notify(self) -> None:
        """Note that the loop turns; called on it."""
        super().notify()
        self._turned = time.monotonic()

    def _keep_beating(self) -> None:
        """Give a sign of life now and then, as long as the loop turns.

        It has a thread of its own: a loop that is behind is no reason to lose what the worker has begun. A process that
        is stopped, or that never lets go of the interpreter, is.
        """
        file = os.dup(self.tmp.fileno())  # gunicorn closes its own before the worker has ended
        try:
            while time.monotonic() - self._turned < _TURN_PATIENCE:
                _beat(file)
                time.sleep(_BEAT_SECONDS)
        finally:
            os.close(file)

    def handle(self, listener: Any, client: Any, address: Any) -> None:
        """Answer the requests of one connection; runs in a greenlet of its own."""
        answering = self.served.answering(listener.getsockname()[1])
        connection = Connection(client, self._table, self._turns, answering, address[0] if address else None)
        # Not by the method of gunicorn's gevent worker, which takes all timeouts from the socket.
        super(GeventWorker, self).handle(listener, connection, address)

    def timeout_ctx(self) -> contextlib.AbstractContextManager[None]:  # type: ignore[override]  # the types say None
        """Bound nothing: gunicorn's own lasts until its parser has a request, and many may be answered before."""
        return contextlib.nullcontext()

    def handle_request(self, listener_name: Any, req: Request, sock: Any, addr: Any) -> bool:
        """Answer one request on the ``Connection`` ``sock``; raises StopIteration where it can take no other."""
        body = announced(req)
        sock.begin_request(body)
        unwanted = body is not None and not self.served.takes_body(body.length)
        if unwanted:
            # The client is not asked to send what nobody will read, and may send it or not; so nothing can follow.
            req._expected_100_continue = False  # type: ignore[attr-defined]  # the types lack it
            req.must_close = True
        else:
            watch(req, body)
        try:
            super().handle_request(listener_name, req, sock, addr)
            last = False
        except StopIteration:
            last = True
        sock.flush()
        if not sock.drain(None if unwanted else req.body):
            raise StopIteration
        if last:
            if sock.has_more():
                sock.drain()
            raise StopIteration
        begun = req.unreader.buf.tell() > 0
        sock.await_request(begun=begun)
        if begun:
            # Thousands of requests that come at once would keep all others waiting.
            gevent.sleep(0 if self.nr % _REQUESTS_AT_ONCE else _PAUSE)
        return True

    def handle_error(self, req: Request | None, client: Any, addr: Any, exc: BaseException) -> None:
        """Answer what cannot be read as a request as every other error is answered, and end the connection.

        gunicorn's own sends a page of HTML, and closes a connection that is still sent to, so that the answer is lost.
        """
        unreadable = isinstance(exc, ParseException) and not isinstance(exc, _OF_THE_APPLICATION)
        if not (unreadable or isinstance(exc, MemoryError)):
            super().handle_error(req, client, addr, exc)
            return
        request_id = secrets.token_hex(16)
        fields = {"client": addr[0] if addr else None, "request_id": request_id}
        if unreadable:
            reason, status = f"The request cannot be read: {str(exc)[:_MOST_TOLD]}.", _STATUSES.get(type(exc), 400)
        else:
            reason, status = "There is no memory for this request at the moment; try again later.", 503
        log.warning("a request is refused: %s", reason, extra={"fields": fields})
        client.sendall(self.served.reject(status, reason, request_id))
        client.flush()
        client.drain()

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        """Stop when what is under way is done."""
        super().handle_exit(sig, frame)
        gevent.get_hub().loop.run_callback_threadsafe(self._stopping.set)  # wakes the loop wherever the signal came

    def _serve(self, listener: Any) -> "_Port":
        server = _Port(listener, handle=functools.partial(self.handle, listener), spawn=self._connections)
        server.max_accept = _ACCEPTED_AT_ONCE if self.cfg.workers == 1 else _ACCEPTED_BESIDE_OTHERS
        server.start()
        return server

    def _leave(self, servers: "list[_Port]") -> None:
        """Close the port and wait for the connections, leaving nobody behind.

        A worker that stops alone leaves the port to the others. gunicorn's own closes it while the kernel still holds
        connections that nobody accepted, which are reset.
        """
        started = time.monotonic()
        calls_ended = self.served.leave_grpc()
        if self.served.draining():
            for server in servers:
                refuse_new_connections(server.socket)
            gevent.sleep(_HANDSHAKE_SECONDS)  # in which those that are connected already are accepted
        for server in servers:
            server.close()
        while (self._connections and time.monotonic() < started + self.cfg.graceful_timeout) or not calls_ended():
            self.notify()
            if time.monotonic() > started + _SILENT_SECONDS:
                # Who is connected and says nothing (browsers do that) must not hold up the end.
                self._table.hang_up()
            gevent.sleep(0.02)
        self._connections.kill(block=False)


class _Port(StreamServer):
    """What accepts the connections to one listener."""

    _each_turn: Any = None  # of the loop, while connections are accepted
    _looked = 0.0  # when it was last looked whether somebody has come, on the monotonic clock

    def start_accepting(self) -> None:
        """Accept from now on; called where the server starts, and where it goes on after an error."""
        super().start_accepting()
        if self._each_turn is None:
            self._each_turn = self.loop.prepare()
            self._each_turn.start(self._let_in)

    def stop_accepting(self) -> None:
        """Accept no longer; called where the server ends, and for a moment after an error."""
        super().stop_accepting()
        if self._each_turn is not None:
            self._each_turn.close()
            self._each_turn = None

    def do_read(self) -> tuple[Any, Any] | None:  # type: ignore[override]  # the types lack the None
        """Return a connection and its address; None where nobody has come.

        It is as the system has it: gevent's own would cost as much again, and ``Connection`` takes its place.
        """
        try:
            number, address = self.socket._accept()  # type: ignore[attr-defined]  # the types lack it
        except BlockingIOError:
            return None
        listener = self.socket
        return _socket.socket(listener.family, listener.type, listener.proto, number), address

    def _let_in(self) -> None:
        """Accept those who have come, also where the loop is behind; called in each of its turns.

        The kernel tells of sockets in order: a port comes after thousands of clients who all sent something.
        """
        now = time.monotonic()
        if now - self._looked >= _LET_IN_SECONDS:
            self._looked = now
            self._do_read()  # type: ignore[attr-defined]  # what gevent does where the kernel tells of the port


class _Connections(Pool):
    """The greenlets of connections, which begin at once.

    gevent's own begin in a later turn of the loop, few in each: under load, new clients would wait for seconds.
    """

    def __init__(self, table: ConnectionTable) -> None:
        """Take the table of all connections, which bounds them."""
        super().__init__()
        self._table = table

    def start(self, greenlet: "gevent.Greenlet[..., Any]", *_: Any, **__: Any) -> None:
        """Take ``greenlet`` in and run it until it waits for something; called by the loop."""
        self._table.make_room()
        self.add(greenlet)
        greenlet.switch()


def _look_again(server: StreamServer) -> None:
    """Let ``server`` look at its port: gevent does not where a look failed, as it does where memory is short."""
    server.stop_accepting()
    server.start_accepting()


def _tell(context: object, kind: Any, error: Any, trace: TracebackType | None) -> None:
    """Log what failed on the event loop, where gevent would write it in plain text; raise nothing."""
    with contextlib.suppress(MemoryError):  # there is none to tell it either
        of_what = "" if context is None else f" ({type(context).__name__})"
        logs.failed(f"what runs on the event loop{of_what}", kind, error, trace)


def _beat(file: int, ahead: float = 0.0) -> None:
    """Give a sign of life, or one for some seconds ``ahead``, by the times of a file: gunicorn's master looks there."""
    now = time.monotonic() + ahead
    os.utime(file, (now, now))


def refuse_new_connections(listener: Any) -> None:
    """Make the kernel ignore new connections to ``listener`` while those it has stay acceptable.

    A connection that the kernel completes after the last ``accept`` and before ``close`` would be reset, perhaps with
    a request on it. One whose first packet is dropped is tried again by the client's kernel and refused: nothing is
    lost. Only Linux can do this, and hardened kernels keep it from ordinary users; then that moment stays.
    Measured over 20 stops with it and 20 without, each under clients that always have 128 new connections open to one
    worker: a stop reset none with it, and 106 without; with 512 to two workers, 96 and 510.
    """
    if sys.platform != "linux":
        return
    code = ctypes.create_string_buffer(b"".join(struct.pack("HBBI", *step) for step in _NO_NEW_CONNECTIONS))
    program = struct.pack("HP", len(_NO_NEW_CONNECTIONS), ctypes.addressof(code))
    with contextlib.suppress(OSError):
        listener.setsockopt(socket.SOL_SOCKET, _SO_ATTACH_FILTER, program)
