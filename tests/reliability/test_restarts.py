"""The service is stopped, its workers are replaced, and its model is swapped, over and over while clients ask."""

import shutil
import signal
import time
from contextlib import ExitStack
from pathlib import Path

import pytest

from tests.models import LABELS, copy
from tests.reliability.campaign import Campaign
from tests.reliability.others import Others
from tests.service.conftest import StartService
from tests.service.running import RunningService, metric, start, wait_for, workers
from tests.stack.load import Lost

pytestmark = [pytest.mark.process, pytest.mark.slow, pytest.mark.timing]

OTHER = ("cherry", "grass", "sky")


def _broken(others: Others) -> list[Lost]:
    """Return what got no answer although somebody listened."""
    return [lost for lost in others.lost if lost.status is not None or "ConnectionRefused" not in lost.reason]


@pytest.mark.campaign(
    "SIGTERM to a service of two workers while others ask, each time on connections that are new or kept",
    bar="every accepted request is answered, no connection is reset, the exit code is 0",
)
@pytest.mark.parametrize("per_connection", [1, 20])
def test_stop(campaign: Campaign, shared_models: Path, per_connection: int) -> None:
    """Only who finds the port closed is not answered."""
    broken: list[Lost] = []
    codes: list[int] = []
    answers = 0
    longest = 0.0
    for _ in range(campaign.size(3, 50)):
        running = start({"MODEL_DIR": str(shared_models), "WORKERS": "2", "DRAIN_SECONDS": "0.5"})
        with ExitStack() as stack:
            stack.callback(running.kill)
            running.wait_until_ready()
            with Others(running.url, per_connection=per_connection) as others:
                time.sleep(0.2)
                started = time.monotonic()
                codes.append(running.terminate())
                longest = max(longest, time.monotonic() - started)
            assert others.lost, "nobody asked until the port was closed, so this proves nothing"
        broken += _broken(others)
        answers += len(others.answers)
    campaign.report(stops=len(codes), answers=answers, not_answered=len(broken), longest_stop_s=longest)
    assert broken == []
    assert set(codes) == {0}


@pytest.mark.campaign(
    "SIGHUP, upon which all workers are replaced, while others ask",
    bar="every request is answered, no connection is reset",
)
def test_reload(campaign: Campaign, start_service: StartService) -> None:
    """The old workers answer what they have accepted, and the new ones the rest."""
    running = start_service(WORKERS="2")
    reloads = campaign.size(5, 100)
    with Others(running.url) as others:
        longest = max(_reload(running) for _ in range(reloads))
    campaign.report(
        reloads=reloads,
        **others.figures(),
        longest_reload_s=longest,
    )
    assert others.lost == []


def _reload(running: RunningService) -> float:
    """Send SIGHUP; return after how many seconds there are other workers and all of them have the model."""
    before, started = workers(running), time.monotonic()
    running.process.send_signal(signal.SIGHUP)
    wait_for(lambda: not {*before} & {*workers(running)}, running.log)
    wait_for(lambda: metric(running, "model_workers") == len(before), running.log)
    return time.monotonic() - started


@pytest.mark.campaign(
    "a version is published, and the one before it removed, while others ask",
    bar="every request is answered, each by the version that its answer names",
)
def test_swap(campaign: Campaign, start_service: StartService, models: Path, published: Path) -> None:
    """Two workers take over every version, at different moments."""
    running = start_service(WORKERS="2")
    swaps = campaign.size(5, 100)
    longest = 0.0
    with Others(running.url, per_connection=20) as others:
        for version in range(2, swaps + 2):
            started = time.monotonic()
            copy(published, models, version, _labels(version))
            served = f'model_workers{{model="colours",version="{version}"}} 2.0'
            wait_for(lambda served=served: served in running.get("/metrics").text, running.log)  # type: ignore[misc]
            longest = max(longest, time.monotonic() - started)
            shutil.rmtree(models / "colours" / str(version - 1))
    campaign.report(
        swaps=swaps,
        **others.figures(),
        longest_swap_s=longest,
    )
    assert others.lost == []
    assert [answer for answer in others.answers if answer.label != _labels(answer.version)[0]] == []
    assert {answer.version for answer in others.answers} >= {*range(2, swaps + 1)}


def _labels(version: int) -> tuple[str, ...]:
    """Return the labels that tell a version from the one before."""
    return OTHER if version % 2 == 0 else LABELS
