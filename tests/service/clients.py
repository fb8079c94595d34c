"""Clients that ask a running service without a pause while a test does something to it."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial

import requests

from tests.meanwhile import meanwhile
from tests.service.pictures import plain
from tests.service.running import RunningService

REFUSED = "refused"  # the failure of a client that finds the port closed


@dataclass(frozen=True)
class Answers:
    """What clients got so far: ``labels`` by client, in order, and in ``failures`` what was said in place of one."""

    labels: list[list[str]]
    failures: list[str]

    def count(self, label: str | None = None) -> int:
        """Return how many answers there are, or how many have this ``label``."""
        return sum(len(labels) if label is None else labels.count(label) for labels in self.labels)

    @property
    def different(self) -> set[str]:
        """The labels that were answered."""
        return {label for labels in self.labels for label in labels}


@contextmanager
def asking(running: RunningService, *paths: str, clients: int = 1, keep_alive: bool = True) -> Iterator[Answers]:
    """Let so many ``clients`` for each of ``paths``, or for ``/predict``, ask for a red picture until the block ends.

    A client asks one request after the other, each on a new connection unless with ``keep_alive``. Where the port is
    closed it leaves, as a balancer would go elsewhere.
    """
    addresses = [running.url + path for path in paths or ("/predict",) for _ in range(clients)]
    answers = Answers([[] for _ in addresses], [])
    with meanwhile(
        *(
            partial(_ask, address, labels, answers.failures, keep_alive)
            for address, labels in zip(addresses, answers.labels, strict=True)
        )
    ):
        yield answers


def _ask(address: str, labels: list[str], failures: list[str], keep_alive: bool, stop: threading.Event) -> None:
    headers = {"Content-Type": "image/png"} | ({} if keep_alive else {"Connection": "close"})
    picture = plain("red")
    with requests.Session() as session:
        while not stop.is_set():
            try:
                response = session.post(address, data=picture, headers=headers, timeout=30)
            except requests.RequestException as error:
                if REFUSED in str(error):
                    failures.append(REFUSED)
                    return
                failures.append(str(error))
                continue
            if response.ok:
                labels.append(response.json()["predictions"][0]["label"])
            else:
                failures.append(response.text)
