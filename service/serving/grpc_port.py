"""The port for gRPC: the server of one worker, and how it leaves without losing a call.

Each worker listens on the port for itself (SO_REUSEPORT), with threads of gRPC's own beside the event loop.
"""

import array
import contextlib
import fcntl
import logging
import os
import socket
import struct
import sys
import termios
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Executor, Future
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import grpc

from machine import lasting_thread, start_thread
from service.protocols.grpc import health, open_inference, tensorflow_serving
from service.protocols.grpc.calls import Calls, Limits
from service.serving.worker import refuse_new_connections
from service.web.services import Services

log = logging.getLogger(__name__)

_WAITING_THREADS = 64  # at most, beside those that work
_HANDSHAKE_MILLISECONDS = 10_000
_IDLE_MILLISECONDS = 600_000  # after which a connection without a call is ended
_ANOTHER_SECONDS = 30.0  # that a worker waits for the one that takes its place
_LEAVE_SECONDS = 1.0  # for clients to hear that they should connect anew
_TURN_SECONDS = 0.01
_CLOSE_SECONDS = 2.0
_SERVING = "(_serve)"  # the end of the name that gRPC's own thread has
_AFTER_DEADLINE = 2.0  # seconds that the last calls have beyond the longest deadline

# HTTP/2's frame of 8 bytes that asks a client for no new call on this connection: the largest id of a stream, no error.
_GOAWAY = struct.pack("!BHBBLLL", 0, 8, 7, 0, 0, 2**31 - 1, 0)


class Most(NamedTuple):
    """How much the port of one worker may take."""

    room: int  # bytes that all messages have together while they are answered, and while they come
    unsent: int  # bytes of answers that wait for their clients
    connections: int


class GrpcPort:
    """Answers by gRPC, from its making until ``leave``."""

    def __init__(
        self,
        services: Services,
        in_turn: Callable[[Callable[[], bytes]], bytes],
        port: int,
        most: Most,
        scratch: Path,
    ) -> None:
        """Listen on ``port``; ``in_turn`` runs work when it may, and ``scratch`` is a folder that all workers share."""
        settings = services.settings
        self._port = port
        self._patience = settings.request_deadline + _AFTER_DEADLINE
        self._presence = _Presence(scratch)
        self._ended = threading.Event()
        most_body = settings.max_body_bytes
        limits = Limits(max(most.room, most_body), most.unsent, max(1, most.room // most_body), settings.threads)
        self._calls = Calls(services, in_turn, port, limits)
        self._server = grpc.server(
            _Threads(2 * settings.threads + _WAITING_THREADS),  # streams keep theirs
            options=[
                ("grpc.so_reuseport", 1),
                ("grpc.max_receive_message_length", most_body),
                ("grpc.max_send_message_length", -1),
                ("grpc.max_allowed_incoming_connections", most.connections),
                ("grpc.max_concurrent_streams", settings.queue_length),
                ("grpc.server_handshake_timeout_ms", _HANDSHAKE_MILLISECONDS),
                ("grpc.max_connection_idle_ms", _IDLE_MILLISECONDS),
            ],
            maximum_concurrent_rpcs=settings.queue_length,
        )
        self._server.add_generic_rpc_handlers(
            tuple(
                self._calls.handlers(service, methods)
                for protocol in (open_inference, tensorflow_serving, health)
                for service, methods in protocol.SERVICES.items()
            )
        )
        host = f"[{settings.host}]" if ":" in settings.host else settings.host
        self._server.add_insecure_port(f"{host}:{port}")
        before = set(threading.enumerate())
        self._server.start()
        self._serving = [thread for thread in set(threading.enumerate()) - before if thread.name.endswith(_SERVING)]
        self._presence.tell()

    @property
    def lost(self) -> bool:
        """Whether gRPC's own thread has ended, as it does of any error: nobody takes calls any more."""
        return not all(thread.is_alive() for thread in self._serving)

    def leave(self, draining: Callable[[], bool]) -> Callable[[], bool]:
        """Begin to end all calls; return what says whether they have ended.

        Where not the whole service is ``draining`` and another worker is there or begins, that one listens before this
        one does no longer: in between, clients would find nobody.
        """
        self._presence.forget()
        threading.Thread(target=self._leave, args=(draining,), name="grpc leaves", daemon=True).start()
        return self._ended.is_set

    def close(self) -> None:
        """End whatever is left, at once: the interpreter's end waits for threads, which would wait for gRPC's."""
        self._server.stop(0).wait(_CLOSE_SECONDS)
        self._calls.close()

    def _leave(self, draining: Callable[[], bool]) -> None:
        try:
            until = time.monotonic() + _ANOTHER_SECONDS
            while not draining() and time.monotonic() < until and self._presence.another_begins():
                time.sleep(_TURN_SECONDS)
            self._calls.hang_up()
            say_goodbye(self._port, _LEAVE_SECONDS)
            self._server.stop(self._patience).wait(self._patience + _CLOSE_SECONDS)
            self._calls.close()
        except Exception:
            log.exception("the port for gRPC does not close as it should")
        finally:
            self._ended.set()


class _Threads(Executor):
    """Threads for calls, made when they are needed.

    Where none can be made, a call waits for another one, or for the next call. The library's own raises an error then,
    of which gRPC's server ends, and counts on threads that have ended.
    """

    def __init__(self, most: int) -> None:
        """Take the most threads."""
        self._most = most
        self._made = self._idle = 0
        self._calls: deque[tuple[Future[Any], Callable[[], Any]]] = deque()
        self._work = threading.Condition()

    def submit(self, fn: Callable[..., Any], /, *args: Any, **kwargs: Any) -> "Future[Any]":
        """Call ``fn`` soon, in a thread."""
        outcome: Future[Any] = Future()
        with self._work:
            self._calls.append((outcome, partial(fn, *args, **kwargs)))
            if len(self._calls) > self._idle and self._made < self._most:
                self._make_one()
            self._work.notify()
        return outcome

    def _make_one(self) -> None:
        try:
            start_thread(lasting_thread(self._run, f"grpc {self._made}"))
        except MemoryError:
            log.error("there is no memory for another thread: a call by gRPC waits")
        else:
            self._made += 1

    def _run(self) -> None:
        while True:
            outcome, call = self._next()
            if outcome.set_running_or_notify_cancel():
                try:
                    outcome.set_result(call())
                except BaseException as error:  # noqa: BLE001 - who asked for it hears of it
                    outcome.set_exception(error)
            del outcome, call  # a thread that waits holds nothing

    def _next(self) -> "tuple[Future[Any], Callable[[], Any]]":
        with self._work:
            self._idle += 1
            try:
                while not self._calls:
                    self._work.wait()
                return self._calls.popleft()
            finally:
                self._idle -= 1


class _Presence:
    """Which workers listen: a file of each, in the folder that they share."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._own = folder / f"grpc-{os.getpid()}"

    def tell(self) -> None:
        """Say that this worker listens."""
        with contextlib.suppress(OSError):  # a full disk
            self._own.touch()

    def forget(self) -> None:
        """Say that it soon does no longer."""
        self._own.unlink(missing_ok=True)

    def another_begins(self) -> bool:
        """Say whether there is another worker, and none that listens already."""
        master = os.getppid()
        try:
            children = Path(f"/proc/{master}/task/{master}/children").read_text(encoding="ascii").split()
        except OSError:  # not on Linux
            return False
        others = set(children) - {str(os.getpid())}
        listening = {file.name.partition("-")[2] for file in self._folder.glob("grpc-*")}
        return bool(others) and not others & listening


def say_goodbye(port: int, seconds: float) -> None:
    """Have all clients of ``port`` connect anew for their next call; wait up to ``seconds`` until they are gone.

    What gRPC's server does by itself when it stops loses calls: those that come between its decision and the client's
    hearing of it are cancelled. So its clients hear of it before, by the same frame that it would send. That goes to
    its sockets beside it, only while nothing is on the way there, or it could end up inside another frame. Measured
    with 16 clients that never pause, one of two servers stopping: in three stops none of 54,321 calls was lost, and
    without it ten of 25,513 in two. Only on Linux are the sockets known.
    """
    if sys.platform != "linux":
        return
    told: set[object] = set()
    until = time.monotonic() + seconds
    while _tell(port, told) and time.monotonic() < until:
        time.sleep(_TURN_SECONDS)


def _tell(port: int, told: set[object]) -> int:
    """Tell those clients of ``port`` that are not in ``told`` to leave; return how many are connected."""
    connected = 0
    for found in _sockets(port):
        with found, contextlib.suppress(OSError):
            if found.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN):
                refuse_new_connections(found)
                continue
            connected += 1
            client = found.getpeername()
            if client not in told and not _unsent(found):
                found.send(_GOAWAY, socket.MSG_DONTWAIT)
                told.add(client)
    return connected


def _sockets(port: int) -> Iterator[socket.socket]:
    """Yield copies of this process's TCP sockets whose own port is ``port``."""
    for file in list(Path("/proc/self/fd").iterdir()):
        with contextlib.suppress(OSError):
            if str(file.readlink()).startswith("socket:"):
                found = socket.socket(fileno=os.dup(int(file.name)))
                if found.family in (socket.AF_INET, socket.AF_INET6) and found.getsockname()[1] == port:
                    yield found
                else:
                    found.close()


def _unsent(connection: socket.socket) -> int:
    """Return how many bytes wait to be sent, or for the client to say that they came."""
    count = array.array("i", [0])
    fcntl.ioctl(connection.fileno(), termios.TIOCOUTQ, count)
    return count[0]
