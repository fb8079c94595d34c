"""Clients that ask a service at a steady rate, and note who answered what."""

import http.client
import itertools
import json
import threading
import time
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

REQUESTS_PER_SECOND = 200.0
_CLIENTS = 32
_REQUESTS_PER_CONNECTION = 20  # then a new one: so new replicas get their share, as from clients that come and go
_PATIENCE = 30.0  # seconds for an answer
_RETRY_SECONDS = 1.0  # before a request is sent again, by when those in between know what has gone


@dataclass(frozen=True)
class Answer:
    """What one request got; ``seconds`` counts from when it was due, so that being late is not forgotten.

    ``when`` it was there is told by the monotonic clock.
    """

    when: float
    version: int
    label: str
    seconds: float
    retried: bool


@dataclass(frozen=True)
class Lost:
    """A request that got no prediction: another status, or None where the connection broke, and what was said.

    ``when`` and ``seconds`` are as in an answer.
    """

    when: float
    seconds: float
    status: int | None
    reason: str


class Load:
    """Open-loop load: request n is due n / rate seconds after the start, however long the others take.

    It is a context manager. Where all clients wait for answers, requests start late and the rate is lower; none is
    left out. With ``retry``, a client does what it may with an idempotent request whose connection broke before the
    answer: after a second it asks once more, on another connection.
    """

    def __init__(
        self,
        url: str,
        picture: bytes,
        *,
        rate: float = REQUESTS_PER_SECOND,
        clients: int = _CLIENTS,
        per_connection: int = _REQUESTS_PER_CONNECTION,
        retry: bool = False,
    ) -> None:
        """Take the address of the service, the body to post to ``/predict``, and the requests a second.

        A client makes a new connection after so many requests ``per_connection``.
        """
        address = urlsplit(url)
        self._host, self._port = str(address.hostname), address.port
        self._picture = picture
        self._rate = rate
        self._per_connection = per_connection
        self._retry = retry
        self._numbers = itertools.count()
        self._stopping = threading.Event()
        self._threads = [threading.Thread(target=self._ask_in_turn) for _ in range(clients)]
        self._started = self._ended = 0.0
        self.answers: list[Answer] = []
        self.lost: list[Lost] = []

    def __enter__(self) -> "Load":
        """Start to ask, and return when the first answers are there."""
        self._started = time.monotonic()
        for thread in self._threads:
            thread.start()
        self.wait_for_answers(50)
        return self

    def __exit__(self, *_: object) -> None:
        """Stop asking and wait for the last answers."""
        self._stopping.set()
        for thread in self._threads:
            thread.join()
        self._ended = time.monotonic()

    def wait_for_answers(self, count: int) -> None:
        """Wait until there are ``count`` more answers."""
        wanted = len(self.answers) + count
        deadline = time.monotonic() + _PATIENCE + count
        while len(self.answers) < wanted and time.monotonic() < deadline:
            time.sleep(0.05)

    def report(self) -> str:
        """Return what happened, in one line."""
        seconds = sorted(answer.seconds for answer in self.answers) or [0.0]
        rate = len(self.answers) / (self._ended - self._started)
        retried = sum(answer.retried for answer in self.answers)
        return (
            f"{len(self.answers)} answers, {rate:.0f}/s of {self._rate:.0f}/s wanted, {len(self.lost)} lost, "
            f"{retried} asked twice; median {1000 * seconds[len(seconds) // 2]:.1f} ms, "
            f"p99 {1000 * seconds[len(seconds) * 99 // 100]:.0f} ms, longest {1000 * seconds[-1]:.0f} ms"
        )

    def _ask_in_turn(self) -> None:
        connection = http.client.HTTPConnection(self._host, self._port, timeout=_PATIENCE)
        for used in itertools.count(1):
            due = self._started + next(self._numbers) / self._rate
            if self._stopping.wait(max(0.0, due - time.monotonic())):
                break
            self._ask(connection, due)
            if used % self._per_connection == 0:
                connection.close()
        connection.close()

    def _ask(self, connection: http.client.HTTPConnection, due: float) -> None:
        for left in (1, 0) if self._retry else (0,):
            try:
                status, answer = self._post(connection)
            except (OSError, http.client.HTTPException) as error:
                connection.close()
                if left:
                    time.sleep(_RETRY_SECONDS)
                else:
                    self._lose(due, None, repr(error))
                continue
            if status == http.client.OK:
                best = answer["predictions"][0]["label"]
                again, now = self._retry and not left, time.monotonic()
                self.answers.append(Answer(now, answer["model"]["version"], best, now - due, again))
            else:
                self._lose(due, status, str(answer))
            return

    def _lose(self, due: float, status: int | None, reason: str) -> None:
        now = time.monotonic()
        self.lost.append(Lost(now, now - due, status, reason))

    def _post(self, connection: http.client.HTTPConnection) -> tuple[int, Any]:
        connection.request("POST", "/predict", self._picture, {"Content-Type": "image/png"})
        response = connection.getresponse()
        return response.status, json.loads(response.read())
