"""How far long work has come, and how long it takes, in words and as a bar."""

import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Protocol

from tqdm import tqdm

_FIRST_WORD, _NEXT_WORDS = 5.0, 30.0  # seconds of silence where there is no terminal to draw a bar on


class Bar(Protocol):
    """What moves as work is done."""

    def update(self, done: int) -> object:
        """Note that ``done`` more units are done."""


@contextmanager
def bar(total: int, what: str, unit: str) -> Iterator[Bar]:
    """Show on standard error how far ``what`` has come, of ``total`` units.

    On a terminal it is a bar that goes when the block ends; elsewhere, as in a container's log, a line after five
    seconds and then one every half a minute, with the time left.
    """
    if sys.stderr.isatty():
        with tqdm(total=total, desc=what, unit=unit, leave=False, dynamic_ncols=True) as shown:
            yield shown
    else:
        yield _Lines(total, what, unit)


class _Lines:
    def __init__(self, total: int, what: str, unit: str) -> None:
        self._total, self._what, self._unit = total, what, unit
        self._done = 0
        self._begun = time.monotonic()
        self._next = self._begun + _FIRST_WORD

    def update(self, done: int) -> None:
        self._done += done
        now = time.monotonic()
        if now < self._next or self._done >= self._total:
            return
        self._next = now + _NEXT_WORDS
        left = (now - self._begun) / self._done * (self._total - self._done)
        counted = f"{self._done:,} of {self._total:,} {self._unit}s"
        print(f"{self._what}: {counted}, time left {duration(left)}", file=sys.stderr, flush=True)


@contextmanager
def stage(what: str) -> Iterator[None]:
    """Say what is being done, before it is done: some of it takes a while in a library that shows nothing."""
    print(f"{what} ...", flush=True)
    yield


def duration(seconds: float) -> str:
    """Return a span of time as people say it: ``45 s``, ``12 min``, ``1 h 05 min``."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    minutes = round(seconds / 60)
    return f"{minutes} min" if minutes < 90 else f"{minutes // 60} h {minutes % 60:02d} min"
