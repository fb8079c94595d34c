"""The batcher, with an engine that is stopped and let go at will, so that what waits is known exactly."""

import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence

import gevent
import numpy as np
import pytest

from service.inference import batcher as batchers
from service.inference.batcher import MOST_FAILURES, Batcher, Job, NextBatch, Snapshot, next_batch
from service.inference.engine import Images, Outputs
from service.inference.errors import DeadlineExceeded, EngineFailed, ModelUnavailable, QueueFull
from service.inference.evidence import EvidenceNetwork
from service.inference.pace import Pace
from service.inference.runtime import Event, ThreadRuntime
from service.inference.steps import Steps
from service.serving.loop import Loop
from tests.service.loops import on_a_loop

SOON = 10.0  # seconds: long enough on a busy machine


class GatedEngine:
    """Answers with the value of each image's first pixel, when the gate is open.

    On the value 13 it fails, on 14 it wants to end the thread, and for 15 and 16 it answers NaN and infinity. The
    embedding of an image is the value's double.
    """

    name = "gated"
    precision = "float32"
    embedding = 1
    measured: Mapping[str, float] = {}
    explaining: Callable[[], EvidenceNetwork] | None = None

    def __init__(self, streams: int = 1) -> None:
        self.streams = streams
        self.gate = threading.Semaphore(0)
        self.started = threading.Semaphore(0)
        self.batches: list[int] = []
        self.threads: list[int] = []
        self.used: list[int | None] = []
        self.embedded: list[bool] = []

    def predict(self, images: Images, stream: int | None = None, *, embedding: bool = False) -> Outputs:
        """Note the size of the batch and its stream, wait for the gate, answer."""
        self.embedded.append(embedding)
        self.batches.append(len(images))
        self.used.append(stream)
        self.threads.append(threading.get_ident())
        self.started.release()
        assert self.gate.acquire(timeout=SOON)
        values = images[:, 0, 0, 0].astype(np.float32)
        if 13 in values:
            raise ZeroDivisionError
        if 14 in values:
            raise SystemExit(1)
        values[values == 15] = np.nan
        values[values == 16] = np.inf
        return np.stack([values, 2 * values] if embedding else [values], axis=1)


class Observations:
    """Keeps what the batcher tells."""

    embedding = False

    def __init__(self) -> None:
        self.length = 0
        self.waits: list[float] = []
        self.runs: list[int] = []
        self.failures = 0
        self.values: list[float] = []

    def queued(self, change: int) -> None:
        """Follow the length of the queue."""
        self.length += change

    def waited(self, seconds: float) -> None:
        """Keep a waiting time."""
        self.waits.append(seconds)

    def ran(self, images: int, seconds: float) -> None:
        """Keep the size of a batch."""
        assert seconds >= 0
        self.runs.append(images)

    def failed(self) -> None:
        """Count a batch that the engine failed on."""
        self.failures += 1

    def classified(self, outputs: Outputs) -> None:
        """Keep the values that the engine answered."""
        self.values.extend(outputs[:, 0].tolist())


@pytest.fixture
def engine() -> GatedEngine:
    """An engine with a closed gate."""
    return GatedEngine()


@pytest.fixture
def seen() -> Observations:
    """What the batcher tells."""
    return Observations()


@pytest.fixture
def batcher(engine: GatedEngine, seen: Observations) -> Iterator[Batcher]:
    """A batcher of batches up to 4 with room for 6 images."""
    batcher = Batcher(engine, queue_length=6, observer=seen, pace=Pace(most=4))
    yield batcher
    engine.gate.release(100)
    batcher.close()
    batcher.join(SOON)


def images(*values: int) -> Images:
    """Return one image of each value, uint8 [N, 2, 2, 3]."""
    return np.stack([np.full((2, 2, 3), value, np.uint8) for value in values])


def soon() -> float:
    """Return a deadline that nothing here reaches."""
    return time.monotonic() + SOON


def occupy(batcher: Batcher, engine: GatedEngine) -> Job:
    """Make the engine busy with one image."""
    future = batcher.submit(images(1), soon())
    assert engine.started.acquire(timeout=SOON)
    return future


def eventually(condition: Callable[[], bool]) -> None:
    """Wait until ``condition`` holds."""
    deadline = soon()
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.001)


@pytest.mark.parametrize(
    ("waiting", "running", "begun"),
    [
        pytest.param(0, (0, 0), None, id="nothing-waits"),
        pytest.param(0, (20, 0), None, id="nothing-waits-beside-a-batch"),
        pytest.param(1, (0, 0), NextBatch(1, all_cores=True), id="one-image"),
        pytest.param(15, (0, 0), NextBatch(15, all_cores=True), id="few-for-each-stream"),
        pytest.param(16, (0, 0), NextBatch(8, all_cores=False), id="enough-for-each-stream"),
        pytest.param(41, (0, 0), NextBatch(21, all_cores=False), id="shares-are-rounded-up"),
        pytest.param(100, (0, 0), NextBatch(32, all_cores=False), id="up-to-a-batch"),
        pytest.param(7, (0,), NextBatch(7, all_cores=True), id="few-for-the-only-stream"),
        pytest.param(8, (0,), NextBatch(8, all_cores=False), id="enough-for-the-only-stream"),
        pytest.param(7, (15, 0), None, id="few-beside-a-short-batch"),
        pytest.param(8, (15, 0), NextBatch(8, all_cores=False), id="enough-beside-a-short-batch"),
        pytest.param(1, (16, 0), NextBatch(1, all_cores=False), id="one-beside-a-long-batch"),
        pytest.param(7, (1, 0, 0, 15), NextBatch(4, all_cores=False), id="few-beside-batches-that-are-long-together"),
        pytest.param(50, (1, 0, 0), NextBatch(25, all_cores=False), id="shares-of-the-idle-streams"),
        pytest.param(50, (1, 32), None, id="all-are-busy"),
    ],
)
def test_what_an_idle_stream_begins_with(waiting: int, running: tuple[int, ...], begun: NextBatch | None) -> None:
    """It follows from what waits and what runs alone, by the table of ``next_batch``."""
    assert next_batch(Snapshot(waiting, running), Pace()) == begun
    assert next_batch(Snapshot(waiting, running, all_cores=True), Pace()) is None


@pytest.mark.parametrize(
    ("waiting", "running", "begun"),
    [
        pytest.param(1, (0, 0), NextBatch(1, all_cores=True), id="one-image"),
        pytest.param(2, (0, 0), NextBatch(1, all_cores=False), id="one-for-each-stream"),
        pytest.param(1, (1, 0), NextBatch(1, all_cores=False), id="one-beside-another"),
        pytest.param(16, (0, 0), NextBatch(6, all_cores=False), id="up-to-a-batch"),
    ],
)
def test_heavy_images_need_no_company(waiting: int, running: tuple[int, ...], begun: NextBatch) -> None:
    """Where an image takes so long that a batch saves nothing, each core takes what there is at once."""
    assert next_batch(Snapshot(waiting, running), Pace(company=1, long=2, most=6)) == begun


def test_a_snapshot_tells_what_waits_and_runs(batcher: Batcher, engine: GatedEngine) -> None:
    """It follows a batch from the queue into the engine and out of it, on all cores or in its stream."""
    assert batcher.snapshot() == Snapshot(0, (0,))
    first = occupy(batcher, engine)
    assert batcher.snapshot() == Snapshot(0, (0,), all_cores=True)
    second = batcher.submit(images(2, 3), soon())
    assert batcher.snapshot() == Snapshot(2, (0,), all_cores=True)
    engine.gate.release(2)
    batcher.result(first)
    batcher.result(second)
    eventually(lambda: batcher.snapshot().idle)


def test_one_request_runs_at_once(batcher: Batcher, engine: GatedEngine) -> None:
    """A lone request is not kept waiting for company."""
    future = occupy(batcher, engine)
    engine.gate.release()
    assert batcher.result(future).tolist() == [[1]]
    assert engine.batches == [1]


def test_an_idle_engine_runs_in_the_thread_that_asks(batcher: Batcher, engine: GatedEngine, seen: Observations) -> None:
    """``run`` needs no other thread while nobody else is there, and leaves the engine to the queue afterwards."""
    engine.gate.release(2)
    answers = [batcher.run(images(value), soon()).tolist() for value in (3, 4)]
    assert answers == [[[3]], [[4]]]
    assert engine.threads == [threading.get_ident()] * 2
    assert seen.runs == [1, 1]
    future = batcher.submit(images(5), soon())
    engine.gate.release()
    assert batcher.result(future).tolist() == [[5]]
    assert engine.threads[2] != threading.get_ident()


def test_what_comes_while_an_asking_thread_runs_waits_its_turn(batcher: Batcher, engine: GatedEngine) -> None:
    """One batch at a time: what is queued, or asked for, while ``run`` has the engine forms the next batch."""
    answers: list[list[float]] = []
    asking = [threading.Thread(target=lambda: answers.append(batcher.run(images(1), soon()).ravel().tolist()))]
    asking[0].start()
    assert engine.started.acquire(timeout=SOON)
    future = batcher.submit(images(2, 3), soon())
    asking.append(threading.Thread(target=lambda: answers.append(batcher.run(images(4), soon()).ravel().tolist())))
    asking[1].start()
    eventually(lambda: batcher.snapshot().waiting == 3)
    assert engine.batches == [1]
    engine.gate.release(2)
    assert batcher.result(future).ravel().tolist() == [2, 3]
    for thread in asking:
        thread.join(SOON)
    assert sorted(answers) == [[1], [4]]
    assert engine.batches == [1, 3]


def test_run_fails_as_the_queue_does(batcher: Batcher, engine: GatedEngine) -> None:
    """An engine that raises, a deadline that has passed and a closed batcher are the same errors as from the queue."""
    engine.gate.release(10)
    with pytest.raises(EngineFailed):
        batcher.run(images(13), soon())
    with pytest.raises(DeadlineExceeded):
        batcher.run(images(1), time.monotonic())
    assert batcher.run(images(5), soon()).tolist() == [[5]]
    batcher.close()
    with pytest.raises(ModelUnavailable):
        batcher.run(images(6), soon())


def test_those_who_wait_form_the_next_batch(batcher: Batcher, engine: GatedEngine, seen: Observations) -> None:
    """Requests that come while a batch runs go together, whole and in order, up to the largest batch."""
    first = occupy(batcher, engine)
    futures = [batcher.submit(images(*values), soon()) for values in ([2], [3, 4], [5, 6], [7])]
    assert seen.length == 6
    engine.gate.release(3)
    assert batcher.result(first).tolist() == [[1]]
    assert [batcher.result(future).ravel().tolist() for future in futures] == [[2], [3, 4], [5, 6], [7]]
    assert engine.batches == [1, 3, 3]
    eventually(lambda: seen.runs == [1, 3, 3])
    assert seen.values == [1, 2, 3, 4, 5, 6, 7]
    assert seen.length == 0
    assert len(seen.waits) == 5


def test_only_those_who_ask_get_embeddings(batcher: Batcher, engine: GatedEngine) -> None:
    """A batch has embeddings where one of its requests asks for them, and the others get theirs without."""
    first = occupy(batcher, engine)
    jobs = [
        batcher.submit(images(value), soon(), embedding=asks) for value, asks in ((2, False), (3, True), (4, False))
    ]
    engine.gate.release(10)
    assert batcher.result(first).tolist() == [[1]]
    assert [batcher.result(job).tolist() for job in jobs] == [[[2]], [[3, 6]], [[4]]]
    assert batcher.result(batcher.submit(images(5), soon())).tolist() == [[5]]
    assert (engine.batches, engine.embedded) == ([1, 3, 1], [False, True, False])


@pytest.mark.timing
def test_full_queue_refuses_at_once(batcher: Batcher, engine: GatedEngine) -> None:
    """What does not fit into the queue is refused without waiting; what fits still goes in."""
    occupy(batcher, engine)
    batcher.submit(images(2, 3, 4), soon())
    batcher.submit(images(5, 6), soon())
    started = time.monotonic()
    with pytest.raises(QueueFull, match="5 images wait"):
        batcher.submit(images(7, 8), soon())
    assert time.monotonic() - started < 1
    batcher.submit(images(9), soon())


def test_later_parts_wait_for_room(batcher: Batcher, engine: GatedEngine) -> None:
    """With ``wait_for_room`` a full queue is waited for, until the deadline at most."""
    occupy(batcher, engine)
    batcher.submit(images(2, 3, 4), soon())
    batcher.submit(images(5, 6, 7), soon())
    with pytest.raises(DeadlineExceeded):
        batcher.submit(images(8), time.monotonic() + 0.02, wait_for_room=True)
    engine.gate.release(100)
    future = batcher.submit(images(9), soon(), wait_for_room=True)
    assert batcher.result(future).tolist() == [[9]]


def test_deadline_while_waiting(batcher: Batcher, engine: GatedEngine) -> None:
    """A request whose deadline passes gets its error in time and is never given to the engine."""
    first = occupy(batcher, engine)
    late = batcher.submit(images(2), time.monotonic() + 0.05)
    with pytest.raises(DeadlineExceeded):
        batcher.result(late)
    expired = batcher.submit(images(3), time.monotonic())
    engine.gate.release(100)
    assert batcher.result(first).tolist() == [[1]]
    with pytest.raises(DeadlineExceeded):
        batcher.result(expired)
    assert batcher.result(batcher.submit(images(4), soon())).tolist() == [[4]]
    assert engine.batches == [1, 1]


def test_failing_batch_fails_only_its_own(batcher: Batcher, engine: GatedEngine) -> None:
    """When the engine raises, the requests of that batch fail and the next ones are answered."""
    engine.gate.release(100)
    with pytest.raises(EngineFailed):
        batcher.result(batcher.submit(images(13), soon()))
    assert batcher.result(batcher.submit(images(5), soon())).tolist() == [[5]]


@pytest.mark.timing
@pytest.mark.parametrize("value", [13, 14, 15, 16])
def test_an_engine_that_fails_in_any_way(batcher: Batcher, engine: GatedEngine, seen: Observations, value: int) -> None:
    """Errors, those that end threads too, and answers that are no numbers fail at once; the next one is answered."""
    engine.gate.release(100)
    started = time.monotonic()
    for _ in range(MOST_FAILURES - 1):
        with pytest.raises(EngineFailed):
            batcher.result(batcher.submit(images(value), soon()))
        with pytest.raises(EngineFailed):
            batcher.run(images(value), soon())
        assert batcher.result(batcher.submit(images(5), soon())).tolist() == [[5]]
        assert not batcher.failing
    assert time.monotonic() - started < SOON / 2
    assert seen.failures == 2 * (MOST_FAILURES - 1)
    assert seen.values == [5] * (MOST_FAILURES - 1)


@pytest.mark.parametrize("value", [13, 14, 15])
def test_an_engine_that_always_fails_is_told(batcher: Batcher, engine: GatedEngine, value: int) -> None:
    """After some failures in a row it counts as dead, until it answers again; every request is told at once."""
    engine.gate.release(100)
    for failures in range(2 * MOST_FAILURES):
        assert batcher.failing == (failures >= MOST_FAILURES)
        with pytest.raises(EngineFailed):
            batcher.run(images(value), soon())
    assert batcher.run(images(5), soon()).tolist() == [[5]]
    assert not batcher.failing


def test_an_engine_that_is_stuck_is_told(engine: GatedEngine, seen: Observations) -> None:
    """A batch that takes longer than any does is a dead engine as well."""
    now = [1000.0]
    batcher = Batcher(engine, queue_length=6, observer=seen, clock=lambda: now[0])
    job = batcher.submit(images(1), now[0] + 3600)
    assert engine.started.acquire(timeout=SOON)
    now[0] += 59
    assert not batcher.failing
    now[0] += 2
    assert batcher.failing
    engine.gate.release()
    assert batcher.result(job).tolist() == [[1]]
    eventually(lambda: not batcher.failing)
    batcher.close()
    assert batcher.join(SOON)
    assert not batcher.failing


def test_answers_that_are_no_numbers_fail_alone(batcher: Batcher, engine: GatedEngine, seen: Observations) -> None:
    """Of a batch only those fail whose answers are no numbers, and only the others are counted."""
    first = occupy(batcher, engine)
    jobs = [batcher.submit(images(*values), soon()) for values in ([2], [3, 15], [4])]
    engine.gate.release(10)
    batcher.result(first)
    assert batcher.result(jobs[0]).tolist() == [[2]]
    with pytest.raises(EngineFailed):
        batcher.result(jobs[1])
    assert batcher.result(jobs[2]).tolist() == [[4]]
    eventually(lambda: seen.values == [1, 2, 3, 4])
    assert seen.failures == 1


@pytest.mark.parametrize("values", [[], [1] * 5])
def test_part_of_wrong_size_is_refused(batcher: Batcher, values: list[int]) -> None:
    """A part that is empty or larger than a batch is the caller's mistake."""
    with pytest.raises(ValueError, match="must be 1 to 4"):
        batcher.submit(np.zeros((len(values), 2, 2, 3), np.uint8), soon())
    with pytest.raises(ValueError, match="must be 1 to 4"):
        batcher.run(np.zeros((len(values), 2, 2, 3), np.uint8), soon())


def test_close_answers_what_waits_and_refuses_more(batcher: Batcher, engine: GatedEngine) -> None:
    """A closed batcher finishes its queue and takes nothing new."""
    occupy(batcher, engine)
    waiting = batcher.submit(images(2), soon())
    batcher.close()
    with pytest.raises(ModelUnavailable):
        batcher.submit(images(3), soon())
    engine.gate.release(100)
    assert batcher.result(waiting).tolist() == [[2]]
    batcher.join(SOON)


def test_many_threads_get_their_own_answers(engine: GatedEngine, seen: Observations) -> None:
    """Under load from many threads everybody gets the answer to what they sent."""
    engine.gate.release(1000)
    batcher = Batcher(engine, queue_length=1000, observer=seen, pace=Pace(most=8))
    wrong: list[int] = []

    def ask(start: int) -> None:
        for value in range(start, start + 20):
            mine = [value % 12, (value + 1) % 12]
            if value % 2:
                answer = batcher.run(images(*mine), soon())
            else:
                answer = batcher.result(batcher.submit(images(*mine), soon()))
            if answer.ravel().tolist() != mine:
                wrong.append(value)

    threads = [threading.Thread(target=ask, args=(start,)) for start in range(16)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    batcher.close()
    batcher.join(SOON)
    assert not wrong
    assert sum(engine.batches) == sum(seen.runs) == 16 * 20 * 2
    assert max(engine.batches) <= 8


@pytest.fixture
def streams(seen: Observations) -> Iterator[tuple[Batcher, GatedEngine]]:
    """A batcher with two streams and batches up to 32, and its engine."""
    engine = GatedEngine(streams=2)
    batcher = Batcher(engine, queue_length=200, observer=seen)
    yield batcher, engine
    engine.gate.release(100)
    batcher.close()
    batcher.join(SOON)


def test_two_streams_run_at_once(streams: tuple[Batcher, GatedEngine]) -> None:
    """Many images are shared by the streams, each of which runs a batch of its own at the same time."""
    batcher, engine = streams
    first = occupy(batcher, engine)  # on all cores, since it is alone
    jobs = [batcher.submit(images(value), soon()) for value in range(20, 60)]
    assert engine.used == [None]
    engine.gate.release()
    assert batcher.result(first).tolist() == [[1]]
    for _ in range(2):
        assert engine.started.acquire(timeout=SOON)  # both, while the gate is closed
    assert sorted(engine.used[1:], key=str) == [0, 1]
    assert sorted(engine.batches[1:]) == [20, 20]
    engine.gate.release(2)
    assert [batcher.result(job).item() for job in jobs] == list(range(20, 60))
    assert len(set(engine.threads[1:])) == 2


@pytest.mark.parametrize(("count", "used"), [(1, [None]), (15, [None]), (16, [0, 1])])
def test_few_images_have_all_cores(streams: tuple[Batcher, GatedEngine], count: int, used: list[int | None]) -> None:
    """Fewer than 8 images for each stream run as one batch on all cores; from there on each stream takes its share."""
    batcher, engine = streams
    first = occupy(batcher, engine)
    jobs = [batcher.submit(images(value), soon()) for value in range(20, 20 + count)]
    engine.gate.release()
    batcher.result(first)
    for _ in used:
        assert engine.started.acquire(timeout=SOON)
    engine.gate.release(10)
    assert [batcher.result(job).item() for job in jobs] == list(range(20, 20 + count))
    assert sorted(engine.used[1:], key=str) == used
    assert sum(engine.batches[1:]) == count


def busy_stream(batcher: Batcher, engine: GatedEngine, count: int) -> None:
    """Make one stream busy with ``count`` images, and leave the other one idle."""
    first = occupy(batcher, engine)
    short = batcher.submit(images(*[2] * (16 - count)), soon())
    long = batcher.submit(images(*[3] * count), soon())
    engine.gate.release()
    batcher.result(first)
    for _ in range(2):
        assert engine.started.acquire(timeout=SOON)
    assert sorted(engine.batches[1:]) == sorted((16 - count, count))
    engine.gate.release()  # of the two, one ends
    eventually(lambda: short.outcome is not None or long.outcome is not None)
    eventually(lambda: sum(running > 0 for running in batcher.snapshot().running) == 1)


@pytest.mark.timing
def test_a_second_stream_waits_for_company(streams: tuple[Batcher, GatedEngine]) -> None:
    """Beside a short batch a few images wait, since they would cost a core more alone; the eighth starts them."""
    batcher, engine = streams
    busy_stream(batcher, engine, 8)
    jobs = [batcher.submit(images(value), soon()) for value in range(20, 27)]
    assert not engine.started.acquire(timeout=0.1)
    jobs.append(batcher.submit(images(27), soon()))
    assert engine.started.acquire(timeout=SOON)
    assert engine.batches[-1] == 8
    engine.gate.release(2)
    assert [batcher.result(job).item() for job in jobs] == list(range(20, 28))


def test_a_second_stream_does_not_wait_beside_a_long_batch(streams: tuple[Batcher, GatedEngine]) -> None:
    """While a long batch runs in one stream a single image starts at once in the other."""
    batcher, engine = streams
    first = occupy(batcher, engine)
    batcher.submit(images(*[2] * 20), soon())
    batcher.submit(images(*[3] * 20), soon())
    engine.gate.release()
    batcher.result(first)
    for _ in range(2):
        assert engine.started.acquire(timeout=SOON)
    engine.gate.release()
    eventually(lambda: sum(running > 0 for running in batcher.snapshot().running) == 1)
    job = batcher.submit(images(7), soon())
    assert engine.started.acquire(timeout=SOON)
    assert engine.batches[-1] == 1
    engine.gate.release(2)
    assert batcher.result(job).tolist() == [[7]]


def test_close_wakes_all_streams_and_who_waits_for_room(streams: tuple[Batcher, GatedEngine]) -> None:
    """Closing ends idle streams at once, tells who waits for room, and lets busy streams end their work first."""
    batcher, engine = streams
    first = occupy(batcher, engine)
    fillers = [batcher.submit(images(*[2] * 20), soon()) for _ in range(10)]
    outcomes: list[str] = []

    def wait_for_room() -> None:
        try:
            batcher.submit(images(3), soon(), wait_for_room=True)
        except ModelUnavailable:
            outcomes.append("closed")

    waiting = threading.Thread(target=wait_for_room)
    waiting.start()
    eventually(lambda: batcher.snapshot().blocked == 1)
    batcher.close()
    waiting.join(SOON)
    assert outcomes == ["closed"]
    engine.gate.release(100)
    assert batcher.result(first).tolist() == [[1]]
    for filler in fillers:
        assert batcher.result(filler).shape == (20, 1)
    assert batcher.join(SOON)


def test_a_batch_that_cannot_be_put_together_fails_alone(batcher: Batcher, engine: GatedEngine) -> None:
    """Images that do not go together fail with their batch at once, and the stream goes on."""
    first = occupy(batcher, engine)
    jobs = [batcher.submit(np.zeros((1, side, side, 3), np.uint8), soon()) for side in (2, 3)]
    engine.gate.release(10)
    batcher.result(first)
    for job in jobs:
        with pytest.raises(EngineFailed):
            batcher.result(job)
    assert batcher.result(batcher.submit(images(5), soon())).tolist() == [[5]]


def test_greenlets_share_lanes(seen: Observations) -> None:
    """Hundreds of greenlets of one event loop get their own answers, and none is forgotten."""
    engine = GatedEngine(streams=2)
    engine.gate.release(10_000)

    def work(loop: Loop) -> list[bool]:
        batcher = Batcher(engine, queue_length=1000, observer=seen, runtime=loop)

        def ask(value: int) -> bool:
            with loop.request():
                return all(batcher.run(images(value % 12), soon()).item() == value % 12 for _ in range(5))

        asked = [gevent.spawn(ask, value) for value in range(300)]
        answers = [greenlet.get(timeout=SOON) for greenlet in asked]
        batcher.close()
        batcher.join(SOON)
        return answers

    assert on_a_loop(work) == [True] * 300
    assert seen.length == 0
    assert sum(seen.runs) == 1500


@pytest.mark.timing
def test_deadline_of_a_greenlet(seen: Observations) -> None:
    """A greenlet whose job is stuck behind another gets its error at its deadline, while the loop goes on."""
    engine = GatedEngine()

    def work(loop: Loop) -> float:
        batcher = Batcher(engine, queue_length=10, observer=seen, runtime=loop)
        first = batcher.submit(images(1), soon())
        gevent.sleep(0.001)  # a turn of the loop, at whose end the batcher begins
        assert engine.started.acquire(timeout=SOON)
        started = time.monotonic()
        with pytest.raises(DeadlineExceeded):
            batcher.run(images(2), time.monotonic() + 0.05)
        seconds = time.monotonic() - started
        engine.gate.release(10)
        assert batcher.result(first).tolist() == [[1]]
        batcher.close()
        batcher.join(SOON)
        return seconds

    assert 0.04 < on_a_loop(work) < SOON / 2
    assert engine.batches == [1]


def test_a_job_of_a_traced_request_tells_when_it_waited_and_ran(batcher: Batcher, engine: GatedEngine) -> None:
    """Times are the batch's own, which other jobs share; a job of a request that is not traced tells nothing."""
    first = batcher.submit(images(1), soon())
    assert engine.started.acquire(timeout=SOON)
    traced, started = Steps(), time.monotonic()
    jobs = [batcher.submit(images(2, 3), soon(), traced), batcher.submit(images(4), soon())]
    engine.gate.release(2)
    for job in (first, *jobs):
        batcher.result(job)
    ended = time.monotonic()
    waited, ran = traced.taken
    assert (waited.name, waited.attributes, waited.error) == ("queue", {"images": 2}, None)
    assert (ran.name, ran.attributes, ran.error) == ("engine", {"batch_size": 3, "precision": "float32"}, None)
    assert started <= waited.started < waited.ended == ran.started < ran.ended <= ended
    assert jobs[0].run is jobs[1].run is not first.run


def test_a_lone_request_tells_it_too(batcher: Batcher, engine: GatedEngine) -> None:
    """It runs in its caller's thread and has not waited."""
    steps = Steps()
    engine.gate.release()
    batcher.run(images(1), soon(), steps)
    assert [step.name for step in steps.taken] == ["queue", "engine"]
    assert steps.taken[0].ended == steps.taken[1].started


@pytest.mark.parametrize(
    ("value", "seconds", "told"),
    [
        (13, SOON, [("queue", None), ("engine", "EngineFailed")]),
        (15, SOON, [("queue", None), ("engine", "EngineFailed")]),
        (1, 0.05, [("queue", None), ("engine", "DeadlineExceeded")]),
    ],
)
def test_a_traced_job_that_fails_tells_where(
    batcher: Batcher, engine: GatedEngine, value: int, seconds: float, told: list[tuple[str, str | None]]
) -> None:
    """It was in the engine when that failed, or when its time was up."""
    steps = Steps()
    job = batcher.submit(images(value), time.monotonic() + seconds, steps)
    assert engine.started.acquire(timeout=SOON)
    if seconds == SOON:
        engine.gate.release()
    with pytest.raises((EngineFailed, DeadlineExceeded)):
        batcher.result(job)
    assert [(step.name, step.error) for step in steps.taken] == told


def test_a_traced_job_that_never_runs_tells_that_it_waited(batcher: Batcher, engine: GatedEngine) -> None:
    """Its time was up in the queue."""
    batcher.submit(images(1), soon())
    assert engine.started.acquire(timeout=SOON)
    steps = Steps()
    with pytest.raises(DeadlineExceeded):
        batcher.result(batcher.submit(images(2), time.monotonic() + 0.05, steps))
    [waited] = steps.taken
    assert (waited.name, waited.error) == ("queue", "DeadlineExceeded")
    assert waited.ended - waited.started >= 0.05


class Short(ThreadRuntime):
    """A runtime that has no memory to wake anybody, the first time."""

    fails = True
    least = 0  # of events

    def wake(self, events: Sequence[Event]) -> None:
        """Fail, or wake them."""
        if self.fails and len(events) >= self.least:
            self.fails = False
            raise MemoryError
        super().wake(events)


def test_no_memory_to_tell_of_a_batch_costs_that_one_alone(engine: GatedEngine, seen: Observations) -> None:
    """Who asked waits until the deadline, and the next one has the engine, alone or in a stream."""
    runtime = Short()
    batcher = Batcher(engine, queue_length=6, observer=seen, pace=Pace(most=4), runtime=runtime)
    engine.gate.release(100)
    with pytest.raises(MemoryError):
        batcher.run(images(1), soon())
    assert batcher.run(images(2), soon()).tolist() == [[2]]
    runtime.fails, runtime.least = True, 1
    assert batcher.result(batcher.submit(images(3), time.monotonic() + 0.2)).tolist() == [[3]]
    assert batcher.result(batcher.submit(images(4), soon())).tolist() == [[4]]
    assert batcher.snapshot().running == (0,)
    assert not batcher.failing
    batcher.close()


def test_no_memory_to_take_a_batch_costs_that_one_alone(
    batcher: Batcher, engine: GatedEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The stream goes on with what comes next, and the queue has as much room as before."""
    engine.gate.release(100)
    with monkeypatch.context() as short:

        def fail() -> None:
            short.undo()
            raise MemoryError

        short.setattr(batcher, "_tell_of_room", fail)
        lost = batcher.submit(images(1, 2, 3), time.monotonic() + 0.1)
        with pytest.raises(DeadlineExceeded):
            batcher.result(lost)
    later = [batcher.submit(images(4, 5, 6), soon()), batcher.submit(images(7, 8, 9), soon())]
    assert [batcher.result(job)[:, 0].tolist() for job in later] == [[4, 5, 6], [7, 8, 9]]


def test_no_memory_to_log_a_failure_keeps_nobody_waiting(
    batcher: Batcher, engine: GatedEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Who asked is told of the engine's error, and the stream goes on."""
    engine.gate.release(100)

    def fail(*_: object, **__: object) -> None:
        raise MemoryError

    monkeypatch.setattr(batchers.log, "error", fail)
    job = batcher.submit(images(13), soon())
    with pytest.raises(EngineFailed):
        batcher.result(job)
    assert batcher.result(batcher.submit(images(1), soon())).tolist() == [[1]]


def test_streams_that_cannot_be_started_leave_nothing_behind(
    seen: Observations, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where the second thread of two has no memory, the first one ends as well."""
    started: list[threading.Thread] = []
    start = threading.Thread.start

    def start_one(thread: threading.Thread) -> None:
        if started:
            raise RuntimeError("can't start new thread")
        started.append(thread)
        start(thread)

    with monkeypatch.context() as short:
        short.setattr(threading.Thread, "start", start_one)
        with pytest.raises(MemoryError):
            Batcher(GatedEngine(2), queue_length=6, observer=seen)
    started[0].join(SOON)
    assert not started[0].is_alive()


def test_an_engine_that_answers_another_batch_is_told_at_once(batcher: Batcher, engine: GatedEngine) -> None:
    """It is broken, whatever it answers after that: such a fault stays with the size of a batch."""
    engine.gate.release(100)
    predict = engine.predict
    engine.predict = lambda *arguments, **options: predict(*arguments, **options)[:-1]  # type: ignore[method-assign]
    with pytest.raises(EngineFailed):
        batcher.result(batcher.submit(images(1, 2), soon()))
    engine.predict = predict  # type: ignore[method-assign]
    assert batcher.result(batcher.submit(images(1), soon())).tolist() == [[1]]
    assert batcher.failing
