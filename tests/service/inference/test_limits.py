"""How many pixels and how much memory decoding may take."""

import threading
import time

import pytest

from service.inference.errors import DeadlineExceeded, ImageTooLarge
from service.inference.limits import DecodingMemory, check_pixels
from service.inference.runtime import ThreadRuntime


def test_pixels() -> None:
    """A picture may have just as many as are allowed."""
    check_pixels(10, 10, 100)
    with pytest.raises(ImageTooLarge, match="101 x 1 = 101 pixels; at most 100"):
        check_pixels(101, 1, 100)


@pytest.mark.parametrize("size", [(100_001, 1), (1, 100_001)])
def test_sides(size: tuple[int, int]) -> None:
    """No side may be so long that its rows cost more than its pixels."""
    check_pixels(100_000, 1, 50_000_000)
    with pytest.raises(ImageTooLarge, match="at most 100,000 a side"):
        check_pixels(*size, 50_000_000)


def test_what_never_fits_is_refused_at_once() -> None:
    """The message says what it would take and what there is."""
    memory = DecodingMemory(10_000_000, ThreadRuntime())
    with pytest.raises(ImageTooLarge, match="about 11 MB of memory, and there are 10 MB"), memory.take(11_000_000, 0):
        pass


def test_others_wait_until_there_is_room() -> None:
    """Together nobody holds more than there is; who waits goes on as soon as there is room, or ends at the deadline."""
    memory, begun = DecodingMemory(10, ThreadRuntime()), threading.Event()

    def hold() -> None:
        with memory.take(6, time.monotonic() + 10):
            begun.set()
            time.sleep(0.3)

    holder = threading.Thread(target=hold)
    holder.start()
    begun.wait(10)
    with memory.take(4, time.monotonic()):
        pass
    with pytest.raises(DeadlineExceeded), memory.take(5, time.monotonic() + 0.02):
        pass
    with memory.take(10, time.monotonic() + 10):
        pass
    holder.join()
