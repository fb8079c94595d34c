"""How many pixels a picture may have, and the memory that all may take together while they are decoded."""

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from service.inference.errors import DeadlineExceeded, ImageTooLarge


def check_pixels(width: int, height: int, most: int) -> None:
    """Raise ImageTooLarge if a picture of ``width`` x ``height`` has more than ``most`` pixels."""
    if width * height > most:
        raise ImageTooLarge(
            f"The picture has {width} x {height} = {width * height:,} pixels; "
            f"at most {most:,} are allowed. Send a smaller one."
        )


class DecodingMemory:
    """So many bytes; who needs more than are free waits."""

    def __init__(self, limit: int, clock: Callable[[], float] = time.monotonic) -> None:
        """Take the most bytes at one time."""
        self._limit = limit
        self._clock = clock
        self._taken = 0
        self._changed = threading.Condition()

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
        with self._changed:
            free = self._changed.wait_for(lambda: self._taken + size <= self._limit, max(0.0, deadline - self._clock()))
            if not free:
                raise DeadlineExceeded("Other large pictures were decoded until the deadline; try again later.")
            self._taken += size
        try:
            yield
        finally:
            with self._changed:
                self._taken -= size
                self._changed.notify_all()


def _megabytes(size: int) -> str:
    return f"{size / 1e6:,.0f} MB"
