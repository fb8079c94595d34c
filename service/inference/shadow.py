"""A second version answers the same pictures, nobody waits for it, and what they disagree on is counted.

It works on a thread of its own, on what requests leave here once they are answered. Where it cannot keep up, pictures
are dropped: what is compared is a sample, and the version that answers comes first.
"""

import logging
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from typing import NamedTuple, Protocol

import numpy as np

from machine import lasting_thread, start_thread, thread_stands_back
from service.inference.decoding import Decoder
from service.inference.engine import Output
from service.inference.errors import ServiceError
from service.inference.items import Item
from service.inference.loaded import LoadedModel
from service.inference.models import Models
from service.inference.predictions import interpret

log = logging.getLogger(__name__)

AGREED, DISAGREED, DROPPED, FAILED = OUTCOMES = ("agreed", "disagreed", "dropped", "failed")
"""What becomes of pictures that the second version was to answer."""

OTHER = "(other)"  # stands for labels beyond the pairs that are counted apart
_MOST_PAIRS = 100  # of labels, of two versions
_MOST_WAITING = 64  # pictures
_MOST_BYTES = 64 * 1024**2
_SECONDS = 10.0  # that an answer may take
_NICENESS = 10  # of the thread
_CLOSE_SECONDS = 2.0


class ShadowObserver(Protocol):
    """Is told what becomes of the pictures."""

    def shadowed(self, name: str, version: int, shadow: int, outcome: str, images: int = 1) -> None:
        """Note what became of ``images`` that version ``shadow`` was to answer as well."""

    def disagreed(self, name: str, version: int, shadow: int, labels: tuple[str, str]) -> None:
        """Note that ``shadow`` gave an image another label than ``version``: the second of ``labels``."""


class _Waiting(NamedTuple):
    name: str
    version: int
    shadow: int
    item: Item
    told: frozenset[str]  # the labels that were answered
    size: int  # bytes


class Shadow:
    """Compares the answers of a second version with those that were given."""

    def __init__(
        self,
        models: Models,
        decoder: Decoder,
        observer: ShadowObserver,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """Take where versions are, what decodes, and what is told; the thread begins with the first picture."""
        self._models = models
        self._decoder = decoder
        self._observer = observer
        self._clock = clock
        self._lock = threading.Lock()
        self._waiting: deque[_Waiting] = deque()
        self._bytes = 0
        self._pairs: dict[tuple[str, int, int], set[tuple[str, str]]] = {}
        self._work, self._closed = threading.Event(), threading.Event()
        self._idle = threading.Event()
        self._thread: threading.Thread | None = None

    def offer(self, model: LoadedModel, items: Sequence[Item], outputs: Sequence[Output | ServiceError]) -> None:
        """Leave ``items`` here that ``model`` answered by ``outputs``; it takes microseconds, and raises nothing."""
        shadow = model.shadow
        if shadow is None:
            return
        dropped = 0
        for item, output in zip(items, outputs, strict=True):
            if isinstance(output, ServiceError) or isinstance(item.content, ServiceError):
                continue
            size = len(item.content) if isinstance(item.content, bytes) else item.content.nbytes
            waiting = _Waiting(model.name, model.version, shadow, item, _told(model, output), size)
            dropped += not self._leave(waiting)
        if dropped:
            self._observer.shadowed(model.name, model.version, shadow, DROPPED, dropped)

    def flush(self, seconds: float) -> bool:
        """Wait until all that was left here is compared; say whether that took less than ``seconds``."""
        with self._lock:
            if not self._bytes:
                return True
        return self._idle.wait(seconds)

    def close(self) -> None:
        """Compare no more, and end the thread."""
        self._closed.set()
        self._work.set()
        if self._thread is not None:
            self._thread.join(_CLOSE_SECONDS)

    def _leave(self, waiting: _Waiting) -> bool:
        with self._lock:
            full = len(self._waiting) >= _MOST_WAITING or self._bytes + waiting.size > _MOST_BYTES
            if full or not self._begun():
                return False
            self._waiting.append(waiting)
            self._bytes += waiting.size
            self._idle.clear()
        self._work.set()
        return True

    def _begun(self) -> bool:
        """Say whether there is a thread, which begins where it can; else the next picture tries it again."""
        if self._thread is None:
            thread = lasting_thread(self._run, "shadow")
            try:
                start_thread(thread)
            except MemoryError:
                return False
            self._thread = thread
        return True

    def _run(self) -> None:
        thread_stands_back(_NICENESS)
        while not self._closed.is_set():
            with self._lock:
                waiting = self._waiting.popleft() if self._waiting else None
            if waiting is None:
                self._work.wait()
                self._work.clear()
                continue
            try:
                self._compare(waiting)
            finally:
                with self._lock:
                    self._bytes -= waiting.size
                    if not self._waiting:
                        self._idle.set()

    def _compare(self, waiting: _Waiting) -> None:
        name, version, shadow, item, told, _ = waiting
        try:
            with self._models.use(name, shadow) as model:
                answered = _told(model, self._output(model, item))
        except Exception as error:
            self._observer.shadowed(name, version, shadow, FAILED)
            if not isinstance(error, ServiceError):
                log.exception("version %d of %s could not be compared with version %d", shadow, name, version)
            return
        self._observer.shadowed(name, version, shadow, AGREED if answered == told else DISAGREED)
        if answered != told:
            self._observer.disagreed(name, version, shadow, self._pair(waiting, answered))

    def _output(self, model: LoadedModel, item: Item) -> Output:
        deadline = self._clock() + _SECONDS
        content = item.content
        if isinstance(content, ServiceError):
            raise content
        pixels = (
            self._decoder.decode(content, model.metadata.input, deadline) if isinstance(content, bytes) else content
        )
        output: Output = model.batcher.run(pixels[np.newaxis], deadline)[0]
        return output

    def _pair(self, waiting: _Waiting, answered: frozenset[str]) -> tuple[str, str]:
        """Return the labels that are counted: those that only one of the two versions told, few pairs of them."""
        pair = (_named(waiting.told - answered), _named(answered - waiting.told))
        known = self._pairs.setdefault(waiting[:3], set())
        if pair not in known and len(known) >= _MOST_PAIRS:
            return OTHER, OTHER
        known.add(pair)
        return pair


def _told(model: LoadedModel, output: Output) -> frozenset[str]:
    """Return what ``output``, float32 [columns], tells: the most probable label, or all where there may be several."""
    predictions, labels = interpret(output[np.newaxis], model.metadata), model.metadata.labels
    if predictions.told is None:
        return frozenset((labels[int(predictions.probabilities[0].argmax())],))
    return frozenset(labels[index] for index in predictions.told[0].nonzero()[0].tolist())


def _named(labels: frozenset[str]) -> str:
    """Return one of ``labels``, the first by name, as what a picture was called."""
    return min(labels, default="(none)")
