"""The call that every protocol shares: pictures in, an engine's outputs or what they say out, within the deadline."""

import contextlib
import functools
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, field
from typing import Protocol

import numpy as np

from service.inference.batcher import LATE, Job
from service.inference.decoding import Decoder
from service.inference.engine import Images, Output
from service.inference.errors import (
    DeadlineExceeded,
    ImageTooLarge,
    InvalidImage,
    InvalidRequest,
    QueueFull,
    ServiceError,
    UnsupportedImage,
)
from service.inference.items import Item
from service.inference.loaded import LoadedModel
from service.inference.offload import offloads_pictures
from service.inference.predictions import Predictions, interpret
from service.inference.runtime import Runtime, ThreadRuntime
from service.inference.steps import STEPS, Steps

# What is wrong with one picture and says nothing about the others.
_ITEM_ERRORS = (InvalidImage, InvalidRequest, ImageTooLarge, UnsupportedImage)
_MOST_OBSERVERS = 1024
_PARTS_IN_QUEUE = 2  # one runs while the next is decoded; more would only make others wait


Keep = Callable[[LoadedModel, Sequence[Item], Sequence[Output | ServiceError]], None]
"""Takes pictures of one request, and of each what the engine answered, float32 [columns], or what is wrong with it."""


class PredictionObserver(Protocol):
    """Is told what becomes of the requests for one version; durations are in seconds."""

    def decoding(self) -> AbstractContextManager[object]:
        """Note how long the block takes, which decodes one picture."""

    def answered(self, seconds: float) -> None:
        """Note that a request got its probabilities."""

    def failed(self, seconds: float) -> None:
        """Note that a request got an error instead."""


class Predictor:
    """Decodes pictures, feeds them to a model's batcher and tells what becomes of the requests."""

    def __init__(
        self,
        decoder: Decoder,
        observer_of: Callable[[str, int], PredictionObserver],
        clock: Callable[[], float] = time.monotonic,
        runtime: Runtime | None = None,
        keep: Keep | None = None,
        compare: Keep | None = None,
    ) -> None:
        """Take what decodes, what is told of each version, and the clock that deadlines are told in.

        ``runtime`` takes requests with many pictures to decode; without it the thread of the caller does. ``keep`` is
        given all pictures with what the engine answered, or what is wrong with them; ``compare`` those that another
        version answers as well.
        """
        self._decoder = decoder
        self._observer_of = functools.lru_cache(maxsize=_MOST_OBSERVERS)(observer_of)
        self._clock = clock
        self._runtime = runtime or ThreadRuntime()
        self._keep = keep
        self._compare = compare

    def warm(self) -> None:
        """Start what would keep the first picture waiting, where there is memory for it; it does not wait for that."""
        with contextlib.suppress(QueueFull):
            self._decoder.warm()

    def predict_one(self, model: LoadedModel, item: Item, deadline: float, *, pass_on: bool = True) -> Output:
        """Return the engine's output, float32 [columns], for one picture.

        Without ``pass_on`` it is neither kept nor compared with what a shadow says.

        Raises:
            ServiceError: the picture cannot be used, the queue is full, or the time is up.
        """
        steps = STEPS.get()
        with self._observed(model, steps) as observer:
            model.batcher.check_room()
            images = self._pixels(model, item, deadline, observer)[np.newaxis]  # [1, H, W, 3]
            output: Output = model.batcher.run(images, deadline, steps)[0]
        if pass_on:
            self._pass_on(model, (item,), (output,))
        return output

    def preview(self, content: bytes, side: int, deadline: float) -> Images:
        """Return all of the picture in ``content``, uint8 [H, W, 3], with no side longer than ``side`` pixels.

        Raises:
            ServiceError: the picture cannot be used, or the time is up.
        """
        return self._decoder.decode(content, side, deadline)

    def predict_each(self, model: LoadedModel, items: Sequence[Item], deadline: float) -> list[Output | ServiceError]:
        """Return for each picture, in order, the engine's output, float32 [columns], or what is wrong with it.

        Long requests go to the batcher in parts, so that those of others find their way in between.

        Raises:
            ServiceError: the queue is full, or the time is up; then there is no answer for any picture.
        """
        steps = STEPS.get()
        with self._observed(model, steps) as observer:
            return self._each(_LongRequest(model, deadline, steps, [None] * len(items)), items, observer)

    def predict_all(
        self, model: LoadedModel, items: Sequence[Item], deadline: float, *, embedding: bool = False
    ) -> Predictions:
        """Return what is predicted of all pictures, for protocols that know no partial answer.

        With ``embedding``, for which the model must have one, that is told as well.

        Raises:
            ServiceError: one of the pictures cannot be used, the queue is full, or the time is up.
        """
        outputs: list[Output] = []
        steps = STEPS.get()
        with self._observed(model, steps) as observer:
            request = _LongRequest(model, deadline, steps, [None] * len(items), embedding)
            results = self._each(request, items, observer)
            for index, result in enumerate(results):
                if isinstance(result, ServiceError):
                    raise type(result)(f"Picture {index}: {result}" if len(items) > 1 else str(result))
                outputs.append(result)
        return interpret(np.stack(outputs), model.metadata)

    def _each(
        self, request: "_LongRequest", items: Sequence[Item], observer: PredictionObserver
    ) -> list[Output | ServiceError]:
        def results() -> list[Output | ServiceError]:
            outputs = self._in_parts(request, items, observer)
            self._pass_on(request.model, items, outputs)
            return outputs

        encoded = sum(isinstance(item.content, bytes) for item in items)
        return self._runtime.offload(results) if offloads_pictures(encoded) else results()

    def _pass_on(self, model: LoadedModel, items: Sequence[Item], outputs: Sequence[Output | ServiceError]) -> None:
        if self._keep is not None:
            self._keep(model, items, outputs)
        if model.shadow is not None and self._compare is not None:
            self._compare(model, items, outputs)

    def _in_parts(
        self, request: "_LongRequest", items: Sequence[Item], observer: PredictionObserver
    ) -> list[Output | ServiceError]:
        model, deadline = request.model, request.deadline
        for index, item in enumerate(items):
            if self._clock() >= deadline:
                raise DeadlineExceeded(LATE)
            try:
                request.add(index, self._pixels(model, item, deadline, observer))
            except _ITEM_ERRORS as error:
                request.results[index] = error
        return request.finish()

    @contextmanager
    def _observed(self, model: LoadedModel, steps: Steps | None) -> Iterator[PredictionObserver]:
        """Give what is told of the version, and tell it how the block ends; ``steps`` are those of a traced request."""
        observer = self._observer_of(model.name, model.version)
        if steps is not None:
            steps.model = model.name, model.version
            observer = _Traced(observer, steps)
        started = self._clock()
        try:
            yield observer
        except BaseException:
            observer.failed(self._clock() - started)
            raise
        observer.answered(self._clock() - started)

    def _pixels(self, model: LoadedModel, item: Item, deadline: float, observer: PredictionObserver) -> Images:
        """Return the picture as uint8 [H, W, 3]."""
        if isinstance(item.content, ServiceError):
            raise item.content
        if isinstance(item.content, np.ndarray):
            return item.content
        with observer.decoding():
            return self._decoder.decode(item.content, model.metadata.input, deadline)


class _Traced:
    """An observer of a request that is traced: pictures that are decoded are noted as a step as well."""

    def __init__(self, observer: PredictionObserver, steps: Steps) -> None:
        self.answered, self.failed = observer.answered, observer.failed
        self._observer = observer
        self._steps = steps

    @contextmanager
    def decoding(self) -> Iterator[None]:
        with self._steps.decoding(), self._observer.decoding():
            yield


@dataclass
class _LongRequest:
    """The parts of one request on their way through the batcher."""

    model: LoadedModel
    deadline: float
    steps: Steps | None  # of a request that is traced
    results: list[Output | ServiceError | None]
    embedding: bool = False  # is wanted as well
    _part: list[tuple[int, Images]] = field(default_factory=list)
    _queue: deque[tuple[list[int], Job]] = field(default_factory=deque)
    _sent: bool = False

    def add(self, index: int, image: Images) -> None:
        """Put ``image``, uint8 [H, W, 3], into the current part; send the part when it is full."""
        self._part.append((index, image))
        if len(self._part) == self.model.batcher.chunk:
            self._send()

    def finish(self) -> list[Output | ServiceError]:
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
        job = self.model.batcher.submit(
            images, self.deadline, self.steps, wait_for_room=self._sent, embedding=self.embedding
        )
        if self.steps is not None:
            self.steps.end_part()
        self._queue.append((indices, job))
        self._part = []
        self._sent = True

    def _collect(self) -> None:
        indices, job = self._queue.popleft()
        for index, output in zip(indices, self.model.batcher.result(job), strict=True):
            self.results[index] = output
