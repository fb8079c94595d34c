"""Versions that are valid and cost too much: the one before answers all the while, and no worker dies of them.

Real versions, real services, a control group with a limit on memory, and the kernel's signals.
"""

import contextlib
import errno
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest
import requests

from artifact.files import fingerprint
from service.inference.loading import Refused
from service.inference.trials import AGAIN_SECONDS, EngineKind, Trials, Untried
from tests.models import copy, dazzled, large, publish_with, slow
from tests.service.clients import asking
from tests.service.control_group import limited
from tests.service.pictures import plain
from tests.service.running import RunningService, start, wait_for

pytestmark = pytest.mark.process

RED = plain("red")
GIBIBYTE = 1024**3
OTHER = ("cherry", "grass", "sky")
Begin = Callable[..., RunningService]


@pytest.fixture
def begin(models: Path) -> Iterator[Begin]:
    """Starts a service with 1 GiB of memory for all its processes, as the shipped pods have."""
    with ExitStack() as stack:
        join = stack.enter_context(limited(GIBIBYTE))

        def run(**environment: str) -> RunningService:
            settings = {"MODEL_DIR": str(models), "MODEL_POLL_SECONDS": "0.1", "DRAIN_SECONDS": "0", **environment}
            running = start(settings, join)
            stack.callback(running.kill)
            running.wait_until_ready()
            return running

        yield run


def children(process: int) -> list[int]:
    """Return the process ids of the children of ``process``."""
    text = "".join(file.read_text() for file in Path(f"/proc/{process}/task").glob("*/children"))
    return [int(child) for child in text.split()]


def trials_of(running: RunningService) -> list[int]:
    """Return the processes in which a version is tried now; others decode pictures."""
    started = [child for worker in children(running.process.pid) for child in children(worker)]
    return [process for process in started if b"service.inference.trial" in _command(process)]


def _command(process: int) -> bytes:
    try:
        return Path(f"/proc/{process}/cmdline").read_bytes()
    except FileNotFoundError:  # it has ended
        return b""


def refused(running: RunningService, workers: int = 1) -> bool:
    """Say whether a version is refused, by all of so many ``workers``."""
    return running.log().count("version 2 of colours is kept out") == workers


def reason(running: RunningService) -> str:
    """Return why version 2 is refused."""
    [refusal] = running.get("/model").json()["refused"]
    assert refusal["version"] == 2
    return str(refusal["reason"])


def starts(running: RunningService) -> int:
    """Return how many workers were started."""
    [count] = re.findall(r"^darkroom_worker_starts_total (\S+)$", running.get("/metrics").text, re.MULTILINE)
    return int(float(count))


@pytest.mark.slow
@pytest.mark.parametrize("megabytes", [100, 4000])
def test_a_version_that_needs_too_much_memory_costs_nobody_anything(
    begin: Begin, models: Path, published: Path, megabytes: int
) -> None:
    """While it is published no request is lost and no worker ends; it is refused by all, and that is told.

    It needs 100 MB for each picture of a batch, and more than there is for 32; or too much for the first one.
    """
    running = begin(WORKERS="2")
    wait_for(lambda: running.log().count("loaded colours version 1") == 2, running.log)
    before = children(running.process.pid)
    with asking(running, clients=3) as answers:
        publish_with(large(megabytes), published, models)
        wait_for(lambda: refused(running, workers=2), running.log)
        told = answers.count()
        wait_for(lambda: answers.count() > told + 20, running.log)
    assert answers.failures == []
    assert answers.different == {"red"}
    assert children(running.process.pid) == before
    assert starts(running) == 2
    assert re.fullmatch(
        r"it needs more memory than there is: loading it took \d+ MB, of which \d+ were free", reason(running)
    )
    assert 'darkroom_refused_versions{model="colours"} 1.0' in running.get("/metrics").text
    assert running.log().count("trying the version") == 1, "the other worker has to take its word"
    copy(published, models, 3, OTHER)
    wait_for(lambda: '"cherry"' in running.predict(RED).text, running.log)


@pytest.mark.slow
def test_at_the_start_it_costs_one_worker(begin: Begin, models: Path, published: Path) -> None:
    """Where it is there already when the service starts, one worker ends, and the version before is taken by all."""
    publish_with(large(4000), published, models)
    publish_with(large(4000), published, models)
    running = begin(WORKERS="2")
    wait_for(lambda: running.log().count("loaded colours version 1") == 2, running.log)
    assert starts(running) == 3
    assert running.predict(RED).json()["model"]["version"] == 1
    assert running.log().count("this worker ends") == 1
    assert [refusal["version"] for refusal in running.get("/model").json()["refused"]] == [2, 3]


@pytest.mark.slow
def test_a_worker_that_starts_later_does_not_try_again(begin: Begin, models: Path, published: Path) -> None:
    """What is known of a version outlives the worker that tried it."""
    running = begin()
    publish_with(large(4000), published, models)
    wait_for(lambda: refused(running), running.log)
    [worker] = children(running.process.pid)
    os.kill(worker, signal.SIGKILL)
    wait_for(lambda: refused(running, workers=2), running.log)
    wait_for(lambda: running.status("/health/ready") == 200, running.log)
    assert running.predict(RED).json()["model"]["version"] == 1
    assert starts(running) == 2


@pytest.mark.slow
def test_a_version_that_dies_while_it_is_tried(begin: Begin, models: Path, published: Path) -> None:
    """A signal that ends the trial is the reason, and the worker goes on answering."""
    running = begin()
    publish_with(slow(20_000), published, models)
    wait_for(lambda: bool(trials_of(running)), running.log)
    [trial] = trials_of(running)
    assert Path(f"/proc/{trial}/oom_score_adj").read_text().strip() in ("0", "1000")
    wait_for(lambda: Path(f"/proc/{trial}/oom_score_adj").read_text().strip() == "1000", running.log)
    os.kill(trial, signal.SIGSEGV)
    wait_for(lambda: refused(running), running.log)
    assert reason(running) == "it died by signal 11 when it was tried"
    assert running.predict(RED).json()["model"]["version"] == 1
    assert starts(running) == 1


@pytest.mark.slow
def test_a_version_that_takes_too_long(begin: Begin, models: Path, published: Path) -> None:
    """What does not load within MODEL_LOAD_SECONDS is refused, in a running service and at the start of one."""
    running = begin(MODEL_LOAD_SECONDS="3")
    publish_with(slow(20_000), published, models)
    wait_for(lambda: refused(running), running.log)
    assert reason(running) == "it did not load within 3 s"
    assert running.predict(RED).json()["model"]["version"] == 1
    running.kill()
    again = begin(MODEL_LOAD_SECONDS="3")
    assert again.predict(RED).json()["model"]["version"] == 1
    assert reason(again) == "it did not load within 3 s"
    assert starts(again) == 2


@pytest.mark.slow
@pytest.mark.parametrize("dies_again", [True, False])
def test_a_worker_that_dies_while_it_loads(models: Path, published: Path, dies_again: bool) -> None:
    """Once may be chance, so the version is tried; it is refused where that dies as well, and else it is loaded."""
    publish_with(slow(2_000), published, models)
    running = start({"MODEL_DIR": str(models), "MODEL_POLL_SECONDS": "0.1", "DRAIN_SECONDS": "0"})
    try:
        wait_for(lambda: any(map(loads, children(running.process.pid))), running.log)
        os.kill(children(running.process.pid)[0], signal.SIGSEGV)
        wait_for(lambda: bool(trials_of(running)), running.log)
        if dies_again:
            os.kill(trials_of(running)[0], signal.SIGSEGV)
        running.wait_until_ready()
        assert running.predict(RED).json()["model"]["version"] == (1 if dies_again else 2)
        assert starts(running) == 2
    finally:
        running.kill()


def loads(worker: int) -> bool:
    """Say whether ``worker`` loads a version, which it has noted then."""
    for file in Path(f"/proc/{worker}/fd").iterdir():
        with contextlib.suppress(OSError):  # closed meanwhile
            if file.readlink().name == "versions":
                return b'"loading": true' in file.read_bytes()
    return False


@pytest.mark.slow
def test_a_service_that_stops_while_it_tries(models: Path, published: Path) -> None:
    """SIGTERM does not wait for a trial, and a trial does not outlive the worker that waits for it."""
    running = start({"MODEL_DIR": str(models), "MODEL_POLL_SECONDS": "0.1", "DRAIN_SECONDS": "0"})
    try:
        running.wait_until_ready()
        publish_with(slow(20_000), published, models)
        wait_for(lambda: bool(trials_of(running)), running.log)
        [worker], [trial] = children(running.process.pid), trials_of(running)
        os.kill(worker, signal.SIGKILL)
        wait_for(lambda: not Path(f"/proc/{trial}").exists(), running.log)
        wait_for(lambda: bool(trials_of(running)), running.log)
        [trial] = trials_of(running)
        started = time.monotonic()
        assert running.terminate() == 0
        assert time.monotonic() - started < 4
        assert not Path(f"/proc/{trial}").exists()
        assert "kept out" not in running.log()
    finally:
        running.kill()


def test_files_that_are_cut_short_while_they_are_served(begin: Begin, models: Path, root: Path) -> None:
    """What answers is in memory, so that a folder that is damaged in place ends no worker."""
    shutil.rmtree(models)
    shutil.copytree(root / "models", models)
    running = begin()
    before = children(running.process.pid)
    for file in (file for file in models.rglob("*") if file.is_file()):
        os.truncate(file, 0)
    for _ in range(3):
        pictures = [("images", RED)] * 40
        assert requests.post(f"{running.url}/predict/batch", files=pictures, timeout=30).status_code == 200
    wait_for(lambda: bool(running.get("/model").json()["refused"]), running.log)
    assert running.predict(RED).status_code == 200
    assert children(running.process.pid) == before


@pytest.mark.slow
def test_a_version_that_answers_no_numbers(begin: Begin, models: Path, published: Path) -> None:
    """It passes its warm-up, which is black, and answers NaN to bright pictures: 500, until the one before is back."""
    running = begin()
    publish_with(dazzled, published, models)
    wait_for(lambda: running.get("/model").json()["version"] == 2, running.log)
    statuses = []

    def recovered() -> bool:
        answer = running.predict(RED)
        statuses.append(answer.status_code)
        assert "null" not in answer.text
        return answer.ok and answer.json()["model"]["version"] == 1

    wait_for(recovered, running.log)
    assert set(statuses) == {500, 200}
    assert reason(running) == "its engine fails, also after it was loaded anew"
    assert running.status("/health/ready") == 200
    metrics = running.get("/metrics").text
    assert 'darkroom_engine_reloads_total{model="colours",version="2"} 1.0' in metrics
    assert f'darkroom_engine_failures_total{{model="colours",version="2"}} {statuses.count(500)}.0' in metrics
    assert starts(running) == 1


def trials(folder: Path) -> Trials:
    """Return what one of two workers has whose notes are in ``folder``."""
    return Trials(folder / "notes", EngineKind("openvino", "float32", 1), workers=2, seconds=60)


# A worker that dies while it loads the version whose folder is its second argument.
DIES = """
import os, pathlib, sys
from tests.service.inference import test_trials
folder, version = map(pathlib.Path, sys.argv[1:])
with test_trials.trials(folder).loading(version, test_trials.fingerprint(version), None):
    os._exit(1)
"""


def test_a_fault_that_may_pass_is_tried_again(
    tmp_path: Path, models: Path, root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """After two workers have died of a version it is refused; later it is tried by a process, and then loaded."""
    version = models / "colours" / "1"
    (version / "notes").write_text("first")
    mark = fingerprint(version)
    command = [sys.executable, "-c", DIES, str(tmp_path), str(version)]
    for _ in range(2):
        assert subprocess.run(command, cwd=root, check=False).returncode == 1
    with (
        pytest.raises(Refused, match="workers died when they loaded it") as error,
        trials(tmp_path).loading(version, mark, None),
    ):
        pytest.fail("it is refused")
    assert error.value.passing
    assert not trials(tmp_path).know(version, mark)
    now = time.monotonic
    monkeypatch.setattr(time, "monotonic", lambda: now() + AGAIN_SECONDS)
    with trials(tmp_path).loading(version, mark, None):
        pass
    assert trials(tmp_path).know(version, mark)
    (version / "notes").write_text("other")
    assert not trials(tmp_path).know(version, fingerprint(version))


def test_without_a_place_for_notes(tmp_path: Path, models: Path) -> None:
    """Where nothing can be noted, versions are loaded all the same, and tried where another one answers."""
    version = models / "colours" / "1"
    mark = fingerprint(version)
    nowhere = trials(tmp_path / "nowhere")
    for replaced in (None, version):
        with nowhere.loading(version, mark, replaced):
            pass
    (version / "saved_model.pb").unlink()
    with pytest.raises(Refused, match=r"saved_model\.pb is missing"), nowhere.loading(version, mark, version):
        pytest.fail("it is tried")


def test_a_full_disk(tmp_path: Path, models: Path) -> None:
    """The file of notes has its size from the beginning, so that notes never need more space."""
    version = models / "colours" / "1"
    with trials(tmp_path).loading(version, fingerprint(version), None):
        size = (tmp_path / "notes").stat().st_size
    for number in range(300):
        assert not trials(tmp_path).know(models / str(number), ())
    with trials(tmp_path).loading(version, fingerprint(version), None):
        pass
    assert (tmp_path / "notes").stat().st_size == size


@pytest.mark.parametrize(
    "short",
    [
        MemoryError(),
        OSError(errno.ENOMEM, "Cannot allocate memory"),
        RuntimeError("Exception from src/inference/src/dev/plugin.cpp:54:\nResource temporarily unavailable\n\n"),
    ],
)
def test_a_version_that_is_known_to_be_good_is_not_kept_out(tmp_path: Path, models: Path, short: Exception) -> None:
    """Where memory or threads are short when a worker loads it again, it is tried again; another fault is its own."""
    version, worker = models / "colours" / "1", trials(tmp_path)
    found = fingerprint(version)
    with worker.loading(version, found, None):
        pass
    with pytest.raises(Untried), worker.loading(version, found, None):
        raise short
    with worker.loading(version, found, None):
        pass
    with pytest.raises(ValueError, match="odd"), worker.loading(version, found, None):
        raise ValueError("odd")
    with pytest.raises(Refused), worker.loading(version, found, None):
        pass
