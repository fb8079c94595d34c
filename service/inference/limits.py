"""How many pixels a picture may have, and the memory that all may take together while they are decoded."""

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from service.inference.errors import DeadlineExceeded, ImageTooLarge
from service.inference.runtime import Event, Runtime

_LONGEST_SIDE = 100_000  # pixels; a JPEG has at most 65,535, and each row of one pixel costs as much as fifty pixels


def check_pixels(width: int, height: int, most: int) -> None:
    """Raise ImageTooLarge if a picture of ``width`` x ``height`` has more than ``most`` pixels, or a very long side."""
    if max(width, height) > _LONGEST_SIDE:
        raise ImageTooLarge(
            f"The picture has {width:,} x {height:,} pixels; at most {_LONGEST_SIDE:,} a side are allowed."
        )
    if width * height > most:
        raise ImageTooLarge(
            f"The picture has {width} x {height} = {width * height:,} pixels; "
            f"at most {most:,} are allowed. Send a smaller one."
        )


class DecodingMemory:
    """So many bytes; who needs more than are free waits, as the runtime does."""

    def __init__(self, limit: int, runtime: Runtime, clock: Callable[[], float] = time.monotonic) -> None:
        """Take the most bytes at one time."""
        self._limit = limit
        self._runtime = runtime
        self._clock = clock
        self._taken = 0
        self._lock = threading.Lock()
        self._waiting: list[Event] = []

    @contextmanager
    def take(self, size: int, deadline: float) -> Iterator[None]:
        """Hold ``size`` bytes for the time of the block; ``deadline`` is a time of the clock, in seconds.

        Raises:
            ImageTooLarge: there will never be so many.
            DeadlineExceeded: others held them until the deadline.
        """
        if size > self._limit:
            raise ImageTooLarge(
                f"Decoding the picture takes about {_megabytes(size)} of memory, and there are "
                f"{_megabytes(self._limit)} for it; send a smaller one, or send it as a JPEG."
            )
        while (others := self._wait_for(size)) is not None:
            if not others.wait(max(0.0, deadline - self._clock())):
                raise DeadlineExceeded("Other large pictures were decoded until the deadline; try again later.")
        try:
            yield
        finally:
            with self._lock:
                self._taken -= size
                waiting, self._waiting = self._waiting, []
            self._runtime.wake(waiting)

    def _wait_for(self, size: int) -> Event | None:
        """Take ``size`` bytes; return what to wait for where they are not free."""
        with self._lock:
            if self._taken + size <= self._limit:
                self._taken += size
                return None
            self._waiting.append(self._runtime.event())
            return self._waiting[-1]


def _megabytes(size: int) -> str:
    return f"{size / 1e6:,.0f} MB"
