"""What compare.py measures of our service alone: a large picture, and an overload with what newcomers see of it."""

from __future__ import annotations

import http.client
import re
import threading
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median, quantiles
from typing import Any

import requests

from benchmarks.measuring import JPEG, Body, jpeg, load, memory, photograph, post, times

CROWD = 1024  # connections of an overload

_PHONE = (3024, 4032)  # pixels: 12 megapixels
_PEAK_SECONDS = 5.0
_PROBE_PAUSE = 0.05  # seconds

Figures = dict[str, Any]


def phone(port: int, process: int) -> Figures:
    """Return what a picture of 12 megapixels takes: median milliseconds, those of decoding, and megabytes."""
    body = Body(jpeg(photograph(*_PHONE)), JPEG)
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
    before = _decoding(port)
    seconds = times(lambda: post(connection, body), 20, warm_up=5)
    decoding = [after - earlier for after, earlier in zip(_decoding(port), before, strict=True)]
    idle = memory(process)
    with _Highest(lambda: memory(process)) as peak:  # apart, since reading it holds the process up
        for _ in range(20):
            post(connection, body)
    connection.close()
    return {
        "milliseconds": median(seconds) * 1000,
        "decoding_milliseconds": decoding[0] / decoding[1] * 1000,
        "megabytes_above_idle": (peak.value - idle) / 1e6,
    }


def _decoding(port: int) -> tuple[float, float]:
    """Return the seconds of decoding so far, as the service counts them, and the pictures."""
    text = requests.get(f"http://127.0.0.1:{port}/metrics", timeout=60).text
    seconds, pictures = (
        re.search(rf"^darkroom_decode_seconds_{what}{{.*}} (\S+)$", text, re.MULTILINE) for what in ("sum", "count")
    )
    return float(seconds[1]) if seconds else 0.0, float(pictures[1]) if pictures else 0.0


class _Highest:
    """Watches a value for the time of a block."""

    def __init__(self, read: Callable[[], int]) -> None:
        self.value = 0
        self._read = read
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._watch)

    def __enter__(self) -> _Highest:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()

    def _watch(self) -> None:
        while not self._stop.wait(0.005):
            self.value = max(self.value, self._read())


def overload(port: int, body: Body, seconds: float, folder: Path) -> Figures:
    """Return what is left of the peak while a crowd asks for several times as much, and what newcomers see meanwhile.

    Who is refused asks again at once. Pauses would be kinder, but the timers of wrk take a tenth of the cores.
    """
    url = f"http://127.0.0.1:{port}/predict"
    peak = max(load(url, body, connections, _PEAK_SECONDS, folder).rate for connections in (16, 64))
    probe = _Probe(port, body)
    with probe:
        found = load(url, body, CROWD, seconds, folder)
    return {
        "connections": CROWD,
        "peak": peak,
        "rate": found.rate,
        "refused": found.refused,
        "unanswered": found.late + found.broken,
        "of_peak": found.rate / peak,
        "asked_of_peak": (found.rate + found.refused) / peak,
        "newcomer_milliseconds": probe.told(http.HTTPStatus.OK),
        "refused_newcomer_milliseconds": probe.told(http.HTTPStatus.SERVICE_UNAVAILABLE),
    }


class _Probe:
    """A client that asks now and then while others overload the service."""

    def __init__(self, port: int, body: Body) -> None:
        self._seconds: dict[int, list[float]] = {}
        self._port, self._body = port, body
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._ask)

    def __enter__(self) -> None:
        self._thread.start()

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()

    def told(self, status: int) -> Figures | None:
        """Return how many answers had ``status``, and the median and the p99 of their times in milliseconds."""
        seconds = self._seconds.get(status, [])
        if len(seconds) < 2:
            return None
        return {"count": len(seconds), "median": median(seconds) * 1000, "p99": quantiles(seconds, n=100)[98] * 1000}

    def _ask(self) -> None:
        while not self._stop.wait(_PROBE_PAUSE):
            connection = http.client.HTTPConnection("127.0.0.1", self._port, timeout=60)
            started = time.perf_counter()
            status = post(connection, self._body)
            self._seconds.setdefault(status, []).append(time.perf_counter() - started)
            connection.close()
