"""A worker that dies, stands still or has no memory: only its own requests fail, and the service is whole again soon."""

import os
import re
import resource
import signal
import time
from typing import NamedTuple

import pytest

from tests.reliability.campaign import Campaign
from tests.reliability.others import Others
from tests.service.conftest import StartService
from tests.service.pictures import plain
from tests.service.running import RunningService, metric, wait_for, workers
from tests.stack.load import Lost

pytestmark = [pytest.mark.process, pytest.mark.slow, pytest.mark.timing]

RATE = 50.0  # requests a second, of the others
_MOMENT = 0.05  # seconds until a signal counts
LOSSES = (signal.SIGKILL, signal.SIGSEGV, signal.SIGSTOP)


@pytest.mark.campaign(
    "a worker, one of two or the only one, is killed, as for want of memory, or dies in the engine (SIGSEGV), or stands "
    "still (SIGSTOP), while others ask",
    bar="only the requests that it had begun fail; all workers serve again within 3 s (short: 10 s); metric and log name "
    "the worker",
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
    campaign.report(
        losses=len(losses),
        failed_requests=len(others.lost),
        of=len(others.lost) + len(others.answers),
        longest_wait_s=others.percentile(100) / 1000,
        whole_again_after_s=longest,
    )
    assert [lost for lost in others.lost if not any(_was_begun(lost, at) for at in losses)] == []
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
    "a worker can get no more memory (RLIMIT_AS) for some seconds, while large pictures are sent",
    bar="no 500, no worker is lost or it is replaced, and afterwards all are answered within 3 s (10 s)",
)
def test_a_worker_without_memory(campaign: Campaign, start_service: StartService) -> None:
    """What there is no memory for gets a 503."""
