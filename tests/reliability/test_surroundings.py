"""Containers that lack what most have: the service works, or says in a line what it lacks."""

import base64
import json
import re
import subprocess
import time
import uuid
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.reliability.campaign import Campaign
from tests.service.pictures import plain
from tests.stack.pods import docker
from tests.stack.service_image import built

pytestmark = [pytest.mark.process, pytest.mark.slow, pytest.mark.containers]

BAR = "it answers, or a line of its log says what it lacks; no traceback, no worker is lost"
_PATIENCE = 60.0  # seconds
_LESS = 64 * 1024 * 1024  # bytes of memory
_FULL = "--shm-size=64k"
_READ_ONLY = "--read-only"
_IN_MEMORY = "--tmpfs=/tmp"

# The options of `docker run`, and what a line says where it may not work.
LACKING: Mapping[str, tuple[tuple[str, ...], str | None]] = {
    "a root that can be written": ((_READ_ONLY, _IN_MEMORY, "--cap-drop=ALL"), None),
    "a name service": (("--dns=192.0.2.1",), None),
    "a network": (("--network=none",), None),
    "a user with a name": (("--user=54321:54321", _READ_ONLY, _IN_MEMORY), None),
    "shared memory": (("--ipc=none", _READ_ONLY, _IN_MEMORY), None),
    "room in shared memory": ((_FULL,), None),
    "room in shared memory and a place to write to": ((_FULL, _READ_ONLY), "space"),
    "a place to write to": (("--ipc=none", _READ_ONLY), "written"),
    "files": (("--ulimit=nofile=128:128",), None),
    "many files": (("--ulimit=nofile=64:64",), "files"),
    "very many files": (("--ulimit=nofile=24:24",), "files"),
}

_ASK = """
import base64, http.client, sys
connection = http.client.HTTPConnection("127.0.0.1", 8000, timeout=20)
for _ in range(20):
    connection.request("POST", "/predict", base64.b64decode(sys.argv[1]), {"Content-Type": "image/png"})
    answer = connection.getresponse()
    told = answer.read().decode()
    if answer.status != 200:
        sys.exit(f"{answer.status}: {told}")
connection.request("GET", "/metrics")
print(connection.getresponse().read().decode())
"""


@pytest.fixture(scope="module")
def image(root: Path, docker_engine: None) -> Iterator[str]:
    """The tag of the service's image."""
    with built(root) as tag:
        yield tag


@contextmanager
def _run(image: str, *options: str) -> Iterator[str]:
    """Run a container for the time of the block; give its name."""
    name = f"darkroom-lacking-{uuid.uuid4().hex[:8]}"
    try:
        docker("run", "--detach", "--name", name, *options, image)
        yield name
    finally:
        subprocess.run(["docker", "rm", "--force", "--volumes", name], capture_output=True, check=False, timeout=60)


def _ask(container: str) -> str | None:
    """Have pictures classified from inside of a container; return its metrics, None where it gives no answer."""
    command = ["docker", "exec", container, "python", "-c", _ASK, base64.b64encode(plain("red")).decode()]
    end = time.monotonic() + _PATIENCE
    while time.monotonic() < end and docker("inspect", "--format={{.State.Running}}", container).strip() == "true":
        asked = subprocess.run(command, capture_output=True, text=True, check=False, timeout=_PATIENCE)
        if asked.returncode == 0:
            return asked.stdout
        time.sleep(1.0)
    return None


def _metric(metrics: str, name: str) -> float:
    return sum(float(value) for value in re.findall(rf"^darkroom_{name}(?:{{.*}})? (\S+)$", metrics, re.MULTILINE))


@pytest.mark.campaign("containers that lack " + ", ".join(LACKING), bar=BAR)
@pytest.mark.parametrize("what", LACKING, ids=lambda what: what.replace(" ", "-"))
def test_lacking(campaign: Campaign, image: str, what: str) -> None:
    """Most of what lacks is not needed."""
    options, word = LACKING[what]
    with _run(image, *options) as container:
        metrics = _ask(container)
        log = docker("logs", container)
    _judge(campaign, metrics, log, word)


@pytest.mark.campaign("a container with 64 MiB less memory than the service takes when it has enough", bar=BAR)
def test_less_memory(campaign: Campaign, image: str) -> None:
    """What it takes is told by its own metric."""
    with _run(image, "--memory=4g") as container:
        metrics = _ask(container)
        assert metrics is not None, docker("logs", container)
    taken = int(_metric(metrics, "memory_bytes"))
    campaign.report(takes_MB=taken / 1e6, has_MB=(taken - _LESS) / 1e6)
    with _run(image, f"--memory={taken - _LESS}", f"--memory-swap={taken - _LESS}") as container:
        metrics = _ask(container)
        log = docker("logs", container)
    _judge(campaign, metrics, log, "memory")


def _message(line: str) -> str:
    """Return what a line of the log says; before the log begins it is text."""
    return str(json.loads(line)["message"]) if line.startswith("{") else line


def _judge(campaign: Campaign, metrics: str | None, log: str, word: str | None) -> None:
    """Find that it works, or else a line in the log with ``word``, where it may not work."""
    lines = [_message(line) for line in log.splitlines() if word and word in line]
    found = "works" if metrics is not None else "says: " + (lines[0] if lines else "nothing of it")
    campaign.report(found=found.replace("|", "/"))
    assert "Traceback" not in log
    if metrics is None:
        assert lines, log[-3000:]
    else:
        assert _metric(metrics, "worker_starts_total") == _metric(metrics, "workers"), log[-3000:]
