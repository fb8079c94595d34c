"""Whose request begins next, where thousands arrive at the same moment."""

from collections import OrderedDict, deque

import gevent
from gevent.hub import Waiter

_AT_ONCE = 64  # requests; to parse their heads takes some 8 ms


class Turns:
    """Turns in which requests begin that are read by a parser, so many in each turn of the event loop.

    Where more have arrived, addresses take turns: nobody waits for thousands that began together from another one.
    """

    def __init__(self) -> None:
        """Make those of the calling thread's event loop."""
        loop = gevent.get_hub().loop
        self._begun = 0  # in this turn of the loop
        self._waiting: OrderedDict[str | None, deque[Waiter[None]]] = OrderedDict()  # the next address first
        self._each_turn = loop.prepare()
        self._each_turn.start(self._count_anew)
        self._next_turn = loop.timer(0.0)  # a callback would come before the loop looks at its sockets
        self._goes_on = False  # in the next turn

    def wait(self, address: str | None) -> None:
        """Return when a request of ``address`` may begin; called by its greenlet."""
        if self._begun < _AT_ONCE and not self._waiting:
            self._begun += 1
            return
        waiter: Waiter[None] = Waiter()
        self._waiting.setdefault(address, deque()).append(waiter)
        self._go_on()
        waiter.get()

    def _count_anew(self) -> None:
        self._begun = 0

    def _go_on(self) -> None:
        if not self._goes_on:
            self._goes_on = True
            self._next_turn.start(self._begin_some)

    def _begin_some(self) -> None:
        self._goes_on = False
        for _ in range(_AT_ONCE):
            if not self._waiting:
                break
            address, waiters = self._waiting.popitem(last=False)
            waiter = waiters.popleft()
            if waiters:
                self._waiting[address] = waiters  # behind the others
            waiter.switch(None)
        if self._waiting:
            self._go_on()
