"""How the code of a request waits and where it may run: in threads, or as a greenlet of the worker's event loop.

Most requests are so short that handing them to a thread costs more than answering them. The worker answers these on its
one event loop (gevent), where a request that waits for the engine lets the next one go on; whatever takes long is
offloaded to threads. ``offload.py`` says which work that is.
"""

import threading
from collections.abc import Callable, Sequence
from typing import Protocol, TypeVar

Result = TypeVar("Result")


class Event(Protocol):
    """What somebody waits for until another thread wakes it."""

    def wait(self, timeout: float | None = None) -> bool:
        """Wait up to ``timeout`` seconds; say whether it was woken."""


class Runtime(Protocol):
    """What the code of a request runs in."""

    def event(self) -> Event:
        """Return an event that the caller may wait for."""

    def wake(self, events: Sequence[Event]) -> None:
        """Wake those who wait for ``events``, from whatever thread."""

    def soon(self, work: Callable[[], object]) -> None:
        """Do ``work`` once what is due now has been done; asked for twice until then, it is done once."""

    def alone(self) -> bool:
        """Say whether nobody is kept waiting by a caller that computes for a millisecond."""

    def offload(self, work: Callable[[], Result]) -> Result:
        """Return ``work()``, which may take long, without keeping others waiting."""


class ThreadRuntime:
    """Every request has a thread of its own, as in tests and scripts."""

    def event(self) -> Event:
        """Return an event for threads."""
        return threading.Event()

    def wake(self, events: Sequence[Event]) -> None:
        """Wake the threads that wait for ``events``."""
        for event in events:
            if isinstance(event, threading.Event):
                event.set()

    def soon(self, work: Callable[[], object]) -> None:
        """Do ``work`` at once: nothing else is known to be due."""
        work()

    def alone(self) -> bool:
        """Say yes: other threads go on meanwhile."""
        return True

    def offload(self, work: Callable[[], Result]) -> Result:
        """Return ``work()``."""
        return work()
