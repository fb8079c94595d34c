"""The batcher: requests that wait while a batch runs form the next batch. Nothing waits on a timer.

A lone request that finds the engine idle runs it in its own thread. What an idle stream begins with is ``next_batch``.
"""

import logging
import threading
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import NamedTuple, Protocol

import numpy as np

from machine import lasting_thread, start_thread, thread_stands_back
from service.inference.engine import BrokenEngine, Engine, Images, Outputs
from service.inference.errors import DeadlineExceeded, EngineFailed, ModelUnavailable, QueueFull, ServiceError
from service.inference.offload import offloads_engine
from service.inference.pace import Pace
from service.inference.runtime import Event, Runtime, ThreadRuntime
from service.inference.steps import Step, Steps

log = logging.getLogger(__name__)

MOST_FAILURES = 5  # of batches, one after the other, until the engine counts as dead
_STUCK_SECONDS = 60.0  # that no batch takes

LATE = "The request took longer than the deadline; send fewer or smaller pictures, or try again later."


class BatchObserver(Protocol):
    """Is told what the batcher does; durations are in seconds."""

    embedding: bool
    """Whether it wants the embedding of each image among the outputs; of engines that have one."""

    def queued(self, change: int) -> None:
        """Count ``change`` images more (or fewer) in the queue."""

    def waited(self, seconds: float) -> None:
        """Note how long one job waited in the queue."""

    def ran(self, images: int, seconds: float) -> None:
        """Note that the engine ran a batch of ``images``."""

    def failed(self) -> None:
        """Note that the engine failed on a batch: it raised an error, or its answers are no numbers."""

    def classified(self, outputs: Outputs) -> None:
        """Note what the engine answered to a batch, float32 [N, columns]."""


class Snapshot(NamedTuple):
    """What a batcher has at one moment; ``blocked`` is how many callers wait for room in its queue."""

    waiting: int  # images
    running: tuple[int, ...]  # images in each stream
    all_cores: bool = False  # they run one batch together
    blocked: int = 0

    @property
    def idle(self) -> bool:
        """Whether there is nothing to do."""
        return not (self.waiting or self.all_cores or any(self.running))


class NextBatch(NamedTuple):
    """What an idle stream begins with: about how many images, and whether it runs them on all cores."""

    images: int
    all_cores: bool


def next_batch(now: Snapshot, pace: Pace) -> NextBatch | None:
    """Return what an idle stream begins with at this ``pace``; None where it waits.

    A single image costs a core more than one of a batch, so few images are shared by all cores where these are idle,
    and wait for company beside a short batch. Beside a long one they do not.

    | images that wait                   | streams                           | an idle stream                       |
    |------------------------------------|-----------------------------------|--------------------------------------|
    | none                               |                                   | waits                                |
    | any                                | all cores run one batch           | waits                                |
    | any                                | all are busy                      | (there is none)                      |
    | less than company for each stream  | all are idle                      | runs all of them on all cores        |
    | company for each stream, or more   | all are idle                      | takes its share of them              |
    | less than company                  | the busy ones run no long batch   | waits for company                    |
    | less than company                  | the busy ones run a long batch    | takes its share of them              |
    | company or more                    | some are busy                     | takes its share of them              |

    A share is the same for each idle stream, and at most the pace's ``most``.
    """
    idle, running = now.running.count(0), sum(now.running)
    if not now.waiting or now.all_cores or not idle:
        return None
    if not running and now.waiting < pace.company * idle:
        return NextBatch(min(now.waiting, pace.most), all_cores=True)
    if now.waiting < pace.company and 0 < running < pace.long:
        return None
    return NextBatch(min(-(-now.waiting // idle), pace.most), all_cores=False)


@dataclass(slots=True)
class Run:
    """One batch in the engine, by the batcher's clock; ``ended`` is None while it runs, and where it failed."""

    images: int
    started: float
    ended: float | None = None


@dataclass
class Job:
    """Images on their way through the engine, for the one who submitted them to wait for."""

    images: Images
    deadline: float
    submitted: float
    done: Event | None = None  # where somebody waits
    outcome: Outputs | ServiceError | None = None
    abandoned: bool = False
    embedding: bool = False  # is wanted as well
    run: Run | None = None  # the batch that they were last in
    steps: Steps | None = None  # where that is noted, of a request that is traced


class Batcher:
    """Feeds one engine from a bounded queue, in the order of arrival; each stream runs one batch at a time."""

    def __init__(
        self,
        engine: Engine,
        queue_length: int,
        observer: BatchObserver,
        clock: Callable[[], float] = time.monotonic,
        pace: Pace = Pace(),  # noqa: B008 - a tuple
        runtime: Runtime | None = None,
        niceness: int = 0,
    ) -> None:
        """Start a thread for each stream. ``queue_length`` is the most images that wait, ``pace`` is the engine's.

        ``runtime`` is what its callers run in; without it they are threads. ``niceness`` is how much the threads of the
        streams stand back behind others, from 0 to 19.
        """
        self._engine = engine
        self._queue_length = queue_length
        self._observer = observer
        self._clock = clock
        self._pace = pace
        self._runtime = runtime or ThreadRuntime()
        self._niceness = niceness
        self._jobs: deque[Job] = deque()
        self._waiting = 0  # images
        self._closed = False
        self._running: list[int] = [0] * engine.streams  # images, for each stream
        self._all_cores = False  # they run one batch
        self._lone_seconds = 0.0  # that the engine took for an image the last time
        self._failures = 0  # since the engine last answered
        self._broken = False  # for good, whatever it answers
        self._begun: dict[int | None, float] = {}  # when the batch began that a stream, or all cores, run now
        self._work = threading.Condition(threading.Lock())
        self._room: list[Event] = []  # of those who wait for the queue to become shorter
        self._threads = [
            lasting_thread(partial(self._run, stream), f"stream {stream}") for stream in range(engine.streams)
        ]
        try:
            for thread in self._threads:
                start_thread(thread)
        except MemoryError:  # the others would wait for work, and hold the engine, for ever
            self.close()
            raise

    def snapshot(self) -> Snapshot:
        """Return what waits and what runs now."""
        with self._work:
            return self._now()

    @property
    def failing(self) -> bool:
        """Whether the engine is broken, fails each time, is stuck in a batch, or has lost a thread that feeds it."""
        if self._broken or self._failures >= MOST_FAILURES:
            return True
        long_ago = self._clock() - _STUCK_SECONDS
        stuck = any(begun < long_ago for begun in list(self._begun.values()))
        return stuck or not (self._closed or all(thread.is_alive() for thread in self._threads))

    @property
    def chunk(self) -> int:
        """The most images that one ``submit`` takes."""
        return min(self._pace.most, self._queue_length)

    def run(self, images: Images, deadline: float, steps: Steps | None = None) -> Outputs:
        """Return the engine's outputs, float32 [N, columns], for ``images``, uint8 [N, H, W, 3] with N up to ``chunk``.

        It is ``submit`` and ``result`` in one, and raises what these do; an idle engine runs in this thread where that
        keeps nobody waiting.
        """
        job = self._new_job(images, deadline, steps)
        batch = [job]
        alone = not offloads_engine(self._lone_seconds) and self._idle() and self._runtime.alone()
        with self._work:
            takes_it = alone and self._idle()
            if takes_it:
                self._all_cores = True
        if takes_it:
            self._run_batch(batch, None)
        else:
            self._enqueue(job, wait_for_room=False)
        return self.result(job)

    def check_room(self) -> None:
        """Raise QueueFull where not even one image may wait, so that nobody decodes one for nothing."""
        if self._waiting >= self._queue_length:
            raise QueueFull(f"{self._waiting} images wait already; try again in a moment.")

    def submit(
        self,
        images: Images,
        deadline: float,
        steps: Steps | None = None,
        *,
        wait_for_room: bool = False,
        embedding: bool = False,
    ) -> Job:
        """Queue ``images``, uint8 [N, H, W, 3] with N up to ``chunk``; ``result`` waits for what comes of the job.

        ``deadline`` is a time of the batcher's clock, in seconds. With ``wait_for_room`` a full queue is waited for:
        meant for the later parts of a request whose first part was taken already. With ``embedding`` that is among
        the outputs, whatever else is in the batch. ``steps`` are told how long the job waited and ran.

        Raises:
            QueueFull: too many images wait.
            DeadlineExceeded: no room until the deadline.
            ModelUnavailable: the batcher is closed.
            ValueError: ``images`` holds more than ``chunk`` images.
        """
        job = self._new_job(images, deadline, steps, embedding=embedding)
        self._enqueue(job, wait_for_room=wait_for_room)
        return job

    def result(self, job: Job) -> Outputs:
        """Wait for the engine's outputs for ``job``, float32 [N, columns].

        Raises:
            DeadlineExceeded: there is no result until the job's deadline; it is taken from the queue if it can be.
            EngineFailed: the engine raised an error on the batch.
        """
        if job.done is not None and not job.done.wait(max(0.0, job.deadline - self._clock())):
            job.abandoned = True
        if job.steps is not None:
            self._note_steps(job, job.steps)
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

    def join(self, timeout: float) -> bool:
        """Wait up to ``timeout`` seconds until the threads of a closed batcher have ended; say whether they have."""
        limit = time.monotonic() + timeout
        for thread in self._threads:
            thread.join(max(0.0, limit - time.monotonic()))
        return not any(thread.is_alive() for thread in self._threads)

    def _new_job(self, images: Images, deadline: float, steps: Steps | None = None, *, embedding: bool = False) -> Job:
        if not 0 < len(images) <= self.chunk:
            raise ValueError(f"{len(images)} images in one part; it must be 1 to {self.chunk}")
        return Job(images, deadline, self._clock(), embedding=embedding, steps=steps)

    def _note_steps(self, job: Job, steps: Steps) -> None:
        """Note in ``steps`` when ``job`` waited and ran, as far as it came."""
        run, now = job.run, self._clock()
        failed = isinstance(job.outcome, ServiceError) or job.outcome is None
        error = type(job.outcome or DeadlineExceeded()).__name__ if failed else None
        waited = Step("queue", job.submitted, now if run is None else run.started, {"images": len(job.images)})
        steps.note(waited)
        if run is None:
            waited.error = error
            return
        attributes: dict[str, str | int] = {"batch_size": run.images, "precision": self._engine.precision}
        steps.note(Step("engine", run.started, run.ended or now, attributes, error))

    def _enqueue(self, job: Job, *, wait_for_room: bool) -> None:
        job.done = self._runtime.event()
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
        self._runtime.soon(self._begin)
        return True

    def _wait_for_room(self, job: Job) -> None:
        room = self._runtime.event()
        with self._work:
            if self._waiting + len(job.images) <= self._queue_length:  # meanwhile
                return
            self._room.append(room)
        if not room.wait(max(0.0, job.deadline - self._clock())):
            raise DeadlineExceeded(LATE)

    def _tell_of_room(self) -> None:
        self._runtime.wake(self._room)
        self._room = []

    def _count(self, change: int) -> None:
        self._waiting += change
        self._observer.queued(change)

    def _now(self) -> Snapshot:
        return Snapshot(self._waiting, tuple(self._running), self._all_cores, len(self._room))

    def _next_batch(self) -> NextBatch | None:
        return next_batch(self._now(), self._pace)

    def _idle(self) -> bool:
        return self._now().idle and not self._closed

    def _begin(self) -> None:
        with self._work:
            self._notify()

    def _notify(self) -> None:
        """Wake a stream's thread where there is something for it to begin with."""
        if self._next_batch() is not None:
            self._work.notify()

    def _run(self, stream: int) -> None:
        if self._niceness:
            thread_stands_back(self._niceness)
        while taken := self._take(stream):
            batch, all_cores = taken
            self._run_batch(batch, None if all_cores else stream)

    def _take(self, stream: int) -> tuple[list[Job], bool] | None:
        """Wait for jobs to begin with; return them and whether all cores run them, None when closed and empty."""
        with self._work:
            while (begun := self._next_batch()) is None:
                if self._closed and not self._jobs and not self._all_cores:
                    return None
                self._work.wait()
            try:
                batch, images = self._dequeue(begun.images)
                if begun.all_cores:
                    self._all_cores = True
                else:
                    self._running[stream] = images
                    self._notify()
                return batch, begun.all_cores
            except BaseException:
                self._leave(None if begun.all_cores else stream)
                raise

    def _dequeue(self, images: int) -> tuple[list[Job], int]:
        """Take jobs with about ``images`` images from the queue, at least one; return them and how many those are."""
        batch = [self._jobs.popleft()]
        taken = len(batch[0].images)
        while self._jobs and taken + len(self._jobs[0].images) <= images:
            batch.append(self._jobs.popleft())
            taken += len(batch[-1].images)
        self._count(-taken)
        if not self._jobs:
            self._waiting = 0  # whatever went wrong in counting
        self._tell_of_room()
        return batch, taken

    def _run_batch(self, batch: list[Job], stream: int | None) -> None:
        """Run what is still wanted of ``batch`` in ``stream``, or on all cores, and let go of what was taken for it."""
        try:
            jobs = [job for job in batch if self._still_wanted(job)]
            if jobs:
                self._execute(jobs, stream)
        finally:
            try:
                self._runtime.wake([job.done for job in batch if job.done is not None])
            finally:  # also where there is no memory to tell anybody
                with self._work:
                    self._leave(stream)

    def _leave(self, stream: int | None) -> None:
        if stream is None:
            self._all_cores = False
        else:
            self._running[stream] = 0
        if self._closed:
            self._work.notify_all()
        else:
            self._notify()

    def _still_wanted(self, job: Job) -> bool:
        now = self._clock()
        self._observer.waited(now - job.submitted)
        if job.abandoned:
            return False
        if now >= job.deadline:
            job.outcome = DeadlineExceeded(LATE)
            return False
        return True

    def _execute(self, jobs: list[Job], stream: int | None) -> None:
        self._begun[stream] = self._clock()
        try:
            self._answer(jobs, stream)
        except BaseException as error:  # an engine may raise anything; only this batch may suffer from it
            self._fail(jobs)
            self._broken |= isinstance(error, BrokenEngine)
            log.error("the engine failed on a batch of %d", sum(len(job.images) for job in jobs), exc_info=error)
        finally:
            del self._begun[stream]

    def _answer(self, jobs: list[Job], stream: int | None) -> None:
        started = self._clock()
        images = jobs[0].images if len(jobs) == 1 else np.concatenate([job.images for job in jobs])
        embedding = self._observer.embedding or any(job.embedding for job in jobs)
        run = Run(len(images), started)
        for job in jobs:
            job.run = run
        outputs = self._engine.predict(images, stream, embedding=embedding)
        run.ended = self._clock()
        seconds = run.ended - started
        if len(outputs) != len(images):
            raise BrokenEngine(f"it answered {len(outputs)} images, not {len(images)}")
        if len(images) == 1:
            self._lone_seconds = seconds
        self._hand_out(outputs, jobs, embedding=embedding)
        self._observer.ran(len(images), seconds)
        if failed := [job for job in jobs if job.outcome is None]:
            log.error("the engine answered %d of a batch of %d with values that are no numbers", len(failed), len(jobs))
            self._fail(failed)
            outputs = outputs[np.isfinite(outputs).all(axis=1)]
        if len(failed) < len(jobs):
            self._failures = 0
        self._observer.classified(outputs)

    def _hand_out(self, outputs: Outputs, jobs: list[Job], *, embedding: bool) -> None:
        """Give each of ``jobs`` its part of the ``outputs``; nothing to those whose part are no numbers."""
        asked = outputs.shape[1]  # columns
        unasked = asked - self._engine.embedding if embedding else asked
        finite = np.isfinite(outputs).all()
        start = 0
        for job in jobs:
            part = outputs[start : start + len(job.images), : asked if job.embedding else unasked]
            start += len(job.images)
            if finite or np.isfinite(part).all():
                job.outcome = part

    def _fail(self, jobs: list[Job]) -> None:
        """Tell those of ``jobs`` that have no outcome that the engine failed."""
        for job in jobs:
            if job.outcome is None:
                job.outcome = EngineFailed("The engine failed on this batch; the log has the details.")
        self._failures += 1
        self._observer.failed()
