"""A worker that dies, stands still or has no memory: only its own requests fail, and soon another has its place."""

import contextlib
import os
import re
import resource
import signal
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple

import pytest
import requests

from tests.reliability.campaign import Campaign, counted
from tests.reliability.others import Others
from tests.service.conftest import StartService
from tests.service.pictures import plain
from tests.service.running import RunningService, metric, wait_for, workers
from tests.stack.load import Lost

pytestmark = [pytest.mark.process, pytest.mark.slow, pytest.mark.timing]

RATE = 50.0  # requests a second, of the others
_LITTLE = 8 * 1024 * 1024  # bytes
_MUCH = (
    ("/predict", "image/bmp", plain("red", "BMP", size=(3000, 3000))),
    ("/predict", "image/png", plain("red", size=(4000, 4000))),
    ("/predict", "image/png", plain("red")),
    ("/predict/batch", "application/octet-stream", bytes(1000 * 32 * 32 * 3)),
)
_MOMENT = 0.05  # seconds until a signal counts
LOSSES = (signal.SIGKILL, signal.SIGSEGV, signal.SIGSTOP)


@pytest.mark.campaign(
    "a worker, one of two or the only one, is killed, as for want of memory, dies in the engine (SIGSEGV) or stands "
    "still (SIGSTOP), while others ask",
    bar="only the requests that it had begun fail, and where it was the only one, some are asked to come again (503); "
    "all workers serve again within 3 s (short: 10 s); metric and log name the worker",
)
@pytest.mark.parametrize("count", [1, 2])
@pytest.mark.parametrize("loss", LOSSES, ids=lambda loss: loss.name)
def test_a_worker_is_lost(campaign: Campaign, start_service: StartService, loss: signal.Signals, count: int) -> None:
    """Another worker takes its place, and what had not begun yet is answered by the others or by that one."""
    running = start_service(WORKERS=str(count), WORKER_TIMEOUT_SECONDS="1")
    wait_for(lambda: metric(running, "model_workers") == count, running.log)
    with Others(running.url, RATE) as others:
        losses = [_lose_a_worker(running, loss) for _ in range(campaign.size(1, 20))]
    longest = max(lost.seconds for lost in losses)
    failed = [lost for lost in others.lost if lost.status != requests.codes.unavailable]
    campaign.report(
        losses=len(losses),
        requests=len(others.lost) + len(others.answers),
        failed=len(failed),
        refused=len(others.lost) - len(failed),
        longest_wait_s=others.percentile(100) / 1000,
        whole_again_after_s=longest,
    )
    assert [lost for lost in failed if not any(_was_begun(lost, at) for at in losses)] == []
    assert count == 1 or len(others.lost) == len(failed)
    assert longest < campaign.size(10.0, 3.0)
    assert metric(running, "worker_starts_total") == count + len(losses)
    assert [lost.worker for lost in losses if not _is_logged(running, lost.worker)] == [], running.log()


class _Loss(NamedTuple):
    """A worker that was lost, when on the monotonic clock, and after how many seconds all workers served again."""

    worker: int
    when: float
    seconds: float


def _lose_a_worker(running: RunningService, loss: signal.Signals) -> _Loss:
    """Send a worker the signal ``loss``, and wait until another serves in its place."""
    before = workers(running)
    started = time.monotonic()
    os.kill(before[0], loss)
    wait_for(lambda: before[0] not in workers(running), running.log)
    wait_for(lambda: len(workers(running)) == len(before), running.log)
    wait_for(lambda: metric(running, "model_workers") == len(before), running.log)
    return _Loss(before[0], started, time.monotonic() - started)


def _was_begun(lost: Lost, loss: _Loss) -> bool:
    """Say whether a request that broke was on its way to the worker that was lost."""
    return lost.status is None and lost.when - lost.seconds < loss.when + _MOMENT and lost.when > loss.when


def _is_logged(running: RunningService, worker: int) -> bool:
    """Say whether the log tells that a worker died, or that it stood still."""
    return bool(re.search(rf"[Ww]orker (\(pid:{worker}\) was sent SIG|{worker} gave no sign of life)", running.log()))


@pytest.mark.campaign(
    "the only worker can get 8 MB more memory (RLIMIT_AS) for some seconds, while large and small requests come",
    bar="what there is no memory for is refused or fails; 3 s (short: 10 s) after it is back, all is answered",
)
def test_a_worker_without_memory(campaign: Campaign, start_service: StartService) -> None:
    """It goes on, or another takes its place."""
    running = start_service(WORKERS="1")
    worker = workers(running)[0]
    before = resource.prlimit(worker, resource.RLIMIT_AS)
    resource.prlimit(worker, resource.RLIMIT_AS, (_address_space(worker) + _LITTLE, before[1]))
    statuses = _ask_for_much(running, campaign.size(3.0, 60.0))
    with contextlib.suppress(ProcessLookupError):  # another has taken its place
        resource.prlimit(worker, resource.RLIMIT_AS, before)
    started = time.monotonic()
    wait_for(lambda: all(_post(running, *each) == requests.codes.ok for each in _MUCH), running.log)
    recovered = time.monotonic() - started
    replaced = metric(running, "worker_starts_total") - 1
    campaign.report(answers=counted(statuses), workers_replaced=replaced, all_answered_after_s=recovered)
    assert statuses.keys() <= {200, 500, 503, 504, None}
    assert statuses[503] > 0
    assert recovered < campaign.size(10.0, 3.0)


def _address_space(process: int) -> int:
    """Return how many bytes of addresses a process has."""
    [kilobytes] = re.findall(r"VmSize:\s+(\d+) kB", Path(f"/proc/{process}/status").read_text())
    return int(kilobytes) * 1024


def _ask_for_much(running: RunningService, seconds: float) -> Counter[int | None]:
    """Send large and small requests, several at once, for so long; return how often each status was answered."""
    end = time.monotonic() + seconds

    def ask(path: str, kind: str, body: bytes) -> Counter[int | None]:
        statuses: Counter[int | None] = Counter()
        while time.monotonic() < end:
            statuses[_post(running, path, kind, body)] += 1
        return statuses

    with ThreadPoolExecutor(len(_MUCH)) as pool:
        return sum((each.result() for each in [pool.submit(ask, *much) for much in _MUCH]), Counter())


def _post(running: RunningService, path: str, kind: str, body: bytes) -> int | None:
    """Return the status of one request; None where the connection broke."""
    try:
        return requests.post(running.url + path, body, headers={"Content-Type": kind}, timeout=30).status_code
    except requests.ConnectionError:
        return None
