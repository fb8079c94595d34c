"""The call that every protocol shares: pictures in, an engine's rows or what they say out, within the deadline."""

import functools
import time
from collections import Counter, deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field

import numpy as np

from service.inference.answers import Answers, Row, read
from service.inference.batcher import LATE, Job
from service.inference.decoding import Decoder
from service.inference.engine import Images, Rows
from service.inference.errors import (
    DeadlineExceeded,
    ImageTooLarge,
    InvalidImage,
    InvalidRequest,
    ServiceError,
    UnsupportedImage,
)
from service.inference.items import Item
from service.inference.registry import LoadedModel
from service.inference.runtime import Threads, Waiting
from service.observe.metrics import VersionMetrics

# What is wrong with one picture and says nothing about the others.
_ITEM_ERRORS = (InvalidImage, InvalidRequest, ImageTooLarge, UnsupportedImage)
_FEW = 8  # pictures; each may be small in bytes and still take two milliseconds
_PARTS_IN_QUEUE = 2  # one runs while the next is decoded; more would only make others wait


class Predictor:
    """Decodes pictures, feeds them to a model's batcher and counts what came out."""

    def __init__(
        self,
        decoder: Decoder,
        metrics_of: Callable[[int], VersionMetrics],
        clock: Callable[[], float] = time.monotonic,
        waiting: Waiting | None = None,
    ) -> None:
        """Take what decodes, what counts for each version, and the clock that deadlines are told in.

        ``waiting`` says where more than a few pictures are decoded; without it in the thread of the caller.
        """
        self._decoder = decoder
        self._metrics_of = functools.lru_cache(maxsize=16)(metrics_of)
        self._clock = clock
        self._callers = waiting or Threads()

    def one(self, model: LoadedModel, item: Item, deadline: float) -> Row:
        """Return the engine's row, float32 [columns], of one picture.

        Raises:
            ServiceError: the picture cannot be used, the queue is full, or the time is up.
        """
        with self._observed(model) as metrics:
            images = self._pixels(model, item, deadline, metrics)[np.newaxis]  # [1, H, W, 3]
            row: Row = model.batcher.run(images, deadline)[0]
            _count(metrics, model, row[np.newaxis])
            return row

    def many(self, model: LoadedModel, items: Sequence[Item], deadline: float) -> list[Row | ServiceError]:
        """Return for each picture, in order, the engine's row, float32 [columns], or what is wrong with it.

        Long requests go to the batcher in parts, so that those of others find their way in between.

        Raises:
            ServiceError: the queue is full, or the time is up; then there is no answer for any picture.
        """
        with self._observed(model) as metrics:
            return self._answers(model, items, deadline, metrics)

    def every(self, model: LoadedModel, items: Sequence[Item], deadline: float) -> Answers:
        """Return what there is to say of all pictures, for protocols that know no partial answer.

        Raises:
            ServiceError: one of the pictures cannot be used, the queue is full, or the time is up.
        """
        rows: list[Row] = []
        with self._observed(model) as metrics:
            for index, answer in enumerate(self._answers(model, items, deadline, metrics)):
                if isinstance(answer, ServiceError):
                    raise type(answer)(f"Picture {index}: {answer}" if len(items) > 1 else str(answer))
                rows.append(answer)
        return read(np.stack(rows), model.metadata)

    def _answers(
        self, model: LoadedModel, items: Sequence[Item], deadline: float, metrics: VersionMetrics
    ) -> list[Row | ServiceError]:
        def answers() -> list[Row | ServiceError]:
            return self._in_parts(model, items, deadline, metrics)

        encoded = sum(isinstance(item.content, bytes) for item in items)
        return self._callers.aside(answers) if encoded > _FEW else answers()

    def _in_parts(
        self, model: LoadedModel, items: Sequence[Item], deadline: float, metrics: VersionMetrics
    ) -> list[Row | ServiceError]:
        request = _LongRequest(model, deadline, results=[None] * len(items))
        for index, item in enumerate(items):
            if self._clock() >= deadline:
                raise DeadlineExceeded(LATE)
            try:
                request.add(index, self._pixels(model, item, deadline, metrics))
            except _ITEM_ERRORS as error:
                request.results[index] = error
        answers = request.finish()
        rows = [answer for answer in answers if not isinstance(answer, ServiceError)]
        if rows:
            _count(metrics, model, np.stack(rows))
        return answers

    @contextmanager
    def _observed(self, model: LoadedModel) -> Iterator[VersionMetrics]:
        """Give the version's metrics and note in them how the block ends."""
        metrics = self._metrics_of(model.version)
        started = self._clock()
        try:
            yield metrics
        except BaseException:
            metrics.failed(self._clock() - started)
            raise
        metrics.answered(self._clock() - started)

    def _pixels(self, model: LoadedModel, item: Item, deadline: float, metrics: VersionMetrics) -> Images:
        """Return the picture as uint8 [H, W, 3]."""
        if isinstance(item.content, ServiceError):
            raise item.content
        if isinstance(item.content, np.ndarray):
            return item.content
        with metrics.decode_seconds.time():
            return self._decoder.decode(item.content, model.metadata.input, deadline)


def _count(metrics: VersionMetrics, model: LoadedModel, rows: Rows) -> None:
    """Count the most probable label of each of ``rows``, float32 [N, columns], and what is not familiar."""
    answers = read(rows, model.metadata)
    for index, count in Counter(answers.probabilities.argmax(axis=1).tolist()).items():
        metrics.predicted(model.metadata.labels[index], count)
    if answers.familiar is not None:
        metrics.unfamiliar(answers.familiar.count(False))


@dataclass
class _LongRequest:
    """The parts of one request on their way through the batcher."""

    model: LoadedModel
    deadline: float
    results: list[Row | ServiceError | None]
    _part: list[tuple[int, Images]] = field(default_factory=list)
    _queue: deque[tuple[list[int], Job]] = field(default_factory=deque)
    _sent: bool = False

    def add(self, index: int, image: Images) -> None:
        """Put ``image``, uint8 [H, W, 3], into the current part; send the part when it is full."""
        self._part.append((index, image))
        if len(self._part) == self.model.batcher.chunk:
            self._send()

    def finish(self) -> list[Row | ServiceError]:
        """Send what is left and wait for everything."""
        if self._part:
            self._send()
        while self._queue:
            self._collect()
        return [result for result in self.results if result is not None]

    def _send(self) -> None:
        if len(self._queue) == _PARTS_IN_QUEUE:
            self._collect()
        indices = [index for index, _ in self._part]
        images = np.stack([image for _, image in self._part])
        job = self.model.batcher.submit(images, self.deadline, wait_for_room=self._sent)
        self._queue.append((indices, job))
        self._part = []
        self._sent = True

    def _collect(self) -> None:
        indices, job = self._queue.popleft()
        for index, row in zip(indices, self.model.batcher.result(job), strict=True):
            self.results[index] = row
