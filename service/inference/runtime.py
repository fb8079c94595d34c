"""How requests wait: in threads, as tests and scripts do it, or as greenlets on the worker's event loop.

Most requests are so short that handing them to a thread costs more than answering them. The worker answers these on its
one event loop (gevent), where a request that waits for the engine lets the next one go on; whatever takes long goes
aside, into threads.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from typing import Protocol, TypeVar

Result = TypeVar("Result")


class Event(Protocol):
    """What somebody waits for until another thread wakes it."""

    def wait(self, timeout: float | None = None) -> bool:
        """Wait up to ``timeout`` seconds; say whether it was woken."""


class Waiting(Protocol):
    """The ways in which the code of a request may wait."""

    def event(self) -> Event:
        """Return an event that the caller may wait for."""

    def wake(self, events: Sequence[Event]) -> None:
        """Wake those who wait for ``events``, from whatever thread."""

    def alone(self) -> bool:
        """Say whether nobody is kept waiting by a caller that computes for a millisecond."""

    def aside(self, work: Callable[[], Result]) -> Result:
        """Return ``work()``, which may take long, without keeping others waiting."""


class Threads:
    """Every request has a thread of its own."""

    def event(self) -> Event:
        """Return an event for threads."""
        return threading.Event()

    def wake(self, events: Sequence[Event]) -> None:
        """Wake the threads that wait for ``events``."""
        for event in events:
            if isinstance(event, threading.Event):
                event.set()

    def alone(self) -> bool:
        """Say yes: other threads go on meanwhile."""
        return True

    def aside(self, work: Callable[[], Result]) -> Result:
        """Return ``work()``."""
        return work()
