"""What the service takes, from /proc: processor time that only grows, and memory in which shared pages count once."""

import mmap
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from prometheus_client import CollectorRegistry, generate_latest

from service.observe.resources import Limits, Resources, usage
from service.settings import Settings
from tests.service.running import wait_for

MEBIBYTE = 1024 * 1024

pytestmark = [pytest.mark.process, pytest.mark.skipif(sys.platform != "linux", reason="there is no /proc")]

# Takes 64 MiB, shares them with two children and two of theirs that only read them, and on demand keeps a child busy
# and reaps it.
PARENT = """
import mmap, os, sys, time
shared = mmap.mmap(-1, 64 * 1024 * 1024)
shared.write(b"x" * len(shared))
for _ in range(2):
    if os.fork() == 0:
        os.fork()
        sum(shared[at] for at in range(0, len(shared), 4096))
        time.sleep(600)
print("ready", flush=True)
sys.stdin.readline()
child = os.fork()
if child == 0:
    until = time.process_time() + 0.5
    while time.process_time() < until:
        pass
    os._exit(0)
os.waitpid(child, 0)
print("reaped", flush=True)
sys.stdin.readline()
"""


@pytest.fixture
def parent() -> Iterator[subprocess.Popen[str]]:
    """A process with two children and two grandchildren that share 64 MiB with it."""
    with subprocess.Popen(
        [sys.executable, "-c", PARENT],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        start_new_session=True,
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
        try:
            yield process
        finally:
            os.killpg(process.pid, 9)


def test_shared_memory_counts_once(parent: subprocess.Popen[str]) -> None:
    """Five processes that share 64 MiB take these once, and each its own memory besides."""
    wait_for(lambda: _resident(parent.pid) > 5 * 64 * MEBIBYTE, lambda: str(_resident(parent.pid)))
    assert 64 * MEBIBYTE < usage(parent.pid).memory < 2 * 64 * MEBIBYTE


def test_time_of_ended_children_stays(parent: subprocess.Popen[str]) -> None:
    """What a child computed is counted while it runs and after it has ended: the counter never goes down."""
    assert parent.stdin is not None
    assert parent.stdout is not None
    before = usage(parent.pid).cpu_seconds
    parent.stdin.write("\n")
    parent.stdin.flush()
    seen = [before]
    while seen[-1] < before + 0.45:
        seen.append(usage(parent.pid).cpu_seconds)
        time.sleep(0.02)
    assert parent.stdout.readline() == "reaped\n"
    seen.append(usage(parent.pid).cpu_seconds)
    assert seen == sorted(seen)
    assert 0.45 < seen[-1] - before < 1


def test_what_cannot_be_read_is_not_told() -> None:
    """Where the processes cannot be looked at, the limits are told all the same, and no wrong figure."""
    registry = CollectorRegistry()
    registry.register(Resources(Limits.of(Settings(workers=3, queue_length=10, request_deadline=2.5), 7.0), 2**22 + 1))
    told = generate_latest(registry).decode()
    for line in ("workers 3.0", "queue_limit_images 30.0", "request_deadline_seconds 2.5", "start_time_seconds 7.0"):
        assert f"\ndarkroom_{line}\n" in told
    assert "darkroom_memory_limit_bytes" in told
    assert "darkroom_memory_bytes" not in told
    assert "darkroom_cpu_seconds" not in told


def _resident(master: int) -> int:
    """Return the bytes of memory of a process and its descendants, shared pages counted in each of them."""
    children = Path(f"/proc/{master}/task/{master}/children").read_text().split()
    own = int(Path(f"/proc/{master}/statm").read_text().split()[1]) * mmap.PAGESIZE
    return own + sum(_resident(int(child)) for child in children)
