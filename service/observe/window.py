"""The last answers of all workers together, counted in bins: each worker has blocks of its own that the others read.

A worker that answers little keeps old answers in its blocks, and one that answers much has the newer ones. So each has
room for a whole window, and who compares takes the newest blocks of all, until these hold enough answers.
"""

import logging
import math
import mmap
import os
import threading
import time
import zlib
from pathlib import Path
from typing import NamedTuple

import numpy as np

from service.inference.predictions import Predictions
from service.observe.drift import LEAST_ANSWERS, Baseline, Counts, Shift

log = logging.getLogger(__name__)

_BLOCKS = 10  # of a whole window; one more is being filled
_TIME, _ANSWERS, _EMBEDDED, _BINS = range(4)  # the columns of a block: its numbers, the bins, the sum of its embeddings
_SUFFIX = ".window"


class Drift(NamedTuple):
    """What the last ``answers`` are against those that a version was published with.

    ``embedding`` is how far the mean embedding has moved, in units of the spread; None where that is not told.
    """

    answers: int
    shifts: dict[str, Shift]
    embedding: float | None


class _Blocks:
    """Blocks of one worker alone."""

    def __init__(self, shape: tuple[int, int]) -> None:
        self.own: Counts = np.zeros(shape)

    def everyone(self) -> Counts:
        """Return the blocks of all workers, [blocks, columns]."""
        return self.own

    def close(self) -> None:
        """Let others see them no more."""


class _SharedBlocks(_Blocks):
    """Blocks in a file, so that other workers see them; where there is no space for that, those of this one alone."""

    def __init__(self, shape: tuple[int, int], folder: Path, name: str) -> None:
        super().__init__(shape)
        self._folder, self._name = folder, name
        self._path = folder / f"{name}-{os.getpid()}{_SUFFIX}"
        self._path.unlink(missing_ok=True)  # what there is of an engine that failed, which may still write
        try:
            with self._path.open("w+b") as file:
                os.posix_fallocate(file.fileno(), 0, self.own.nbytes)  # or a full disk would end who writes (SIGBUS)
                mapped = mmap.mmap(file.fileno(), self.own.nbytes)
        except OSError as error:
            self._path.unlink(missing_ok=True)
            log.warning(
                "there is no space to share what drift is told by, so this worker goes by its own answers: %s",
                error,
            )
        else:
            self.own = np.frombuffer(mapped).reshape(shape)

    def everyone(self) -> Counts:
        """Return the blocks of all workers, [blocks, columns]."""
        others = [self._read(file) for file in self._folder.glob(f"{self._name}-*{_SUFFIX}") if file != self._path]
        return np.concatenate([self.own, *(blocks for blocks in others if blocks is not None)])

    def close(self) -> None:
        """Let others see them no more; what is still written goes nowhere."""
        self._path.unlink(missing_ok=True)

    def _read(self, file: Path) -> Counts | None:
        try:
            numbers = np.fromfile(file)
        except OSError:  # its worker has ended
            return None
        return numbers.reshape(self.own.shape) if numbers.size == self.own.size else None


class Window:
    """The last ``size`` answers of one version, and up to a tenth more."""

    def __init__(self, baseline: Baseline, model: str, version: int, size: int, folder: Path | None) -> None:
        """Begin without answers; without a ``folder`` that workers share, those of other workers are not known."""
        self._baseline = baseline
        self._size = size
        self._of_block = max(size // _BLOCKS, 1)
        self._lock = threading.Lock()
        self._sums = _BINS + baseline.number  # the column where those of the embeddings begin
        width = self._sums + (len(baseline.embedding.mean) if baseline.embedding else 0)
        shape = (_BLOCKS + 1, width)
        name = f"{version}-{zlib.crc32(f'{model}/{baseline.identity}'.encode()):08x}"
        self._blocks = _Blocks(shape) if folder is None else _SharedBlocks(shape, folder, name)
        # One by one they are changed here in a third of the time that the array takes.
        self._numbers: memoryview[float] = self._blocks.own.reshape(-1).data  # type: ignore[assignment]
        self._current = 0

    @property
    def embedding(self) -> bool:
        """Whether the embedding of each answer is compared."""
        return self._baseline.embedding is not None

    @property
    def compared(self) -> tuple[str, ...]:
        """What is counted of each answer."""
        return self._baseline.compared

    def add(self, labels: list[int], confidence: list[float], predictions: Predictions) -> None:
        """Count answers: the most probable label of each, by its number, how probable it is, and all predicted."""
        scores = confidence if predictions.familiarity is None else predictions.familiarity.tolist()
        bins = [
            place for answer in zip(labels, confidence, scores, strict=True) for place in self._baseline.bins(*answer)
        ]
        with self._lock:
            start = self._block()
            numbers = self._numbers
            for place in bins:
                numbers[start + _BINS + place] += 1
            if self.embedding and predictions.embedding is not None:
                added = predictions.embedding.sum(axis=0)
                if math.isfinite(float(added.sum())):  # else the others would be lost with it
                    self._blocks.own[self._current, self._sums :] += added
                    numbers[start + _EMBEDDED] += len(labels)
            numbers[start + _ANSWERS] += len(labels)
            numbers[start + _TIME] = time.time()

    def drift(self) -> Drift | None:
        """Compare the last answers of all workers with the reference; None where there are too few."""
        total = self._last()
        answers, embedded = int(total[_ANSWERS]), int(total[_EMBEDDED])
        if answers < LEAST_ANSWERS:
            return None
        embedding, distance = self._baseline.embedding, None
        if embedding and embedded >= LEAST_ANSWERS:
            distance = embedding.distance(total[self._sums :] / embedded, embedded)
        return Drift(answers, self._baseline.shifts(total[_BINS : self._sums]), distance)

    def close(self) -> None:
        """Take these answers from what others compare."""
        self._blocks.close()

    def _last(self) -> Counts:
        """Return the sum of the newest blocks that hold a whole window, or of all where they hold less."""
        with self._lock:
            blocks = self._blocks.everyone()
            newest = blocks[np.argsort(-blocks[:, _TIME], kind="stable")]
        enough = int(np.searchsorted(newest[:, _ANSWERS].cumsum(), self._size)) + 1
        total: Counts = newest[:enough].sum(axis=0)
        return total

    def _block(self) -> int:
        """Return where the current block begins; a full one makes room for another, in place of the oldest."""
        blocks, width = self._blocks.own, int(self._blocks.own.shape[1])
        if self._numbers[self._current * width + _ANSWERS] >= self._of_block:
            self._current = (self._current + 1) % len(blocks)
            blocks[self._current] = 0
        return self._current * width


def forget(folder: Path, process: int) -> None:
    """Remove the answers of a worker that is gone."""
    for file in folder.glob(f"*-{process}{_SUFFIX}"):
        file.unlink(missing_ok=True)
