"""The other clients of a service, which a campaign may not harm: what they get, and how long they wait for it.

They ask in a process of their own, so that what the campaign does in the tests' process delays nobody.
``python -m tests.reliability.others URL RATE PER_CONNECTION`` asks until its stdin is closed, and then prints what it
got, as JSON.
"""

import dataclasses
import json
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Sequence
from typing import NamedTuple

import requests

from tests.reliability.campaign import Figure
from tests.service.pictures import plain
from tests.service.running import ROOT
from tests.stack.load import Answer, Load, Lost

PICTURE = plain("red")
_PROBES = ("/health/live", "/health/ready")
_PROBE_SECONDS = 0.25
_PATIENCE = 30.0  # seconds
_CLIENTS = 64


class Probe(NamedTuple):
    """The status of one probe, None where nobody answered, when on the monotonic clock, and how long it took."""

    when: float
    path: str
    status: int | None
    seconds: float


class Others:
    """Clients that ask for one small picture after the other, ``rate`` times a second, and probes, four a second.

    With one request ``per_connection``, what breaks while it waits is lost, and nothing else is.

    It is a context manager: ``answers``, ``lost`` and ``probes`` are there when it has been left.
    """

    def __init__(self, url: str, rate: float = 50.0, *, per_connection: int = 1) -> None:
        """Take the address of the service and the requests a second."""
        self._command = [sys.executable, "-m", "tests.reliability.others", url, str(rate), str(per_connection)]
        self._process: subprocess.Popen[str] | None = None
        self.answers: list[Answer] = []
        self.lost: list[Lost] = []
        self.probes: list[Probe] = []

    def __enter__(self) -> "Others":
        """Start to ask; return when there are answers."""
        pipe = subprocess.PIPE
        self._process = subprocess.Popen(self._command, cwd=ROOT, stdin=pipe, stdout=pipe, text=True)
        assert self._process.stdout is not None
        assert self._process.stdout.readline() == "asking\n"
        return self

    def __exit__(self, *_: object) -> None:
        """Stop asking, and take what was noted."""
        assert self._process is not None
        printed, _stderr = self._process.communicate(timeout=2 * _PATIENCE)
        assert self._process.returncode == 0
        noted = json.loads(printed)
        self.answers = [Answer(*answer) for answer in noted["answers"]]
        self.lost = [Lost(*lost) for lost in noted["lost"]]
        self.probes = [Probe(*probe) for probe in noted["probes"]]

    def percentile(self, percent: float, since: float = 0.0, until: float = float("inf")) -> float:
        """Return how many milliseconds so many percent of the answers took at most, of those between two moments."""
        return percentile([answer.seconds for answer in self.answers if since <= answer.when < until], percent)

    def figures(self) -> dict[str, Figure]:
        """Return what they got, for a campaign's report."""
        return {"answers": len(self.answers), "not_answered": len(self.lost), "p99_ms": self.percentile(99)}

    def statuses(self, since: float = 0.0) -> Counter[int | None]:
        """Return how often each status was answered, to predictions, from a moment on; None is a broken connection."""
        statuses = Counter(lost.status for lost in self.lost if lost.when >= since)
        return statuses + Counter({200: sum(answer.when >= since for answer in self.answers)})

    def failed_probes(self, path: str = "/health/live") -> list[Probe]:
        """Return the probes of ``path`` that were not answered with 200."""
        return [probe for probe in self.probes if probe.path == path and probe.status != requests.codes.ok]


def percentile(seconds: Sequence[float], percent: float) -> float:
    """Return the value in milliseconds that ``percent`` of ``seconds`` do not exceed; infinite where there are none."""
    ordered = sorted(seconds)
    return 1000 * ordered[min(len(ordered) - 1, int(len(ordered) * percent / 100))] if ordered else float("inf")


def _probe_until(stopping: threading.Event, url: str, probes: list[Probe]) -> None:
    number = 0
    while not stopping.wait(_PROBE_SECONDS):
        path = _PROBES[number % len(_PROBES)]
        number += 1
        started = time.monotonic()
        try:
            status = requests.get(url + path, timeout=_PATIENCE).status_code
        except requests.RequestException:
            status = None
        now = time.monotonic()
        probes.append(Probe(now, path, status, now - started))


def _ask(url: str, rate: float, per_connection: int) -> None:
    stopping = threading.Event()
    probes: list[Probe] = []
    prober = threading.Thread(target=_probe_until, args=(stopping, url, probes))
    prober.start()
    with Load(url, PICTURE, rate=rate, clients=_CLIENTS, per_connection=per_connection) as load:
        print("asking", flush=True)
        sys.stdin.read()
    stopping.set()
    prober.join()
    answers, lost = map(dataclasses.astuple, load.answers), map(dataclasses.astuple, load.lost)
    print(json.dumps({"answers": list(answers), "lost": list(lost), "probes": probes}))


if __name__ == "__main__":
    _ask(sys.argv[1], float(sys.argv[2]), int(sys.argv[3]))
