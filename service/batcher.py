"""The batcher: requests that wait while a batch runs form the next batch. Nothing waits on a timer.

A request that finds the engine idle runs it in its own thread: two changes of threads cost more than the rest of it.
"""

import logging
import threading
import time
from collections import deque
from collections.abc import Callable
from concurrent.futures import Future
from dataclasses import dataclass, field
from typing import Protocol

import numpy as np

from service.engine import MAX_BATCH, Engine, Images, Probabilities
from service.errors import DeadlineExceeded, EngineFailed, ModelUnavailable, QueueFull

log = logging.getLogger(__name__)

LATE = "The request took longer than the deadline; send fewer or smaller pictures, or try again later."


class BatchObserver(Protocol):
    """Is told what the batcher does; durations are in seconds."""

    def queued(self, change: int) -> None:
        """Count ``change`` images more (or fewer) in the queue."""

    def waited(self, seconds: float) -> None:
        """Note how long one job waited in the queue."""

    def ran(self, images: int, seconds: float) -> None:
        """Note that the engine ran a batch of ``images``."""


@dataclass
class _Job:
    images: Images
    deadline: float
    submitted: float
    future: "Future[Probabilities]" = field(default_factory=Future)


class Batcher:
    """Feeds one engine from a bounded queue, in the order of arrival; one batch runs at a time."""

    def __init__(
        self,
        engine: Engine,
        queue_length: int,
        observer: BatchObserver,
        clock: Callable[[], float] = time.monotonic,
        max_batch: int = MAX_BATCH,
    ) -> None:
        """Start the thread. ``queue_length`` is the most images that wait, ``max_batch`` the most that run at once."""
        self._engine = engine
        self._queue_length = queue_length
        self._observer = observer
        self._clock = clock
        self._max_batch = max_batch
        self._jobs: deque[_Job] = deque()
        self._waiting = 0  # images
        self._closed = False
        self._busy = False  # the engine runs
        lock = threading.Lock()
        self._work = threading.Condition(lock)
        self._room = threading.Condition(lock)
        self._thread = threading.Thread(target=self._run, name="batcher", daemon=True)
        self._thread.start()

    @property
    def chunk(self) -> int:
        """The most images that one ``submit`` takes."""
        return min(self._max_batch, self._queue_length)

    def run(self, images: Images, deadline: float) -> Probabilities:
        """Return the probabilities, float32 [N, classes], of ``images``, uint8 [N, H, W, 3] with N up to ``chunk``.

        It is ``submit`` and ``result`` in one, and raises what these do; an idle engine runs in this thread.
        """
        job = self._new_job(images, deadline)
        with self._work:
            idle = not (self._busy or self._jobs or self._closed)
            if idle:
                self._busy = True
            else:
                self._enqueue(job, wait_for_room=False)
        if idle:
            self._run_batch([job])
        return self.result(job.future, deadline)

    def submit(self, images: Images, deadline: float, *, wait_for_room: bool = False) -> "Future[Probabilities]":
        """Queue ``images``, uint8 [N, H, W, 3] with N up to ``chunk``; the future gives float32 [N, classes].

        ``deadline`` is a time of the batcher's clock, in seconds. With ``wait_for_room`` a full queue is waited for:
        meant for the later parts of a request whose first part was taken already.

        Raises:
            QueueFull: too many images wait.
            DeadlineExceeded: no room until the deadline.
            ModelUnavailable: the batcher is closed.
            ValueError: ``images`` holds more than ``chunk`` images.
        """
        job = self._new_job(images, deadline)
        with self._work:
            self._enqueue(job, wait_for_room=wait_for_room)
        return job.future

    def result(self, future: "Future[Probabilities]", deadline: float) -> Probabilities:
        """Wait for ``future``.

        Raises:
            DeadlineExceeded: there is no result until ``deadline``; the job is taken from the queue if it can be.
            EngineFailed: the engine raised an error on the batch.
        """
        try:
            return future.result(max(0.0, deadline - self._clock()))
        except TimeoutError as error:
            future.cancel()
            raise DeadlineExceeded(LATE) from error

    def close(self) -> None:
        """Take no more jobs; the thread ends when those in the queue are done. Does not wait for it."""
        with self._work:
            self._closed = True
            self._work.notify_all()
            self._room.notify_all()

    def join(self, timeout: float) -> None:
        """Wait up to ``timeout`` seconds until the thread of a closed batcher has ended."""
        self._thread.join(timeout)

    def _new_job(self, images: Images, deadline: float) -> _Job:
        if not 0 < len(images) <= self.chunk:
            raise ValueError(f"{len(images)} images in one part; it must be 1 to {self.chunk}")
        return _Job(images, deadline, self._clock())

    def _enqueue(self, job: _Job, *, wait_for_room: bool) -> None:
        """Put ``job`` into the queue; the caller holds the lock."""
        self._wait_for_room(job, wait=wait_for_room)
        if self._closed:
            raise ModelUnavailable("The service is stopping; ask another replica or try again.")
        self._jobs.append(job)
        self._count(len(job.images))
        if not self._busy:
            self._work.notify()

    def _wait_for_room(self, job: _Job, *, wait: bool) -> None:
        while not self._closed and self._waiting + len(job.images) > self._queue_length:
            if not wait:
                raise QueueFull(f"{self._waiting} images wait already; try again in a moment.")
            if not self._room.wait(job.deadline - self._clock()):
                raise DeadlineExceeded(LATE)

    def _count(self, change: int) -> None:
        self._waiting += change
        self._observer.queued(change)

    def _run(self) -> None:
        while (batch := self._take()) is not None:
            self._run_batch(batch)

    def _run_batch(self, batch: list[_Job]) -> None:
        """Run what is still wanted of ``batch``, for which the engine was taken, and let go of the engine."""
        try:
            ready = [job for job in batch if self._still_wanted(job)]
            if ready:
                self._execute(ready)
        finally:
            with self._work:
                self._busy = False
                if self._jobs or self._closed:  # else the batcher's thread would wake for nothing
                    self._work.notify()

    def _take(self) -> list[_Job] | None:
        """Wait for jobs and the engine, and take as many as one batch holds; None when closed and empty."""
        with self._work:
            while self._busy or not self._jobs:
                if self._closed and not self._busy:
                    return None
                self._work.wait()
            self._busy = True
            batch: list[_Job] = []
            images = 0
            while self._jobs and images + len(self._jobs[0].images) <= self._max_batch:
                batch.append(self._jobs.popleft())
                images += len(batch[-1].images)
            self._count(-images)
            self._room.notify_all()
            return batch

    def _still_wanted(self, job: _Job) -> bool:
        now = self._clock()
        self._observer.waited(now - job.submitted)
        if not job.future.set_running_or_notify_cancel():
            return False
        if now >= job.deadline:
            job.future.set_exception(DeadlineExceeded(LATE))
            return False
        return True

    def _execute(self, jobs: list[_Job]) -> None:
        images = jobs[0].images if len(jobs) == 1 else np.concatenate([job.images for job in jobs])
        started = self._clock()
        try:
            probabilities = self._engine.predict(images)
        except Exception as error:  # an engine may raise anything; only this batch may suffer from it
            log.error("the engine failed on a batch of %d", len(images), exc_info=error)
            for job in jobs:
                job.future.set_exception(EngineFailed("The engine failed on this batch; the log has the details."))
            return
        self._observer.ran(len(images), self._clock() - started)
        start = 0
        for job in jobs:
            job.future.set_result(probabilities[start : start + len(job.images)])
            start += len(job.images)
