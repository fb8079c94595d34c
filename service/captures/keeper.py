"""Keeps pictures beside the answers: requests only leave them here, a thread of its own writes them."""

import contextlib
import hashlib
import logging
import math
import sqlite3
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextvars import ContextVar
from typing import NamedTuple, Protocol

from machine import lasting_thread, start_thread, thread_stands_back
from service.captures.choice import RANDOM, REPORTED, Choice, Chosen
from service.captures.errors import FolderFails
from service.captures.folder import CaptureFolder, Kept
from service.inference.engine import Output
from service.inference.errors import QueueFull
from service.inference.items import Item
from service.inference.loaded import LoadedModel

log = logging.getLogger(__name__)

KEPT, DUPLICATE, LIMITED, DROPPED, FAILED = OUTCOMES = ("kept", "duplicate", "limited", "dropped", "failed")
"""What becomes of pictures that are to be kept; beyond the rate or the room for those that wait they are not."""

# That doubts choose, and as many that people report, of one worker: of a stream the beginning is worth most.
_MOST_A_SECOND = 10
_GATHER_SECONDS = 0.25  # what comes in that time is written together
_EXPIRE_SECONDS = 60.0
_SWEEP_SECONDS = 3600.0
_BESIDE_A_PICTURE = 1024  # bytes of memory, at most
_NICENESS = 10  # of the thread
_CLOSE_SECONDS = 5.0

_REFUSED: ContextVar[bool] = ContextVar("capture_refused", default=False)  # by the request that is being answered


class CaptureObserver(Protocol):
    """Is told what becomes of pictures that are to be kept."""

    def captured(self, outcome: str, pictures: int = 1) -> None:
        """Note that ``pictures`` came to this outcome, one of ``OUTCOMES``."""


class _Waiting(NamedTuple):
    chosen: Chosen
    time: float  # seconds since the epoch
    request_id: str | None


class _Rate:
    """Counts within each second, up to the most that are allowed."""

    def __init__(self, most: int) -> None:
        self._most = most
        self._second, self._counted = 0, 0

    def allows(self, second: int) -> bool:
        """Count one more in ``second``; say whether it is among those that are allowed."""
        if second != self._second:
            self._second, self._counted = second, 0
        self._counted += 1
        return self._counted <= self._most


class Keeper:
    """Chooses pictures that were answered, and keeps them; whatever goes wrong is counted, and no request's concern."""

    def __init__(
        self,
        open_folder: Callable[[], CaptureFolder],
        choice: Choice,
        observer: CaptureObserver,
        request_id: Callable[[], str | None],
        most_bytes: int,
    ) -> None:
        """Take what opens the folder, what chooses, and what is told of it; ``request_id`` is that of the request.

        At most ``most_bytes`` of memory wait for the thread, which begins with ``start``.
        """
        self._open_folder = open_folder
        self._choice = choice
        self._observer = observer
        self._request_id = request_id
        self._most_bytes = most_bytes
        self._lock = threading.Lock()
        self._opening = threading.Lock()
        self._folder: CaptureFolder | None = None
        self._waiting: deque[_Waiting] = deque()
        self._bytes = 0
        self._doubts, self._reports = _Rate(_MOST_A_SECOND), _Rate(_MOST_A_SECOND)
        self._work, self._idle = threading.Event(), threading.Event()
        self._closed = threading.Event()
        self._thread: threading.Thread | None = None
        self._told = False
        self._expired = self._swept = -math.inf

    def start(self) -> None:
        """Begin to write what is left here, and to take away what is too old."""
        with self._lock:
            if self._thread is None:
                thread = lasting_thread(self._run, "captures")
                start_thread(thread)
                self._thread = thread

    def heed(self, asked: str | None) -> None:
        """Note what a request asks for that is answered from now on, where it asks anything.

        Whoever writes such a header means to keep his pictures to himself, in whatever word.
        """
        _REFUSED.set(asked is not None and asked.strip().lower() != "yes")

    def offer(self, model: LoadedModel, items: Sequence[Item], outputs: Sequence[object]) -> None:
        """Keep those of ``items`` that are worth it; ``outputs`` has float32 [columns] for each that was answered.

        It takes microseconds, and raises nothing.
        """
        if _REFUSED.get():
            return
        try:
            for chosen in self._choice.among(model, items, outputs):
                self._leave(chosen)
        except Exception as error:  # noqa: BLE001 - an answer is worth more than a picture
            self._observer.captured(FAILED)
            self._tell("pictures are not kept", error)

    def report(self, model: LoadedModel, item: Item, output: Output, suggested: str | None) -> bool:
        """Keep a picture whose answer somebody calls wrong; say whether the request let that be.

        ``output`` is float32 [columns]; ``suggested`` is the label that is said to be right, if any. Nothing is drawn
        by chance here, so that what people report never counts in the accuracy of the random share.

        Raises:
            QueueFull: more are reported than are kept.
        """
        if _REFUSED.get():
            return False
        if not isinstance(item.content, bytes):
            raise TypeError("only the picture of a file is kept")
        chosen = Chosen(item.content, model.name, model.version, model.metadata, output.copy(), (REPORTED,), suggested)
        if not self._leave(chosen):
            raise QueueFull("More pictures are reported at the moment than are kept; try again later.")
        return True

    def _leave(self, chosen: Chosen) -> bool:
        """Leave a picture to the thread; say whether there is room for it, and count it where there is none."""
        now, size = time.time(), _size(chosen)
        rate = self._reports if REPORTED in chosen.reasons else self._doubts
        if RANDOM not in chosen.reasons and not rate.allows(int(now)):
            self._observer.captured(LIMITED)
            return False
        waiting = _Waiting(chosen, now, self._request_id())
        with self._lock:
            fits = self._bytes + size <= self._most_bytes and not self._closed.is_set()
            if fits:
                self._waiting.append(waiting)
                self._bytes += size
                self._idle.clear()
        if fits:
            self._work.set()
        else:
            self._observer.captured(DROPPED)
        return fits

    @contextlib.contextmanager
    def folder(self) -> Iterator[CaptureFolder]:
        """Give the folder of what is kept.

        Raises:
            FolderFails: it cannot be read or written; also where the block finds that out.
        """
        try:
            with self._opening:
                if self._folder is None:
                    self._folder = self._open_folder()
            yield self._folder
        except (OSError, sqlite3.Error) as error:
            raise FolderFails(f"The folder of kept pictures cannot be used at the moment: {error}.") from error

    def flush(self, seconds: float) -> bool:
        """Wait until all that was left here is written; say whether that took less than ``seconds``."""
        with self._lock:
            if not self._waiting and not self._bytes:
                return True
        return self._idle.wait(seconds)

    def close(self) -> None:
        """Write what waits, and end the thread."""
        self._closed.set()
        self._work.set()
        if self._thread is not None:
            self._thread.join(_CLOSE_SECONDS)
        if self._folder is not None and (self._thread is None or not self._thread.is_alive()):
            self._folder.close()

    def _run(self) -> None:
        thread_stands_back(_NICENESS)  # answers go first
        while not self._closed.is_set() or self._waiting:
            self._work.wait(_EXPIRE_SECONDS)
            self._closed.wait(_GATHER_SECONDS)
            self._work.clear()
            with self._lock:
                batch = list(self._waiting)
                self._waiting.clear()
            try:
                if batch:
                    self._write(batch)
                self._tidy()
            finally:
                with self._lock:
                    self._bytes -= sum(_size(waiting.chosen) for waiting in batch)
                    if not self._waiting:
                        self._idle.set()

    def _write(self, batch: Sequence[_Waiting]) -> None:
        try:
            pictures = [
                Kept(
                    hashlib.sha256(waiting.chosen.content).hexdigest(),
                    waiting.chosen.content,
                    waiting.chosen.answer(waiting.time, waiting.request_id),
                )
                for waiting in batch
            ]
            with self.folder() as folder:
                duplicates = folder.keep(pictures)
        except Exception as error:  # noqa: BLE001 - the thread goes on, whatever it is
            self._observer.captured(FAILED, len(batch))
            self._tell("pictures are not kept", error)
            return
        self._told = False
        self._observer.captured(KEPT, len(batch) - duplicates)
        self._observer.captured(DUPLICATE, duplicates)

    def _tidy(self) -> None:
        """Take away what is too old, and what nobody knows of, now and then."""
        now = time.monotonic()
        try:
            if now > self._expired + _EXPIRE_SECONDS:
                self._expired = now
                with self.folder() as folder:
                    folder.expire()
            if now > self._swept + _SWEEP_SECONDS:
                self._swept = now
                with self.folder() as folder:
                    folder.sweep()
        except Exception as error:  # noqa: BLE001 - the thread goes on, whatever it is
            self._tell("kept pictures are not tidied up", error)

    def _tell(self, what: str, error: Exception) -> None:
        """Log an error, and no other before something is written again: a full disk fails many times a second."""
        if not self._told:
            self._told = True
            log.error("%s: %s", what, error, exc_info=None if isinstance(error, FolderFails) else error)


def _size(chosen: Chosen) -> int:
    """Return the bytes that a picture takes while it waits."""
    return len(chosen.content) + chosen.output.nbytes + _BESIDE_A_PICTURE
