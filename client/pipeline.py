"""Many things at once, in order, and never more of them in memory than are at work."""

from collections import deque
from collections.abc import Callable, Generator, Iterable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

In = TypeVar("In")
Out = TypeVar("Out")


def ordered_map(function: Callable[[In], Out], items: Iterable[In], jobs: int) -> Generator[Out, None, None]:
    """Yield ``function(item)`` for each of ``items``, in their order, computed by ``jobs`` threads.

    At most ``jobs`` + 1 items are taken from ``items`` and not yielded yet. What ``function`` raises is raised here.
    When the iterator is closed early, what has not begun is dropped, and what has begun is not waited for.
    """
    pool = ThreadPoolExecutor(jobs, thread_name_prefix="darkroom")
    pending: deque[Future[Out]] = deque()
    try:
        for item in items:
            pending.append(pool.submit(function, item))
            if len(pending) > jobs:
                yield pending.popleft().result()
        while pending:
            yield pending.popleft().result()
    finally:
        pool.shutdown(wait=False, cancel_futures=True)
