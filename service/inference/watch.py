"""Watches what this process takes while it loads a model version, and ends it in time."""

import threading
import time
from collections.abc import Callable
from types import TracebackType

from machine import free_memory, lasting_thread, own_memory, start_thread, usable_memory

_INTERVAL_SECONDS = 0.005  # in which a process takes some tens of MB at most
_SHARE_LEFT = 20  # of the memory, one part: what loading leaves for requests, and for what is taken between two looks

NO_MEMORY = "it needs more memory than there is: loading it took {taken:.0f} MB, of which {most:.0f} were free"
TOO_SLOW = "it did not load within {seconds:g} s"


def spare_memory(workers: int = 1, replaced: int = 0) -> int:
    """Return the bytes that loading a version may take now, where each of ``workers`` will take as much.

    They do so one after the other, and let go of the version before, which took ``replaced`` bytes, or nothing.
    """
    free = max(0, free_memory() - usable_memory() // _SHARE_LEFT)
    return min(free, free // workers + replaced)


class Watch:
    """While the block runs, a thread looks at what it takes, and calls ``end`` with the fault where that is too much.

    Native code cannot be interrupted: ``end`` has to end the process. Without /proc, memory is not watched.
    """

    def __init__(self, most_bytes: int, seconds: float, end: Callable[[str], object]) -> None:
        """Take how many bytes of memory and how many seconds the block may take."""
        self._most_bytes = most_bytes
        self._seconds = seconds
        self._end = end
        self._before = self._peak = own_memory()
        self._deadline = time.monotonic() + seconds
        self._done = threading.Event()
        self._thread = lasting_thread(self._look, "watch")

    @property
    def taken(self) -> int:
        """The most bytes of memory that the block took at any time."""
        return self._peak - self._before

    def __enter__(self) -> "Watch":
        """Begin to watch."""
        start_thread(self._thread)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Stop watching."""
        self._done.set()
        self._thread.join()

    def _look(self) -> None:
        while not self._done.wait(_INTERVAL_SECONDS):
            self._peak = max(self._peak, own_memory())
            if self.taken > self._most_bytes:
                self._end(NO_MEMORY.format(taken=self.taken / 1e6, most=self._most_bytes / 1e6))
            if time.monotonic() > self._deadline:
                self._end(TOO_SLOW.format(seconds=self._seconds))
