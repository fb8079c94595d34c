"""Follows MODEL_SOURCE from a thread: syncs now and then, and sooner where that has failed.

One worker of all does it, the one that holds the lock of a file in the folder of models. Where it dies the system
releases the lock, and another takes over: nothing else has to watch over it, as a process of its own would need. The
thread waits for network and disk outside of Python, and stands back where cores are short.
"""

import fcntl
import logging
import random
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Protocol

from artifact.errors import REASONS, UNEXPECTED, SourceFails, Stopped
from machine import lasting_thread, start_thread, thread_stands_back
from service.sources.catalogue import Source
from service.sources.journal import fault_in
from service.sources.sync import FOLDER, JOURNAL, Served, Sync

log = logging.getLogger(__name__)

_LOCK = "lock"
_LOOK_SECONDS = 1.0  # of a worker that does not sync, at whether it has to
_FIRST_PAUSE, _LONGEST_PAUSE = 1.0, 60.0  # seconds after a failure, which double
_NICENESS = 10  # of the thread
_CLOSE_SECONDS = 1.0


class SourceObserver(Protocol):
    """Is told how syncing goes."""

    def source_synced(self) -> None:
        """Note that all that is needed of the source is here."""

    def source_failed(self, reason: str, times: int = 1) -> None:
        """Note that it could not be had, for one of ``REASONS``."""


class Follower:
    """Keeps a folder of models as its source is."""

    def __init__(
        self,
        open_source: Callable[[Path, Callable[[], bool]], Source],
        models: Path,
        names: tuple[str, ...] | None,
        pinned: int | None,
        poll_seconds: float,
        served: Served,
        observer: SourceObserver,
    ) -> None:
        """Take what opens the source, with a folder for its own use and what says whether to stop; see ``Sync``."""
        self._open = open_source
        self._models = models
        self._names = names
        self._pinned = pinned
        self._poll_seconds = poll_seconds
        self._served = served
        self._observer = observer
        self._stop = threading.Event()
        self._thread = lasting_thread(self._run, "source")
        self._sync: Sync | None = None
        self._fault: str | None = None

    @property
    def reason(self) -> str | None:
        """What keeps a model from being here, in a sentence; None where nothing does."""
        doing = self._sync.doing if self._sync is not None else None
        return self._fault or doing

    def start(self) -> None:
        """Begin to follow the source, in a thread."""
        for reason in REASONS:
            self._observer.source_failed(reason, 0)  # so that the first one is seen as an increase
        start_thread(self._thread)

    def close(self) -> None:
        """End the thread; what it was fetching is gone on with after the next start."""
        self._stop.set()
        if self._thread.is_alive():
            self._thread.join(_CLOSE_SECONDS)

    def _run(self) -> None:
        thread_stands_back(_NICENESS)  # answers go first
        folder = self._models / FOLDER
        while not self._stop.is_set():
            try:
                folder.mkdir(parents=True, exist_ok=True)
                with (folder / _LOCK).open("wb") as lock:  # whose end releases it
                    fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                    self._follow(folder)
            except BlockingIOError:  # another worker has it
                self._fault = fault_in(folder / JOURNAL)
            except OSError as error:
                self._tell(f"{folder} cannot be written or locked: {error.strerror}")
            self._stop.wait(_LOOK_SECONDS)

    def _follow(self, folder: Path) -> None:
        """Sync until the end, or until something happens that nobody has thought of."""
        failures = 0
        while not self._stop.is_set():
            try:
                if self._sync is None:
                    source = self._open(folder, self._stop.is_set)
                    self._sync = Sync(source, self._models, self._names, self._pinned, self._served)
                self._sync.run()
            except Stopped:
                return
            except SourceFails as fault:
                failures += 1
                self._observer.source_failed(fault.reason)
                self._tell(str(fault))
            except Exception:
                failures += 1
                self._observer.source_failed(UNEXPECTED)
                self._fault = "syncing the models failed; the log says of what"
                log.exception("syncing the models failed; trying again")
            else:
                failures = 0
                self._observer.source_synced()
                if self._fault:
                    log.info("the source of the models answers again")
                self._fault = None
            self._stop.wait(self._pause(failures))

    def _pause(self, failures: int) -> float:
        """Return the seconds until the next attempt: after failures fewer, growing and random."""
        if not failures:
            return self._poll_seconds
        longest = min(self._poll_seconds, _LONGEST_PAUSE)
        return min(longest, _FIRST_PAUSE * 2.0 ** min(failures - 1, 10)) * random.uniform(0.5, 1.0)  # noqa: S311

    def _tell(self, fault: str) -> None:
        if fault != self._fault:
            log.warning("%s", fault)
        self._fault = fault
