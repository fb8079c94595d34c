"""Threads that work for as long as their process, also where memory is short for a moment."""

import logging
import mmap
import threading
import time
from collections.abc import Callable

log = logging.getLogger(__name__)

_PAUSE_SECONDS = 0.5  # in which memory may be free again
_BEGINNING = 4 * 1024 * 1024  # bytes that a thread takes at most before it does anything, beside its stack


def lasting_thread(work: Callable[[], object], name: str) -> threading.Thread:
    """Return a thread, not started yet, that does ``work`` until that has come to its end, and again where it fails.

    Where memory is short for a moment anything may fail, even to wait: a thread that ended of it would be missed for
    the rest of the process's life. ``work`` has to leave behind what it can begin with again.
    """
    return threading.Thread(target=_last, args=(work, name), name=name, daemon=True)


def start_thread(thread: threading.Thread) -> None:
    """Start ``thread``.

    Raises:
        MemoryError: there is no memory for it, or there are too many threads.
    """
    check_room_for_thread()
    try:
        thread.start()
    except RuntimeError as error:
        raise MemoryError(str(error)) from error


def check_room_for_thread() -> None:
    """Raise MemoryError where a thread would have none to begin with.

    Python's own ``start`` waits for ever for a thread that fails before it has told that it begins.
    """
    try:
        mmap.mmap(-1, _BEGINNING).close()  # of the system itself, beside what the allocator has in pieces
    except OSError as error:
        raise MemoryError("no memory for a thread") from error


def _last(work: Callable[[], object], name: str) -> None:
    while True:
        try:
            work()
        except Exception as error:  # noqa: BLE001 - whatever it is, it passes or is told again
            _tell(name, error)
        else:
            return


def _tell(name: str, error: Exception) -> None:
    try:
        time.sleep(_PAUSE_SECONDS)
        trace = None if isinstance(error, MemoryError) else error
        log.error("the thread %r failed and goes on: %s", name, str(error) or type(error).__name__, exc_info=trace)
    except MemoryError:
        pass
