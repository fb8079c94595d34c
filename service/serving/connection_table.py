"""The connections of one worker: how many there may be, and who goes where there is no room for another."""

import heapq
import time
from collections import defaultdict
from typing import Protocol

import gevent

_LOOKED_FOR_AT_ONCE = 128  # a look at all connections is worth so many of them
_BUFFER = 1024 * 1024  # bytes, the most that is received at once
_NEW_SECONDS = 1.0  # in which whoever connects mostly asks


class Kept(Protocol):
    """A connection, as the table sees it."""

    address: str | None
    waits: bool  # for the client, who may be let go then
    since: float  # when the client was in time for the last time
    answered: bool  # a request
    unsent: int  # bytes of an answer that the client does not take

    @property
    def idle(self) -> bool:
        """Whether no request has begun since ``since``."""

    def let_go(self) -> None:
        """End the connection where it waits for the client; called by the event loop, never by a greenlet."""

    def hang_up(self) -> None:
        """End the connection, which is idle, after what has arrived already."""


class ConnectionTable:
    """All connections of a worker.

    Whoever comes is let in: a server that lets nobody in until somebody leaves can be held by a few that say nothing.
    Where there are as many as may be, one that waits for its client goes: of those that were never answered, unless
    they are new, or else of all, the address with the most loses the one with the least progress. So one address cannot
    crowd out others, and a proxy in front, which is one address as well, loses what it does not use.
    """

    def __init__(self, most: int, most_unsent: int) -> None:
        """Take the most connections, and the most bytes of answers that their clients do not take."""
        self.buffer = memoryview(bytearray(_BUFFER))
        """Where what a client sends lies for a moment, until it is copied."""
        self._most = most
        self._most_unsent = most_unsent
        self._open: set[Kept] = set()
        self._next: list[tuple[float, Kept]] = []  # those that go next, the first of them at the end
        self._unsent = 0  # bytes

    def __len__(self) -> int:
        """Return how many connections there are."""
        return len(self._open)

    def add(self, connection: Kept) -> None:
        """Take ``connection`` in."""
        self._open.add(connection)

    def remove(self, connection: Kept) -> None:
        """Forget ``connection``, which has ended."""
        self._open.discard(connection)

    def make_room(self) -> None:
        """Let one go where there is no room for another; called by the event loop, never by a greenlet.

        Where all of them are being answered, none goes: that soon ends by itself.
        """
        if len(self._open) >= self._most and (connection := self._least_progressed()):
            connection.let_go()

    def hang_up(self, seconds: float = 0.0) -> None:
        """End those that have been idle for so long."""
        until = time.monotonic() - seconds
        for connection in [one for one in self._open if one.idle and one.since <= until]:
            connection.hang_up()

    def note_unsent(self, connection: Kept, size: int) -> None:
        """Note that ``connection`` has ``size`` bytes of an answer to send; where all have too much, one goes."""
        self._unsent += size - connection.unsent
        connection.unsent = size
        if self._unsent > self._most_unsent:
            slow = [one for one in self._open if one.unsent and one.waits]
            if slow:
                gevent.get_hub().loop.run_callback(min(slow, key=lambda one: one.since).let_go)

    def _least_progressed(self) -> Kept | None:
        """Return who goes next; None where nobody is waited for."""
        if not self._next:
            self._next = self._in_order()
        while self._next:
            since, connection = self._next.pop()
            if connection in self._open and connection.waits and connection.since == since:
                return connection
        return None

    def _in_order(self) -> list[tuple[float, Kept]]:
        """Return those that go next, the first of them at the end."""
        new = time.monotonic() - _NEW_SECONDS
        waiting = [one for one in self._open if one.waits]
        strangers = [one for one in waiting if not one.answered and one.since < new]
        by_address: dict[str, list[Kept]] = defaultdict(list)
        for connection in sorted(strangers or waiting, key=lambda one: -one.since):
            by_address[str(connection.address)].append(connection)
        most = [(-len(of_address), address) for address, of_address in by_address.items()]
        heapq.heapify(most)
        found: list[tuple[float, Kept]] = []
        while most and len(found) < _LOOKED_FOR_AT_ONCE:
            size, address = heapq.heappop(most)
            connection = by_address[address].pop()
            found.append((connection.since, connection))
            if size < -1:
                heapq.heappush(most, (size + 1, address))
        return found[::-1]
