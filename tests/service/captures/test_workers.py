"""Kept pictures of a whole service: several workers and replicas share one folder, also when workers are killed."""

import hashlib
import os
import signal
import threading
from pathlib import Path
from typing import Any

import pytest
import requests

from tests.service.conftest import StartService
from tests.service.pictures import plain
from tests.service.running import RunningService, metric, wait_for, workers

pytestmark = pytest.mark.process

TOKEN = "token-of-anna"  # noqa: S105 - of the tests
HEADERS = {"Authorization": f"Bearer {TOKEN}"}
PICTURES = 60


def settings(folder: Path) -> dict[str, str]:
    """Return the settings of a service that keeps all pictures in ``folder``."""
    digest = hashlib.sha256(TOKEN.encode()).hexdigest()
    open_to_all = "probes,metrics,predictions"
    return {
        "CAPTURE_DIR": str(folder),
        "CAPTURE_SHARE": "1",
        "WORKERS": "2",
        "API_TOKENS": f"anna:{digest}",
        "WITHOUT_TOKEN": open_to_all,
    }


def summary(service: RunningService) -> Any:
    """Return what was kept."""
    return requests.get(f"{service.url}/captured/summary", headers=HEADERS, timeout=30).json()


def take(service: RunningService, reviewer: str, count: int) -> set[str]:
    """Take pictures to label."""
    asked = {"reviewer": reviewer, "count": count}
    answer = requests.post(f"{service.url}/captured/take", json=asked, headers=HEADERS, timeout=30)
    assert answer.status_code == 200, answer.text
    return {picture["id"] for picture in answer.json()["pictures"]}


def files(folder: Path) -> set[str]:
    """Return the ids of the pictures that wait."""
    return {path.stem for path in folder.glob("waiting/[!.]*.png")}  # a draft may be left where a worker was killed


@pytest.mark.slow
def test_workers_and_replicas_share_a_folder(start_service: StartService, tmp_path: Path) -> None:
    """What any worker of any replica was sent is kept once, and whoever reviews at any of them gets other pictures."""
    folder = tmp_path / "captured"
    replicas = [start_service(**settings(folder)) for _ in range(2)]
    pictures = [plain(f"rgb({n}, 0, 0)") for n in range(PICTURES)]

    def send(service: RunningService) -> None:
        for picture in pictures:
            assert service.predict(picture).status_code == 200

    run_all(*(threading.Thread(target=send, args=(service,)) for service in replicas for _ in range(2)))
    wanted = {hashlib.sha256(picture).hexdigest() for picture in pictures}
    wait_for(lambda: sum(metric(service, "captures_total") for service in replicas) == 4 * PICTURES, lambda: "")
    assert files(folder) == wanted
    assert [summary(service)["waiting"] for service in replicas] == [PICTURES] * 2
    taken: list[set[str]] = []
    people = [
        threading.Thread(target=lambda place=place: taken.append(take(replicas[place % 2], f"reviewer-{place}", 10)))
        for place in range(6)
    ]
    run_all(*people)
    assert sum(map(len, taken)) == len(set().union(*taken)) == PICTURES


def run_all(*threads: threading.Thread) -> None:
    """Run threads to their end."""
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()


@pytest.mark.slow
def test_killed_workers_leave_no_half_of_a_picture(start_service: StartService, tmp_path: Path) -> None:
    """Index and files agree: every picture of the index is there whole, however often workers were killed."""
    folder = tmp_path / "captured"
    service = start_service(**settings(folder))
    pictures = {hashlib.sha256(picture).hexdigest(): picture for picture in map(numbered, range(300))}
    stop = threading.Event()

    def send() -> None:
        for picture in pictures.values():
            if stop.is_set():
                return
            try:
                service.predict(picture)
            except requests.ConnectionError:  # it was with the worker
                continue

    sender = threading.Thread(target=send)
    sender.start()
    for _ in range(3):
        wait_for(lambda: len(workers(service)) == 2, service.log)
        stop.wait(0.5)
        os.kill(workers(service)[0], signal.SIGKILL)
    stop.set()
    sender.join()
    wait_for(lambda: service.status("/health/ready") == 200, service.log)
    assert service.predict(plain("blue")).status_code == 200
    blue = hashlib.sha256(plain("blue")).hexdigest()
    wait_for(lambda: blue in files(folder), service.log)
    for identity in files(folder) - {blue}:
        assert (folder / "waiting" / f"{identity}.png").read_bytes() == pictures[identity]
    assert summary(service)["waiting"] <= len(files(folder))


def numbered(number: int) -> bytes:
    """Return a picture that no other number has."""
    return plain(f"rgb({number % 256}, {number // 256}, 9)")


def test_a_service_that_nobody_can_review_says_so(start_service: StartService, tmp_path: Path) -> None:
    """In its log, by the settings that are missing."""
    service = start_service(CAPTURE_DIR=str(tmp_path / "captured"))
    assert "nobody can review them: set API_TOKENS or API_TOKENS_FILE" in service.log()
    assert service.status("/review") == 403


def test_the_end_of_a_service_loses_nothing(start_service: StartService, tmp_path: Path) -> None:
    """What was answered before SIGTERM is kept."""
    folder = tmp_path / "captured"
    service = start_service(**settings(folder))
    for number in range(20):
        assert service.predict(numbered(number)).status_code == 200
    assert service.terminate() == 0
    assert len(files(folder)) == 20
