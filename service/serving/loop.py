"""The worker's event loop: short requests are greenlets on it, whatever takes long is offloaded to its threads."""

import contextvars
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import NamedTuple, TypeVar

import gevent
from gevent.hub import Waiter
from gevent.lock import Semaphore
from gevent.threadpool import ThreadPool

from machine import check_room_for_thread
from service.inference.errors import QueueFull
from service.inference.runtime import Event, ThreadRuntime

_LATE_SECONDS = 0.1
_SHARE_THAT_IS_FEW = 8  # of the most requests, one part: they are answered within that time
_TELL_SECONDS = 1.0  # between two notes of how busy the loop was
_WAITING_THREADS = 64  # of a lane at most, beside those that work
_LANES = 4  # that may be full and leave threads to the others
_LAST = -2  # libev's priorities: called after all else that is due

Result = TypeVar("Result")


class Snapshot(NamedTuple):
    """What a loop has at one moment."""

    requests: int  # that are answered on it


class Loop(ThreadRuntime):
    """The event loop of the thread that makes it; what the requests of one worker share."""

    def __init__(
        self,
        threads: int,
        max_requests: int,
        tell_busy: Callable[[float], object] = lambda seconds: None,
        each_turn: Callable[[], object] = lambda: None,
    ) -> None:
        """Take how many threads may work at the same time, and how many requests may be on the loop.

        ``tell_busy`` is told now and then for how many more seconds the loop had something to do; ``each_turn`` is
        called before it waits.
        """
        self._hub = gevent.get_hub()
        self._thread = threading.get_ident()
        self._in_lane = threads + _WAITING_THREADS
        self._lanes: dict[str, Semaphore] = {}
        self._pool = ThreadPool(_LANES * self._in_lane, hub=self._hub)
        self._turns = threading.Semaphore(threads)
        self._turn = threading.local()
        self._beside = ThreadPool(1, hub=self._hub)
        self._pool.size, self._beside.size = threads, 1  # now, for memory may be short when they are first needed
        self._max_requests = max_requests
        self._requests = 0
        self._woken: deque[_LoopEvent] = deque()
        self._soon: dict[Callable[[], object], None] = {}
        self._tell_busy, self._each_turn = tell_busy, each_turn
        self._told = self._waits_since = self._polled = time.monotonic()
        self._waited = 0.0  # seconds, since it was told
        self._wait = self._hub.loop.prepare(True, _LAST)  # called before each look at what the sockets have
        self._wait.start(self._note_wait)
        self._poll = self._hub.loop.check()  # called after it
        self._poll.start(self._note_poll)

    def snapshot(self) -> Snapshot:
        """Return what is on the loop now."""
        return Snapshot(self._requests)

    def overloaded(self, models: int = 1) -> bool:
        """Say whether no more requests should be begun, since too many are here or wait for their turn for too long.

        Each of ``models`` may have as many requests here, so that those of one do not keep others from being answered.
        All requests that the kernel had at the last look wait for each other; those at the end are late. Where only few
        are here, they are not what keeps the loop busy: the processor was given to others, as it is by a limit on CPU.
        """
        if self._requests >= self._max_requests * models:
            return True
        few = self._requests < self._max_requests // _SHARE_THAT_IS_FEW
        return not few and time.monotonic() - self._polled > _LATE_SECONDS

    def event(self) -> Event:
        """Return an event that a greenlet or a thread, whichever calls, may wait for."""
        if self._here():
            return _LoopEvent()
        return _TurnEvent(self._turns, self._turn) if getattr(self._turn, "taken", False) else super().event()

    def wake(self, events: Sequence[Event]) -> None:
        """Wake those who wait for ``events``, from whatever thread; the loop is told once for all of them."""
        super().wake(events)
        ours = [event for event in events if isinstance(event, _LoopEvent)]
        if ours:
            self._woken.extend(ours)
            self._hub.loop.run_callback_threadsafe(self._fire)

    def soon(self, work: Callable[[], object]) -> None:
        """Do ``work`` before the loop waits again, and at once where a thread asks for it."""
        if self._here():
            self._soon[work] = None
        else:
            work()

    def alone(self) -> bool:
        """Say whether no other request is on the loop, or about to be."""
        if not self._here():
            return True
        if self._requests == 1:
            self.let_others_go_on()  # requests begin that have arrived
        return self._requests <= 1

    def let_others_go_on(self) -> None:
        """Keep the calling greenlet waiting for one turn of the loop."""
        gevent.sleep(0)

    def offload(self, work: Callable[[], Result], lane: str = "") -> Result:
        """Return ``work()``, run in a thread where the caller is a greenlet; it knows which request it is for.

        Work of one ``lane``, such as that of one model, does not take all threads, however much of it waits.

        Raises:
            QueueFull: there is no memory for another thread.
        """
        if not self._here():
            return work()
        with self._lanes.setdefault(lane, Semaphore(self._in_lane)):
            outcome = _in_thread(self._pool, lambda: self._in_turn(work))
        return _result(outcome)

    def in_turn(self, work: Callable[[], Result]) -> Result:
        """Return ``work()``, run in the calling thread, which is none of the loop's, once it may work."""
        return _result(self._in_turn(work))

    def _in_turn(self, work: Callable[[], Result]) -> "Result | _Raised":
        self._turns.acquire()
        self._turn.taken = True
        try:
            return _outcome(work)
        finally:
            if self._turn.taken:  # and not lost, since there was no memory to wait for it
                self._turns.release()
            self._turn.taken = False

    def offload_beside(self, work: Callable[[], Result]) -> Result:
        """Return ``work()``, run in the thread that is kept for what does not take long; it waits for no long work."""
        if not self._here():
            return work()
        return _result(_in_thread(self._beside, lambda: _outcome(work)))

    @contextmanager
    def request(self) -> Iterator[None]:
        """Count a request on the loop for the time of the block."""
        self._requests += 1
        try:
            yield
        finally:
            self._requests -= 1

    def close(self) -> None:
        """End the threads."""
        self._poll.stop()
        self._wait.stop()
        self._pool.kill()
        self._beside.kill()

    def _fire(self) -> None:
        """Go on in all who were woken.

        In one callback of the loop, since gevent runs only a few milliseconds of callbacks between two looks at the
        sockets: answers would pile up behind requests.
        """
        try:
            while self._woken:
                self._woken.popleft().fire()
        finally:
            if self._woken:  # one failed, as where there is no memory; that is none of the others' business
                self._hub.loop.run_callback(self._fire)

    def _note_wait(self) -> None:
        while self._soon:
            self._soon.popitem()[0]()
        self._each_turn()
        self._waits_since = time.monotonic()

    def _note_poll(self) -> None:
        self._polled = now = time.monotonic()
        self._waited += now - self._waits_since
        if now - self._told > _TELL_SECONDS:
            self._tell_busy(max(0.0, now - self._told - self._waited))
            self._told, self._waited = now, 0.0

    def _here(self) -> bool:
        return threading.get_ident() == self._thread


class _Raised:
    """What offloaded work raised."""

    def __init__(self, error: BaseException) -> None:
        self.error = error


def _in_thread(pool: ThreadPool, work: Callable[[], Result]) -> Result:
    """Return ``work()``, run in a thread of ``pool`` that has the context variables of the calling greenlet."""
    try:
        if len(pool) >= pool.size:  # it needs another one
            check_room_for_thread()
        result: Result = pool.apply(contextvars.copy_context().run, (work,))
    except (MemoryError, RuntimeError) as error:  # of the pool: what the work raises is in its result
        raise QueueFull("There is no memory for another thread at the moment; try again later.") from error
    return result


def _outcome(work: Callable[[], Result]) -> "Result | _Raised":
    """Return ``work()``, or what it raised: gevent would write that into the log, also where a client is told of it."""
    try:
        return work()
    except BaseException as error:  # noqa: BLE001 - it is raised where the work was asked for
        return _Raised(error)


def _result(outcome: "Result | _Raised") -> Result:
    if isinstance(outcome, _Raised):
        try:
            raise outcome.error
        finally:
            del outcome  # the error knows this frame, and all that was in the work's
    return outcome


class _TurnEvent(threading.Event):
    """What a thread waits for that has work offloaded to it; meanwhile it lets another one work."""

    def __init__(self, turns: threading.Semaphore, turn: threading.local) -> None:
        super().__init__()
        self._turns = turns
        self._turn = turn

    def wait(self, timeout: float | None = None) -> bool:
        self._turn.taken = False
        self._turns.release()
        try:
            return super().wait(timeout)
        finally:
            self._turns.acquire()
            self._turn.taken = True


class _LoopEvent:
    """What one greenlet waits for."""

    def __init__(self) -> None:
        self._woken = False
        self._waiter: Waiter[None] | None = None

    def wait(self, timeout: float | None = None) -> bool:
        if not self._woken:
            self._waiter = Waiter()
            with gevent.Timeout(timeout, False):  # type: ignore[arg-type]
                self._waiter.get()
            self._waiter = None
        return self._woken

    def fire(self) -> None:
        """Go on in the greenlet that waits until that waits for something else; called by the loop."""
        self._woken = True
        if self._waiter is not None:
            self._waiter.switch(None)
