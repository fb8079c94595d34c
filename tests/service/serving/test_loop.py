"""The event loop: greenlets wait without keeping it busy, threads do what takes long, and overload is noticed."""

import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack

import gevent
import pytest

from service.observe import logs
from service.serving.loop import Loop
from tests.service.loops import PATIENCE, on_a_loop


def elsewhere(work: Callable[[], object]) -> threading.Thread:
    """Run ``work`` in a thread that has nothing to do with the loop."""
    thread = threading.Thread(target=work)
    thread.start()
    return thread


def test_greenlet_is_woken_by_a_thread() -> None:
    """A greenlet that waits lets others go on, and is woken from another thread at once and not at its deadline."""

    def work(loop: Loop) -> tuple[bool, bool, float]:
        event = loop.event()
        others = gevent.spawn(gevent.sleep, 0)
        started = time.monotonic()
        thread = threading.Timer(0.05, loop.wake, [[event]])
        thread.start()
        woken = event.wait(PATIENCE)
        thread.join()
        return woken, others.ready(), time.monotonic() - started

    woken, others_ran, seconds = on_a_loop(work)
    assert woken
    assert others_ran
    assert seconds < PATIENCE / 2


@pytest.mark.parametrize("way", ["offload", "offload_beside"])
def test_an_error_in_a_thread_is_raised_and_not_printed(way: str, capfd: pytest.CaptureFixture[str]) -> None:
    """Whoever offloads gets it; gevent would write a trace into the log, which is one JSON object a line."""

    def fail() -> None:
        raise ValueError("a damaged picture")

    def work(loop: Loop) -> None:
        with pytest.raises(ValueError, match="a damaged picture"):
            getattr(loop, way)(fail)

    on_a_loop(work)
    assert capfd.readouterr().err == ""


@pytest.mark.parametrize("way", ["offload", "offload_beside"])
def test_a_thread_knows_which_request_it_works_for(way: str) -> None:
    """What is logged there has that one's id; what the work sets itself, nobody else has."""

    def ask(loop: Loop, request_id: str | None) -> str | None:
        logs.REQUEST_ID.set(request_id)
        seen: str | None = getattr(loop, way)(logs.REQUEST_ID.get)
        getattr(loop, way)(lambda: logs.REQUEST_ID.set("another"))
        return seen if logs.REQUEST_ID.get() == request_id else "changed"

    def work(loop: Loop) -> list[str | None]:
        asking = [gevent.spawn(ask, loop, request_id) for request_id in ("a", "b", None)]
        gevent.joinall(asking)
        return [greenlet.value for greenlet in asking]

    assert on_a_loop(work, threads=1) == ["a", "b", None]


def test_what_was_woken_already_does_not_wait() -> None:
    """Who is woken before waiting does not wait."""

    def work(loop: Loop) -> bool:
        event = loop.event()
        elsewhere(lambda: loop.wake([event])).join()
        gevent.sleep(0.01)
        return event.wait(0)

    assert on_a_loop(work)


def test_waiting_ends_at_its_time() -> None:
    """Nobody who is never woken waits for ever; being woken afterwards does not disturb what comes next."""

    def work(loop: Loop) -> tuple[list[bool], float]:
        event = loop.event()
        answers = [event.wait(0), event.wait(0.02)]
        thread = elsewhere(lambda: loop.wake([event]))
        started = time.monotonic()
        gevent.sleep(0.1)
        seconds = time.monotonic() - started
        thread.join()
        return [*answers, event.wait(0)], seconds

    answers, seconds = on_a_loop(work)
    assert answers == [False, False, True]
    assert seconds >= 0.1


def test_all_are_woken_in_one_turn() -> None:
    """A thousand greenlets that are woken together have all gone on before the loop looks at anything else."""

    def work(loop: Loop) -> tuple[int, int]:
        events = [loop.event() for _ in range(1000)]
        turns: list[int] = []
        turn = 0

        def wait(index: int) -> None:
            assert events[index].wait(PATIENCE)
            turns.append(turn)

        waiting = [gevent.spawn(wait, index) for index in range(len(events))]
        gevent.sleep(0)
        elsewhere(lambda: loop.wake(events)).join()
        while not all(greenlet.ready() for greenlet in waiting):
            turn += 1
            gevent.sleep(0)
        return len(turns), len(set(turns))

    assert on_a_loop(work) == (1000, 1)


def test_threads_wait_for_the_same_waker() -> None:
    """A thread beside the loop gets an event of its own kind; one call wakes it and a greenlet together."""

    def work(loop: Loop) -> list[bool]:
        ours = loop.event()
        answers: list[bool] = []
        ready = threading.Event()
        theirs = []

        def wait() -> None:
            theirs.append(loop.event())
            ready.set()
            answers.append(theirs[0].wait(PATIENCE))

        thread = elsewhere(wait)
        assert ready.wait(PATIENCE)
        elsewhere(lambda: loop.wake([ours, theirs[0]])).join()
        answers.append(ours.wait(PATIENCE))
        thread.join()
        return answers

    assert on_a_loop(work) == [True, True]


@pytest.mark.timing
def test_what_takes_long_keeps_nobody_waiting() -> None:
    """Offloaded work runs in another thread while the loop goes on, and its result comes back."""

    def take_long() -> int:
        time.sleep(0.3)
        return threading.get_ident()

    def work(loop: Loop) -> tuple[int, int, int]:
        turns = 0

        def turn() -> None:
            nonlocal turns
            while True:
                gevent.sleep(0.01)
                turns += 1

        greenlet = gevent.spawn(turn)
        ident = loop.offload(take_long)
        greenlet.kill()
        return turns, ident, threading.get_ident()

    turns, there, here = on_a_loop(work)
    assert turns >= 5
    assert there != here


@pytest.mark.parametrize("beside", [False, True])
def test_errors_come_back_from_threads(capfd: pytest.CaptureFixture[str], beside: bool) -> None:
    """What offloaded work raises is raised where it was asked for, and nowhere written: it may be a client's fault."""

    def work(loop: Loop) -> None:
        (loop.offload_beside if beside else loop.offload)(lambda: [][0])

    with pytest.raises(IndexError):
        on_a_loop(work)
    assert capfd.readouterr().err == ""


def test_threads_are_as_many_as_allowed() -> None:
    """More work than there are threads waits for one, and all of it is done."""

    def work(loop: Loop) -> tuple[int, int]:
        lock = threading.Lock()
        running = most = 0

        def count() -> None:
            nonlocal running, most
            with lock:
                running += 1
                most = max(most, running)
            time.sleep(0.02)
            with lock:
                running -= 1

        asked = [gevent.spawn(loop.offload, count) for _ in range(9)]
        gevent.joinall(asked, raise_error=True)
        return most, running

    assert on_a_loop(work, threads=3) == (3, 0)


def test_work_of_a_thread_stays_in_it() -> None:
    """A thread that offloads work does it itself: it keeps nobody waiting, and cannot wait for its own pool."""

    def work(loop: Loop) -> bool:
        return loop.offload(lambda: loop.offload(threading.get_ident) == threading.get_ident())

    assert on_a_loop(work, threads=1)


@pytest.mark.timing
@pytest.mark.parametrize(("requests", "late"), [(31, False), (32, True)])
def test_a_loop_that_was_kept_busy_is_late(requests: int, late: bool) -> None:
    """After 0.15 seconds without a look at the sockets requests are late; after one look they are not.

    With few of them, it is not they who kept the loop busy, and none is refused.
    """

    def work(loop: Loop) -> list[bool]:
        with ExitStack() as begun:
            for _ in range(requests):
                begun.enter_context(loop.request())
            gevent.sleep(0.01)
            before = loop.overloaded()
            time.sleep(0.15)  # keeps the loop busy: nothing is patched
            after = loop.overloaded()
            gevent.sleep(0.01)
            return [before, after, loop.overloaded()]

    assert on_a_loop(work) == [False, late, False]


def test_what_is_due_soon_is_done_once_a_turn() -> None:
    """However often it is asked for, it is done once, when the rest of the turn is over; a thread does it at once."""
    done: list[str] = []

    def work() -> None:
        done.append("done")

    def ask(loop: Loop) -> list[str]:
        for _ in range(3):
            loop.soon(work)
        done.append("asked")
        loop.let_others_go_on()
        gevent.sleep(0.001)
        with ThreadPoolExecutor(1) as thread:
            thread.submit(loop.soon, work).result()
        return done

    assert on_a_loop(ask) == ["asked", "done", "done"]


def test_alone_is_who_has_the_loop_for_himself() -> None:
    """One request is alone, unless another begins in the turn that it leaves to the loop; a thread always is."""

    def work(loop: Loop) -> list[bool]:
        answers = []
        with loop.request():
            answers.append(loop.alone())
            other = gevent.spawn(hold_a_request, loop)
            answers.append(loop.alone())
            other.join()
            answers.append(loop.alone())
            answers.append(loop.offload(loop.alone))
        return answers

    def hold_a_request(loop: Loop) -> None:
        with loop.request():
            gevent.sleep(0.02)

    assert on_a_loop(work) == [True, False, True, True]


def test_requests_are_counted_out_when_they_fail() -> None:
    """A request that raises is no longer there: the next one is alone."""

    def work(loop: Loop) -> tuple[int, bool]:
        with pytest.raises(ZeroDivisionError), loop.request():
            raise ZeroDivisionError
        with loop.request():
            return loop.snapshot().requests, loop.alone()

    assert on_a_loop(work) == (1, True)


@pytest.mark.timing
def test_the_time_in_which_the_loop_has_something_to_do_is_told() -> None:
    """What is told is the time in which the loop did not wait, as its one greenlet measures it from sleep to sleep."""

    def told_and_computed(computes: float) -> tuple[float, float]:
        told: list[tuple[float, float]] = []  # seconds, beside those that were computed until then
        computed = 0.0

        def run() -> None:
            nonlocal computed
            loop = Loop(2, max_requests=10, tell_busy=lambda seconds: told.append((seconds, computed)))
            while not told:
                started = time.monotonic()
                while time.monotonic() < started + computes:
                    pass
                computed += time.monotonic() - started
                gevent.sleep(0.02)
            loop.close()
            gevent.get_hub().destroy(destroy_loop=True)

        elsewhere(run).join()
        return told[0]

    for computes in (0.0, 0.02):
        told, computed = told_and_computed(computes)
        assert told == pytest.approx(computed, abs=0.05)
    assert computed > 0.3, "it hardly computed, so this test would prove nothing"


def test_threads_that_wait_let_others_work() -> None:
    """Of two threads at a time both may wait for something long, and what is offloaded meanwhile is done at once."""

    def work(loop: Loop) -> tuple[list[str], bool]:
        woken = threading.Event()
        events: list[object] = []

        def wait() -> None:
            event = loop.event()
            events.append(event)
            event.wait(PATIENCE)
            woken.set()

        waiting = [gevent.spawn(loop.offload, wait) for _ in range(5)]
        gevent.sleep(0.1)
        done = loop.offload(lambda: ["done"])
        before = woken.is_set()
        loop.wake(events)  # type: ignore[arg-type]
        gevent.joinall(waiting)
        return done, before

    assert on_a_loop(work) == (["done"], False)


def test_no_more_threads_work_than_may() -> None:
    """However many have something to do, also when those that waited go on all at once."""

    def work(loop: Loop) -> int:
        working, most, lock = [0], [0], threading.Lock()
        events: list[object] = []

        def busy() -> None:
            with lock:
                working[0] += 1
                most[0] = max(most[0], working[0])
            time.sleep(0.01)
            with lock:
                working[0] -= 1

        def wait_and_work() -> None:
            event = loop.event()
            events.append(event)
            event.wait(PATIENCE)
            busy()

        waiting = [gevent.spawn(loop.offload, wait_and_work) for _ in range(8)]
        gevent.sleep(0.1)
        loop.wake(events)  # type: ignore[arg-type]
        gevent.joinall(waiting + [gevent.spawn(loop.offload, busy) for _ in range(8)])
        return most[0]

    assert on_a_loop(work) == 2
