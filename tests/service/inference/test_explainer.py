"""Who explains waits for a turn; the rest of it is proven by its routes, in tests/service/protocols/test_explain.py."""

import threading
import time

import pytest

from service.inference.errors import DeadlineExceeded
from service.inference.explainer import _Turns
from service.inference.runtime import Event, ThreadRuntime


class Forgetful(threading.Event):
    """An event that there is no memory to wait for, before or after it comes."""

    def __init__(self, *, comes: bool) -> None:
        super().__init__()
        self._comes = comes

    def wait(self, timeout: float | None = None) -> bool:
        """Wait until it comes, or not at all, and fail."""
        if self._comes:
            super().wait(timeout)
        raise MemoryError


class Short(ThreadRuntime):
    """A runtime whose first event is such a one."""

    def __init__(self, *, comes: bool) -> None:
        self._first: list[Event] = [Forgetful(comes=comes)]

    def event(self) -> Event:
        """Return the event to wait for."""
        return self._first.pop() if self._first else super().event()


@pytest.mark.parametrize("comes", [False, True])
def test_no_memory_to_wait_for_a_turn_costs_no_later_one(comes: bool) -> None:
    """A turn that came to nobody goes on to the next one, and who waits no more is given none."""
    turns = _Turns(time.monotonic, Short(comes=comes))
    working, free = threading.Event(), threading.Event()

    def work() -> None:
        with turns.take(time.monotonic() + 10):
            working.set()
            free.wait(10)

    worker = threading.Thread(target=work)
    worker.start()
    assert working.wait(10)
    if comes:
        threading.Timer(0.05, free.set).start()
    with pytest.raises(MemoryError), turns.take(time.monotonic() + 10):
        pytest.fail("it has no turn")
    free.set()
    worker.join(10)
    with turns.take(time.monotonic() + 10), pytest.raises(DeadlineExceeded), turns.take(time.monotonic() + 0.01):
        pytest.fail("there is one turn")
