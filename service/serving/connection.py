"""A client's connection: answers in one piece, refusals under overload, and an end that loses nobody's answer."""

import contextlib
import dataclasses
import errno
import fcntl
import logging
import os
import struct
import termios
import time
from collections.abc import Callable
from typing import Any, Protocol

import gevent
from gevent import socket
from gevent.hub import Waiter
from gunicorn.http.errors import LimitRequestHeaders

from service.serving.connection_table import ConnectionTable
from service.serving.plain_requests import PlainRequest, read
from service.serving.request_body import AnnouncedBody
from service.serving.turns import Turns

log = logging.getLogger(__name__)

KEEPALIVE_SECONDS = 75  # between requests; longer than the usual 60 s of a balancer

# A client has so long for the head of a request, and may fall so far behind the least rate of a body or an answer,
# which is that of Apache's mod_reqtimeout.
STALLED_SECONDS = 20
_LEAST_RATE = 500  # bytes a second
_MOST_HEAD = 32 * 1024  # bytes

# What is left of a body when its answer is sent is read up to these limits; beyond, the connection ends.
DRAIN_BYTES = 128 * 1024 * 1024
DRAIN_SECONDS = 5.0

_AT_ONCE = 64 * 1024  # bytes
_AT_ONCE_OF_A_HEAD = 16 * 1024
_FIRST_BYTES = 20 * 1024  # a short request with its head
_SHORT_HEAD = 4096
_LEAST_OF_A_BODY = 4096  # bytes that are worth going on for
_MOMENT = 0.02  # seconds
_HELD_BYTES = 64 * 1024  # of an answer, before they are sent
_END_OF_HEAD = b"\r\n\r\n"
_READ = 1  # libev's name for it
_TCP_INFO, _CLOSED = getattr(socket, "TCP_INFO", None), 7  # Linux: of the connection its state comes first


class Answering(Protocol):
    """What answers requests that need no parser."""

    def overloaded(self) -> bool:
        """Say whether requests come faster than they can be answered."""

    def refuse(self, request: PlainRequest, client: str | None) -> bytes | None:
        """Return the answer that refuses ``request``; None where it must not be refused."""

    def takes(self, request: PlainRequest) -> bool:
        """Say whether ``request`` is answered here once it is whole."""

    def reserve(self, size: int) -> bool:
        """Say whether there is room for a body of ``size`` bytes, which is taken until ``release``."""

    def release(self, size: int) -> None:
        """Give the room of a body of ``size`` bytes back."""

    def answer(self, request: PlainRequest, client: str | None) -> bytes | None:
        """Return the answer to ``request``, which is whole; None where the parser should read it."""


class ParserOnly(Answering):
    """Leaves every request to the parser."""

    def overloaded(self) -> bool:
        """Say that nothing has to be refused."""
        return False

    def refuse(self, request: PlainRequest, client: str | None) -> bytes | None:
        """Refuse nothing."""
        return None

    def takes(self, request: PlainRequest) -> bool:
        """Take nothing."""
        return False

    def reserve(self, size: int) -> bool:
        """Give no room, which is needed for nothing."""
        return False

    def release(self, size: int) -> None:
        """Take nothing back."""

    def answer(self, request: PlainRequest, client: str | None) -> bytes | None:
        """Answer nothing."""
        return None


class Connection(socket.socket):
    """A client's socket. An answer is sent in one piece: that saves both sides a system call."""

    def __init__(
        self,
        client: socket.socket,
        table: ConnectionTable,
        turns: Turns,
        answering: Answering,
        address: str | None = None,
    ) -> None:
        """Take over ``client``, who comes from ``address``, in the greenlet that answers him; ``table`` has all.

        A request that ``answering`` answers or refuses is seen by nobody else; others begin in their ``turns``.
        """
        super().__init__(client.family, client.type, client.proto, fileno=client.detach())
        self.address = address
        self.waits = False  # for the client, who may be let go then
        self.since = time.monotonic()  # when the client was in time for the last time
        self.answered = False  # a request
        self.unsent = 0  # bytes of an answer that the client does not take
        self._leaves = False  # it was let go
        self._greenlet = gevent.getcurrent()
        self._table = table
        self._turns = turns
        self._answering = answering
        self._head: int | None = None  # bytes of the head that the parser reads, as far as they are here
        self._body: AnnouncedBody | None = None
        self._least = 1  # bytes that the system has before it says that there are some
        self._begun = b""  # of a request, received and not read yet
        self._readable = gevent.get_hub().loop.io(self.fileno(), _READ)
        self._watched = False
        self._patience: Any = None  # a timer of the event loop, while a head comes in pieces
        self._waiter: Waiter[None] | None = None
        self._new = True  # nothing was looked for yet
        self._between_requests = True
        self._held: list[bytes] = []
        self._held_bytes = 0
        table.add(self)

    def recv(self, size: int, flags: int = 0) -> bytes:
        """Return what the client sent, up to ``size`` bytes; empty where it is gone.

        Raises:
            TimeoutError: it went silent in the middle of a request, or sends too slowly.
            LimitRequestHeaders: the head of its request is too long.
        """
        if self._between_requests:
            self._between_requests = False
            self._await_request()
            while self._begun and self._answered():
                self._await_request()
            self.waits = True  # it may be let go
            try:
                self._turns.wait(self.address)
            finally:
                self.waits = False
            self._begin_head()
        if self._head is None:
            if self._body is not None:
                self._wait_for(min(_LEAST_OF_A_BODY, self._body.coming()))
            return self._receive_in_time(max(size, _AT_ONCE))  # the parser asks for little and takes more
        if self._head > _MOST_HEAD:
            raise LimitRequestHeaders(f"the head has more than {_MOST_HEAD:,} bytes")
        data, self._begun = self._begun or self._receive_in_time(_AT_ONCE_OF_A_HEAD), b""
        self._head += len(data)
        return data

    def sendall(self, data: Any, flags: int = 0) -> None:
        """Hold ``data`` until the answer is complete or long."""
        self._held.append(data)
        self._held_bytes += len(data)
        if self._held_bytes > _HELD_BYTES:
            self.flush()

    def flush(self) -> None:
        """Send what is held.

        Raises:
            TimeoutError: the client does not read it, or too slowly.
        """
        if not self._held:
            return
        # What is long may be a file that all answers share, and is not copied.
        blocks = self._held if self._held_bytes > _HELD_BYTES else [b"".join(self._held)]
        self._held = []
        left, self._held_bytes = self._held_bytes, 0
        self.since = time.monotonic()
        self._head = None
        try:
            for block in blocks:
                data = memoryview(block)
                while data:
                    if left > _HELD_BYTES:
                        self._table.note_unsent(self, left)
                    sent = self._in_time(super().send, data)
                    data, left = data[sent:], left - sent
        except TimeoutError:
            # What the system still holds for the client, which may be megabytes, goes with the connection.
            self.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            raise
        finally:
            if self.unsent:
                self._table.note_unsent(self, 0)

    def drain(self, body: Any = None) -> bool:
        """Read and drop what is left of ``body`` after its answer; say whether another request may follow.

        Where too much is left or where it ends is unknown (None), the connection is half-closed, and what the client
        still sends is dropped for a while: closed at once, with bytes that nobody read, the kernel would reset it, and
        the client lose its answer.
        """
        self.settimeout(STALLED_SECONDS)
        if self._leaves:
            return False
        if body is not None and not body.failed and self._drop_rest(body):
            return True
        if self._body is not None:
            self._body.skip()
        self.waits = not self._leaves
        with contextlib.suppress(OSError):
            self._wait_for(1)
            self.shutdown(socket.SHUT_WR)
            if self.waits:
                _drop(super().recv)
        self.waits = False
        return False

    def has_more(self) -> bool:
        """Say whether the client has sent something that nobody has read."""
        return fcntl.ioctl(self.fileno(), termios.FIONREAD, bytes(4)) != bytes(4)

    def begin_request(self, body: AnnouncedBody | None) -> None:
        """Note that the head of a request has been read, which has ``body``; None where its length is unknown."""
        self._head = None
        self._body = body
        self.since = time.monotonic()

    def await_request(self, *, begun: bool) -> None:
        """Note that what comes next is another request, of which the parser has something already where ``begun``."""
        self.answered = True
        self._between_requests = not begun
        if begun:
            self._begin_head()

    @property
    def idle(self) -> bool:
        """Whether no request has begun since ``since``."""
        return self._waiter is not None and not self._begun

    def gone(self) -> bool:
        """Say whether the client has broken the connection; from any thread, where the system tells it."""
        return _TCP_INFO is not None and self.getsockopt(socket.IPPROTO_TCP, _TCP_INFO, 1)[0] == _CLOSED

    def let_go(self) -> None:
        """End the connection where it waits for the client; called by the event loop, never by a greenlet."""
        self._leaves |= self.waits
        if self._waiter is not None:
            self.hang_up()
            self._waiter.switch(None)
        elif self.waits:
            self._greenlet.throw(_gone_silent())

    def hang_up(self) -> None:
        """Let the greenlet that waits for a request find the end of the stream, after what has arrived already."""
        with contextlib.suppress(OSError):
            self.shutdown(socket.SHUT_RD)

    def close(self) -> None:
        """Send what is held and close the socket."""
        try:
            self.flush()
        finally:
            self._table.remove(self)
            self._readable.close()
            super().close()

    def _begin_head(self) -> None:
        """Begin to count the time and the bytes of the head that the parser reads."""
        self._head = 0
        self.since = time.monotonic()

    def _drop_rest(self, body: Any) -> bool:
        """Read and drop the rest of ``body``, as gunicorn has it; say whether that was done in time.

        What is announced is not gathered on its way: thousands may send what nobody wants.
        """
        announced = self._body
        left = announced.coming() if announced is not None else 0
        if announced is None or left <= 0:
            return _drop(body.read, DRAIN_BYTES)

        def receive(size: int) -> bytes:
            nonlocal left
            block = self._receive_in_time(min(size, left)) if left else b""
            left -= len(block)
            return block

        announced.skip()
        return left <= DRAIN_BYTES and _drop(receive)

    def _receive_in_time(self, size: int) -> bytes:
        """Receive up to ``size`` bytes.

        A buffer of that size for each of thousands of clients would tear memory into pieces, so they share one.
        """
        received = self._in_time(super().recv_into, self._table.buffer[:size])
        return bytes(self._table.buffer[:received])

    def _in_time(self, call: Callable[[memoryview], int], data: memoryview) -> int:
        """Return ``call(data)``, which sends or receives bytes, made while the client is not too far behind.

        The bytes that pass bring the client forward, up to now, unless they are of a head.
        """
        left = self.since + STALLED_SECONDS - time.monotonic()
        if left <= 0 or self._leaves:
            raise _gone_silent()
        self.settimeout(left)
        self.waits = True
        try:
            size = call(data)
        except TimeoutError as error:
            raise _gone_silent() from error
        finally:
            self.waits = False
        if self._head is None:
            self.since = min(time.monotonic(), self.since + size / _LEAST_RATE)
        return size

    def _wait_for(self, least: int) -> None:
        """Wait for ``least`` bytes, or the end of the stream: the bytes of a body may come one by one."""
        least = max(1, least)
        if least != self._least:
            self._least = least
            self.setsockopt(socket.SOL_SOCKET, socket.SO_RCVLOWAT, least)

    def _await_request(self) -> None:
        """Wait for what the client sends next, as long as the worker lets it; other connections go first."""
        if self._least > 1:
            self._wait_for(1)
        waiter: Waiter[None] = Waiter()
        self._waiter = waiter
        self.since = time.monotonic()
        self.waits = True
        try:
            if self._new:
                self._new = False
                if self._goes_on():  # mostly it is here, and who has just come need not queue again
                    return
            if not self._watched:
                self._watched = True
                self._readable.start(self._on_readable)
            waiter.get()
        finally:
            self._waiter = None
            self.waits = False
            if self._patience is not None:
                self._patience.close()
                self._patience = None

    def _on_readable(self) -> None:
        """Let the greenlet that waits for a request go on where one has arrived that is not refused."""
        waiter = self._waiter
        if waiter is None:  # a request is being answered; to watch on meanwhile mostly saves a system call
            self._watched = False
            self._readable.stop()
            return
        if self._goes_on():
            waiter.switch(None)

    def _goes_on(self) -> bool:
        """Refuse the request that has arrived, or say that it goes on, as what is gone or broken does.

        The event loop itself does this: changing to the greenlet would cost as much as the refusal.
        """
        try:
            try:
                received = os.read(self.fileno(), _FIRST_BYTES)
            except BlockingIOError:
                return False
            self._begun += received
            if received and self._head_is_coming():
                return False
            return not (self._answering.overloaded() and self._refused())
        except OSError:
            pass  # the greenlet finds out; gevent's own methods would wait here
        except Exception:
            with contextlib.suppress(MemoryError):  # to tell it
                log.exception("a request could not be refused, so it is answered")
        return True

    def _head_is_coming(self) -> bool:
        """Say whether to wait for the rest of a head, which is for a while, and where it is short.

        Byte by byte, a parser in a greenlet would take ten times as long.
        """
        if _END_OF_HEAD in self._begun or len(self._begun) > _SHORT_HEAD:
            return False
        if self._patience is None:
            self.since = time.monotonic()
            self._patience = gevent.get_hub().loop.timer(STALLED_SECONDS)
            self._patience.start(self.let_go)
        return True

    def _refused(self) -> bool:
        """Refuse the request that has arrived, if it may be; say whether the next one is waited for."""
        request = read(self._begun)
        answer = self._answering.refuse(request, self.address) if request else None
        if answer is None:
            return False
        written = os.write(self.fileno(), answer)
        self._begun = b""
        self.since = time.monotonic()
        if written == len(answer):
            return True
        self.shutdown(socket.SHUT_RDWR)  # it asks and does not read; nothing may follow half an answer
        return False

    def _answered(self) -> bool:
        """Answer the request that has arrived, if it needs no parser; say whether the next one is waited for."""
        request = read(self._begun)
        if request is None or not self._answering.takes(request):
            return False
        if not request.whole:
            request = self._completed(request)
        if not request.whole:
            return False
        late = self._answering.overloaded()
        answer = (self._answering.refuse if late else self._answering.answer)(request, self.address)
        if answer is None:
            return False
        self._begun = b""
        self.answered = True
        self.sendall(answer)
        self.flush()
        return True

    def _completed(self, request: PlainRequest) -> PlainRequest:
        """Return ``request`` with the rest of its body, where there is room and it comes at once.

        Most clients send the body a moment after the head. One that does not come at once is the parser's.
        """
        if not self._answering.reserve(request.length):
            return request
        try:
            rest: list[bytes] = []
            missing = request.length - len(request.body)
            # Not with_timeout: what ends it would be held with all that its callers have, until garbage is collected.
            with gevent.Timeout(_MOMENT, False):  # type: ignore[arg-type]
                self._receive(missing, rest)
            self._begun += b"".join(rest)
            return dataclasses.replace(request, body=b"".join((request.body, *rest)))
        finally:
            self._answering.release(request.length)

    def _receive(self, missing: int, blocks: list[bytes]) -> None:
        """Receive ``missing`` bytes into ``blocks``, or what there is."""
        self.waits = True
        try:
            with contextlib.suppress(OSError):
                while missing > 0 and (size := super().recv_into(self._table.buffer[:missing])):
                    blocks.append(bytes(self._table.buffer[:size]))
                    missing -= size
        finally:
            self.waits = False
        if self._leaves:
            raise _gone_silent()


def _drop(read: Callable[[int], bytes], limit: float = float("inf")) -> bool:
    """Read and drop up to ``limit`` bytes, for some seconds; say whether that was all there is."""

    def all_dropped() -> bool:
        left = limit
        while left > 0:
            block = read(_AT_ONCE)
            if not block:
                return True
            left -= len(block)
            gevent.sleep(0)  # a client that sends as fast as it is read would keep all others waiting
        return False

    # Where it is malformed or the client is gone: the answer has been sent.
    with contextlib.suppress(Exception), gevent.Timeout(DRAIN_SECONDS, False):  # type: ignore[arg-type]
        return all_dropped()
    return False


def _gone_silent() -> TimeoutError:
    """Return the error for a silent client, with the number of one that is gone: gunicorn logs all others as faults."""
    return TimeoutError(errno.ECONNRESET, "the client went silent")
