"""The batcher: requests that wait while a batch runs form the next batch. Nothing waits on a timer.

A lone request that finds the engine idle runs it in its own thread: two changes of threads cost more than the rest.
"""

import logging
import threading
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

import numpy as np

from service.inference.engine import MAX_BATCH, Engine, Images, Rows
from service.inference.errors import DeadlineExceeded, EngineFailed, ModelUnavailable, QueueFull, ServiceError
from service.inference.runtime import Event, Threads, Waiting

log = logging.getLogger(__name__)

_COMPANY = 8  # images that make a batch worth a core of its own; see benchmarks/NOTES.md
_BRIEF_SECONDS = 0.01  # for which a lone request may keep its own thread, the event loop's at most, from all others
_LONG = 16  # images whose batch keeps others waiting for too long

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
class Job:
    """Images on their way through the engine, for the one who submitted them to wait for."""

    images: Images
    deadline: float
    submitted: float
    done: Event | None = None  # where somebody waits
    outcome: Rows | ServiceError | None = None
    abandoned: bool = False


class Batcher:
    """Feeds one engine from a bounded queue, in the order of arrival; each lane runs one batch at a time."""

    def __init__(
        self,
        engine: Engine,
        queue_length: int,
        observer: BatchObserver,
        clock: Callable[[], float] = time.monotonic,
        max_batch: int = MAX_BATCH,
        waiting: Waiting | None = None,
    ) -> None:
        """Start a thread for each lane. ``queue_length`` is the most images that wait, ``max_batch`` of one batch.

        ``waiting`` is how its callers wait; without it they are threads.
        """
        self._engine = engine
        self._queue_length = queue_length
        self._observer = observer
        self._clock = clock
        self._max_batch = max_batch
        self._callers = waiting or Threads()
        self._jobs: deque[Job] = deque()
        self._waiting = 0  # images
        self._closed = False
        self._running: list[int] = [0] * engine.lanes  # images, for each lane
        self._lone_seconds = 0.0  # that the engine took for an image the last time
        self._whole = False  # all cores run one batch
        self._work = threading.Condition(threading.Lock())
        self._room: list[Event] = []  # of those who wait for the queue to become shorter
        self._threads = [
            threading.Thread(target=self._run, args=(lane,), name=f"lane {lane}", daemon=True)
            for lane in range(engine.lanes)
        ]
        for thread in self._threads:
            thread.start()

    @property
    def chunk(self) -> int:
        """The most images that one ``submit`` takes."""
        return min(self._max_batch, self._queue_length)

    def run(self, images: Images, deadline: float) -> Rows:
        """Return the engine's rows, float32 [N, columns], of ``images``, uint8 [N, H, W, 3] with N up to ``chunk``.

        It is ``submit`` and ``result`` in one, and raises what these do; an idle engine runs in this thread where that
        keeps nobody waiting.
        """
        job = self._new_job(images, deadline)
        alone = self._lone_seconds < _BRIEF_SECONDS and self._idle() and self._callers.alone()
        with self._work:
            takes_it = alone and self._idle()
            if takes_it:
                self._whole = True
        if takes_it:
            self._run_batch([job], None)
        else:
            self._enqueue(job, wait_for_room=False)
        return self.result(job)

    def submit(self, images: Images, deadline: float, *, wait_for_room: bool = False) -> Job:
        """Queue ``images``, uint8 [N, H, W, 3] with N up to ``chunk``; ``result`` waits for what comes of the job.

        ``deadline`` is a time of the batcher's clock, in seconds. With ``wait_for_room`` a full queue is waited for:
        meant for the later parts of a request whose first part was taken already.

        Raises:
            QueueFull: too many images wait.
            DeadlineExceeded: no room until the deadline.
            ModelUnavailable: the batcher is closed.
            ValueError: ``images`` holds more than ``chunk`` images.
        """
        job = self._new_job(images, deadline)
        self._enqueue(job, wait_for_room=wait_for_room)
        return job

    def result(self, job: Job) -> Rows:
        """Wait for the engine's rows of ``job``, float32 [N, columns].

        Raises:
            DeadlineExceeded: there is no result until the job's deadline; it is taken from the queue if it can be.
            EngineFailed: the engine raised an error on the batch.
        """
        if job.done is not None and not job.done.wait(max(0.0, job.deadline - self._clock())):
            job.abandoned = True
        if job.outcome is None:
            raise DeadlineExceeded(LATE)
        if isinstance(job.outcome, ServiceError):
            raise job.outcome
        return job.outcome

    def close(self) -> None:
        """Take no more jobs; the threads end when those in the queue are done. Does not wait for them."""
        with self._work:
            self._closed = True
            self._work.notify_all()
            self._tell_of_room()

    def join(self, timeout: float) -> None:
        """Wait up to ``timeout`` seconds until the threads of a closed batcher have ended."""
        limit = time.monotonic() + timeout
        for thread in self._threads:
            thread.join(max(0.0, limit - time.monotonic()))

    def _new_job(self, images: Images, deadline: float) -> Job:
        if not 0 < len(images) <= self.chunk:
            raise ValueError(f"{len(images)} images in one part; it must be 1 to {self.chunk}")
        return Job(images, deadline, self._clock())

    def _enqueue(self, job: Job, *, wait_for_room: bool) -> None:
        job.done = self._callers.event()
        while not self._queued(job):
            if not wait_for_room:
                raise QueueFull(f"{self._waiting} images wait already; try again in a moment.")
            self._wait_for_room(job)

    def _queued(self, job: Job) -> bool:
        """Put ``job`` into the queue; say whether there was room."""
        with self._work:
            if self._closed:
                raise ModelUnavailable("The service is stopping; ask another replica or try again.")
            if self._waiting + len(job.images) > self._queue_length:
                return False
            self._jobs.append(job)
            self._count(len(job.images))
            if self._worth_starting():
                self._work.notify()
            return True

    def _wait_for_room(self, job: Job) -> None:
        room = self._callers.event()
        with self._work:
            if self._waiting + len(job.images) <= self._queue_length:  # meanwhile
                return
            self._room.append(room)
        if not room.wait(max(0.0, job.deadline - self._clock())):
            raise DeadlineExceeded(LATE)

    def _tell_of_room(self) -> None:
        self._callers.wake(self._room)
        self._room = []

    def _count(self, change: int) -> None:
        self._waiting += change
        self._observer.queued(change)

    def _idle(self) -> bool:
        return not (self._jobs or self._closed or self._whole or any(self._running))

    def _worth_starting(self) -> bool:
        """Say whether an idle lane should begin with what waits.

        A single image costs a core more than one of a batch, so another lane than the first waits for some company.
        Where long batches run, it does not.
        """
        running = sum(self._running)
        return bool(self._jobs) and not self._whole and (self._waiting >= _COMPANY or not 0 < running < _LONG)

    def _run(self, lane: int) -> None:
        while batch := self._take(lane):
            self._run_batch(batch, lane if self._running[lane] else None)

    def _run_batch(self, batch: list[Job], lane: int | None) -> None:
        """Run what is still wanted of ``batch`` in ``lane``, or on all cores, and let go of what was taken for it."""
        try:
            jobs = [job for job in batch if self._still_wanted(job)]
            if jobs:
                self._execute(jobs, lane)
            self._callers.wake([job.done for job in batch if job.done is not None])
        finally:
            with self._work:
                self._leave(lane)

    def _leave(self, lane: int | None) -> None:
        if lane is None:
            self._whole = False
        else:
            self._running[lane] = 0
        if self._closed:
            self._work.notify_all()
        elif self._worth_starting():  # else a thread would wake for nothing
            self._work.notify()

    def _take(self, lane: int) -> list[Job]:
        """Wait for jobs, and take this lane's share of them, up to a batch; none when closed and empty.

        Few images are shared by all cores.
        """
        with self._work:
            while not self._worth_starting():
                if self._closed and not self._jobs and not self._whole:
                    return []
                self._work.wait()
            idle = self._running.count(0)
            self._whole = idle == len(self._running) and self._waiting < _COMPANY * idle
            batch, images = self._share(self._waiting if self._whole else -(-self._waiting // idle))
            if not self._whole:
                self._running[lane] = images
                if idle > 1 and self._worth_starting():
                    self._work.notify()
            return batch

    def _share(self, images: int) -> tuple[list[Job], int]:
        """Take jobs with about ``images`` images from the queue, up to a batch; return them and how many those are."""
        share = min(images, self._max_batch)
        batch = [self._jobs.popleft()]
        taken = len(batch[0].images)
        while self._jobs and taken + len(self._jobs[0].images) <= share:
            batch.append(self._jobs.popleft())
            taken += len(batch[-1].images)
        self._count(-taken)
        self._tell_of_room()
        return batch, taken

    def _still_wanted(self, job: Job) -> bool:
        now = self._clock()
        self._observer.waited(now - job.submitted)
        if job.abandoned:
            return False
        if now >= job.deadline:
            job.outcome = DeadlineExceeded(LATE)
            return False
        return True

    def _execute(self, jobs: list[Job], lane: int | None) -> None:
        started = self._clock()
        try:
            images = jobs[0].images if len(jobs) == 1 else np.concatenate([job.images for job in jobs])
            rows = self._engine.predict(images, lane)
        except Exception as error:  # an engine may raise anything; only this batch may suffer from it
            log.error("the engine failed on a batch of %d", sum(len(job.images) for job in jobs), exc_info=error)
            for job in jobs:
                job.outcome = EngineFailed("The engine failed on this batch; the log has the details.")
            return
        seconds = self._clock() - started
        self._observer.ran(len(images), seconds)
        if len(images) == 1:
            self._lone_seconds = seconds
        start = 0
        for job in jobs:
            job.outcome = rows[start : start + len(job.images)]
            start += len(job.images)
