"""Many things at once, in order, in bounded memory."""

import threading
import time
from collections.abc import Iterator

import pytest

from client.pipeline import ordered_map


def test_results_come_in_the_order_of_the_items() -> None:
    """A slow item holds back those behind it, and overtakes none."""

    def slow_first(item: int) -> int:
        time.sleep(0.05 if item % 4 == 0 else 0)
        return -item

    assert list(ordered_map(slow_first, range(20), jobs=4)) == [-item for item in range(20)]


def test_no_more_is_taken_than_is_at_work() -> None:
    """Of endless items at most ``jobs`` + 1 are taken beyond those whose results are out."""
    taken = 0

    def endless() -> Iterator[int]:
        nonlocal taken
        while True:
            taken += 1
            yield taken

    results = ordered_map(lambda item: item, endless(), jobs=3)
    for done in range(1, 50):
        assert next(results) == done
        assert taken <= done + 3
    results.close()


def test_all_jobs_work_at_the_same_time() -> None:
    """Three jobs can wait for each other, which fewer could not."""
    barrier = threading.Barrier(3, timeout=30)
    assert len(list(ordered_map(lambda _: barrier.wait(), range(9), jobs=3))) == 9


def test_an_error_comes_out_where_its_result_would_have() -> None:
    """What the function raises is not lost in a thread, and what came before it is there."""
    results = ordered_map(lambda item: 1 // item, [1, 1, 0, 1], jobs=2)
    assert [next(results), next(results)] == [1, 1]
    with pytest.raises(ZeroDivisionError):
        next(results)


def test_closing_waits_for_nothing() -> None:
    """Who stops early is not kept by what has begun, and what has not begun never does."""
    release = threading.Event()
    begun: list[int] = []

    def work(item: int) -> int:
        begun.append(item)
        if item:
            release.wait(30)
        return item

    results = ordered_map(work, range(100), jobs=2)
    assert next(results) == 0
    started = time.monotonic()
    results.close()
    assert time.monotonic() - started < 5
    release.set()
    assert max(begun) <= 3
