"""What goes on in other threads while a test does something else."""

import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager


@contextmanager
def meanwhile(*tasks: Callable[[threading.Event], object]) -> Iterator[None]:
    """Run each of ``tasks`` in a thread of its own; the event that it gets is set when the block ends.

    What a task raises is raised at the end of the block, unless that has failed itself.
    """
    stop = threading.Event()
    with ThreadPoolExecutor(len(tasks)) as threads:
        running = [threads.submit(task, stop) for task in tasks]
        try:
            yield
        finally:
            stop.set()
    for each in running:
        each.result()
