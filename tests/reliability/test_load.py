"""More load than can be answered, and as much as can for a long time."""

import shutil
import time
from collections.abc import Iterator
from pathlib import Path
from statistics import median
from typing import NamedTuple

import pytest

from benchmarks.measuring import JPEG, Body, Load, drawings, jpeg, load
from tests.reliability.campaign import Campaign
from tests.reliability.others import Others
from tests.service.running import ROOT, RunningService, metric, start, workers

pytestmark = [pytest.mark.process, pytest.mark.slow, pytest.mark.timing]

SHARE = 0.7  # of the most that is answered, for the long load
_CROWD = 1024  # connections of those that ask for too much
_CLIENTS = 64  # connections of the long load
_PATH = "/predict"


@pytest.fixture
def running() -> Iterator[RunningService]:
    """The service with the bundled model."""
    running = start({"MODEL_DIR": str(ROOT / "models"), "DRAIN_SECONDS": "0", "LOG_LEVEL": "warning"})
    running.wait_until_ready()
    yield running
    running.kill()


@pytest.fixture
def body() -> Body:
    """A small picture."""
    if not shutil.which("wrk"):
        pytest.skip("wrk is not installed")
    return Body(jpeg(drawings(32, 32)[3]), JPEG)


def _peak(running: RunningService, body: Body, folder: Path, seconds: float = 5.0) -> float:
    """Return the most answers a second."""
    return max(load(running.url + _PATH, body, clients, seconds, folder).rate for clients in (16, 64))


@pytest.mark.campaign(
    "1,024 clients ask without a pause for several times of what can be answered",
    bar="there are 90% (short: 50%) of the answers of the peak, no connection breaks, nobody (short: not everybody) "
    "waits for 2 s; 2 s later others wait as before",
)
def test_overload(campaign: Campaign, running: RunningService, body: Body, tmp_path: Path) -> None:
    """What is too much is refused for next to nothing, and leaves nothing behind."""
    peak_seconds = campaign.size(5.0, 15.0)
    peak_before = _peak(running, body, tmp_path, peak_seconds)
    with Others(running.url, 20.0) as quiet:
        time.sleep(2)
    found = load(running.url + _PATH, body, _CROWD, campaign.size(15.0, 600.0), tmp_path)  # it rests for some seconds
    with Others(running.url, 20.0) as after:
        time.sleep(2)
    peak = (peak_before + _peak(running, body, tmp_path, peak_seconds)) / 2  # the machine's speed drifts meanwhile
    campaign.report(
        peak_per_s=peak,
        asked_of_peak=(found.rate + found.refused) / peak,
        answered_of_peak=found.rate / peak,
        longest_ms=found.longest,
        waited_2_s=found.late,
        broken=found.broken,
        p50_before_ms=quiet.percentile(50),
        p50_after_ms=after.percentile(50),
        refused_after=len(after.lost),
    )
    assert found.rate > campaign.size(0.5, 0.9) * peak
    assert found.broken == 0
    assert found.late <= campaign.size(_CROWD, 0)
    assert after.lost == []
    assert after.percentile(50) < campaign.size(5.0, 1.5) * quiet.percentile(50)
    assert metric(running, "worker_starts_total") == len(workers(running))


class Held(NamedTuple):
    """What the service holds at one moment, with all its processes."""

    memory: float  # bytes
    files: int
    threads: int


@pytest.mark.campaign(
    "70% of what can be answered, for an hour (short: a minute)",
    bar="after the first sixth of the time, memory grows by at most 2% (short: 10%), files and threads not at all; the "
    "p99 of the last sixth is at most 1.5 times (short: 5 times) that of the second one",
)
def test_long_load(campaign: Campaign, running: RunningService, body: Body, tmp_path: Path) -> None:
    """Nothing piles up."""
    pause = _CLIENTS / (SHARE * _peak(running, body, tmp_path))
    found: list[Load] = []
    held: list[Held] = []
    for _ in range(6):
        for _ in range(campaign.size(1, 10)):
            found.append(load(running.url + _PATH, body, _CLIENTS, campaign.size(8.0, 58.0), tmp_path, pause=pause))
            held.append(_held(running))
    part = len(found) // 6
    early, late = found[part : 2 * part], found[-part:]
    before, after = held[part - 1], held[-1]
    campaign.report(
        rate_per_s=median(each.rate for each in found),
        refused_per_s=sum(each.refused for each in found) / len(found),
        memory_before_MB=before.memory / 1e6,
        memory_after_MB=after.memory / 1e6,
        files=f"{before.files} and {after.files}",
        threads=f"{before.threads} and {after.threads}",
        p99_early_ms=median(each.p99 for each in early),
        p99_late_ms=median(each.p99 for each in late),
    )
    assert sum(each.late + each.broken for each in found) == 0
    assert after.memory < campaign.size(1.1, 1.02) * before.memory
    assert after.files <= before.files
    assert after.threads <= before.threads + campaign.size(2, 0)  # its pools fill in the first minutes
    assert median(each.p99 for each in late) < campaign.size(5.0, 1.5) * median(each.p99 for each in early)
    assert metric(running, "worker_starts_total") == len(workers(running))


def _held(running: RunningService) -> Held:
    """Return what the service holds, a moment after it was asked for the last time."""
    processes = [Path(f"/proc/{process}") for process in (running.process.pid, *workers(running))]
    count = {what: sum(len(list((each / what).iterdir())) for each in processes) for what in ("fd", "task")}
    return Held(metric(running, "memory_bytes"), count["fd"], count["task"])
