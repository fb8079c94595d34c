"""gunicorn's threaded worker, which gives threads only to clients that talk and leaves nobody behind at the end."""

import contextlib
import ctypes
import functools
import select
import selectors
import socket
import struct
import sys
import time
from collections import deque
from types import FrameType
from typing import Protocol, runtime_checkable

from gunicorn.http.parser import RequestParser
from gunicorn.workers.gthread import TConn, ThreadWorker

_STALLED_SECONDS = 20  # a client that sends nothing for so long loses its connection
_NEXT_REQUEST_SECONDS = 0.005  # that a thread stays with a connection after an answer
_SILENT_SECONDS = 2.0  # what a stopping worker leaves to a client that has not said anything yet
_HANDSHAKE_SECONDS = 0.1  # for connections that are being made when the port closes

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
class Drainable(Protocol):
    """What the worker's application can tell."""

    def draining(self) -> bool:
        """Say whether the whole service is stopping, and not only this worker."""


class DarkroomWorker(ThreadWorker):
    """The worker class that the server names to gunicorn."""

    def init_process(self) -> None:
        """Make what the threads share; called by gunicorn in the worker's process."""
        self._queued: deque[TConn] = deque()
        super().init_process()

    def enqueue_req(self, conn: TConn) -> None:
        """Give a connection with a request to the threads."""
        self._queued.append(conn)
        super().enqueue_req(conn)

    def handle(self, conn: TConn) -> bool:
        """Answer a request, and those that follow at once on the same connection.

        gunicorn's own gives the connection back to the poller after each answer: two changes of threads and five
        system calls for each request of a client that sends one after the other. Where others wait for a thread, they
        come first.
        """
        self._queued.popleft()
        result = super().handle(conn)
        while result is True and self.alive and not self._queued and _more_to_come(conn):
            result = super().handle(conn)
        return result

    def accept(self, listener: socket.socket) -> None:
        """Accept a connection and wait in the poller, not in a thread, for its first byte.

        gunicorn's own gives each new connection a thread for up to five seconds: as many silent connections as there
        are threads would keep everybody else out, health probes included.
        """
        try:
            client, address = listener.accept()
        except (BlockingIOError, ConnectionAbortedError):
            return
        # The kernel's timeout holds where gunicorn puts the socket back into blocking mode.
        client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVTIMEO, struct.pack("ll", _STALLED_SECONDS, 0))
        self.nr_conns += 1
        connection = TConn(self.cfg, client, address, listener.getsockname())
        connection.set_timeout()
        self.pending_conns.append(connection)
        self.poller.register(
            client, selectors.EVENT_READ, functools.partial(self.on_pending_socket_readable, connection)
        )

    def set_accept_enabled(self, enabled: bool | None) -> None:
        """Switch accepting; when the worker stops, leave nobody behind.

        A worker that stops alone leaves the port to the others.
        """
        super().set_accept_enabled(enabled)
        if self.alive or enabled:
            return
        if isinstance(self.app, Drainable) and self.app.draining():
            self._close_port()
        # Who is connected and says nothing (browsers do that) must not hold up the end.
        limit = time.monotonic() + _SILENT_SECONDS
        for connection in self.pending_conns:
            connection.timeout = min(connection.timeout or limit, limit)

    def handle_quit(self, sig: int, frame: FrameType | None) -> None:
        """Stop at once.

        The threaded worker's own handler takes a lock of the thread pool, which the code that the signal interrupted
        may hold: then it would wait for itself until it is killed. The interpreter ends the pool anyway.
        """
        super(ThreadWorker, self).handle_quit(sig, frame)

    def _close_port(self) -> None:
        """Take in those who are connected already, then refuse others.

        gunicorn's own leaves the listening socket open until the last answer, and then resets what it never accepted.
        """
        for listener in self.sockets:
            _refuse_new_connections(listener)
        time.sleep(_HANDSHAKE_SECONDS)
        for listener in self.sockets:
            before = -1
            while self.nr_conns != before:
                before = self.nr_conns
                self.accept(listener)
            listener.close()


def _more_to_come(connection: TConn) -> bool:
    """Wait a moment for the next request on ``connection``; say whether it is there."""
    parser = connection.parser
    if not isinstance(parser, RequestParser) or parser.unreader.buf.getvalue():  # gunicorn knows what to do with those
        return False
    poller = select.poll()
    poller.register(connection.sock, select.POLLIN)
    return bool(poller.poll(_NEXT_REQUEST_SECONDS * 1000))


def _refuse_new_connections(listener: socket.socket) -> None:
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
