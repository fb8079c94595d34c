"""Runs code on an event loop of its own, as a worker's requests are."""

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

import gevent

from service.serving.loop import Loop

PATIENCE = 30.0  # seconds; machines that run tests are busy

Result = TypeVar("Result")


def on_a_loop(work: Callable[[Loop], Result], threads: int = 2) -> Result:
    """Return ``work(loop)``, called on the event loop of a fresh thread; ``threads`` are for what takes long."""

    def run() -> Result:
        loop = Loop(threads, max_requests=256)
        try:
            return gevent.with_timeout(PATIENCE, work, loop)
        finally:
            loop.close()
            gevent.get_hub().destroy(destroy_loop=True)

    with ThreadPoolExecutor(1) as thread:
        return thread.submit(run).result()
