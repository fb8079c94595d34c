"""Threads last where memory is short for a moment, and one that cannot be started is told and not waited for."""

import logging
import subprocess
import sys
import threading

import pytest

from machine import lasting_thread, start_thread, threads

# More than a mapping of the test's own, less than a thread needs.
WITHOUT_MEMORY = """
import re, resource, threading
from pathlib import Path
from machine import start_thread
[kilobytes] = re.findall(r"VmSize:\\s+(\\d+) kB", Path("/proc/self/status").read_text())
_, hard = resource.getrlimit(resource.RLIMIT_AS)
resource.setrlimit(resource.RLIMIT_AS, (int(kilobytes) * 1024 + 1024 * 1024, hard))
try:
    start_thread(threading.Thread(target=print, args=("started",)))
except MemoryError:
    print("told")
resource.setrlimit(resource.RLIMIT_AS, (hard, hard))
start_thread(threading.Thread(target=print, args=("started",)))
"""


@pytest.mark.parametrize("error", [MemoryError(), RuntimeError("can't start new thread"), KeyError("of any kind")])
def test_a_thread_goes_on_where_its_work_fails(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, error: Exception
) -> None:
    """It begins again after a moment, in the same thread, tells it in a line, and ends where the work does."""
    monkeypatch.setattr(threads, "_PAUSE_SECONDS", 0.01)
    done: list[int] = []

    def work() -> None:
        done.append(threading.get_ident())
        if len(done) < 3:
            raise error

    with caplog.at_level(logging.ERROR):
        thread = lasting_thread(work, "worker")
        start_thread(thread)
        thread.join(10)
    assert not thread.is_alive()
    assert done == 3 * [done[0]]
    assert len(caplog.records) == 2
    assert "'worker' failed and goes on" in caplog.records[0].getMessage()
    assert bool(caplog.records[0].exc_info) == (not isinstance(error, MemoryError))


def test_a_thread_goes_on_where_its_failure_cannot_be_told(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where there is no memory to log either."""
    monkeypatch.setattr(threads, "_PAUSE_SECONDS", 0.01)
    done: list[int] = []

    def fail(*_: object, **__: object) -> None:
        raise MemoryError

    def work() -> None:
        done.append(1)
        if len(done) < 3:
            fail()

    monkeypatch.setattr(threads.log, "error", fail)
    thread = lasting_thread(work, "worker")
    start_thread(thread)
    thread.join(10)
    assert len(done) == 3


def test_a_thread_that_cannot_be_started_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    """Also where there are too many, it is an error as of memory."""

    def fail(_: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    monkeypatch.setattr(threading.Thread, "start", fail)
    with pytest.raises(MemoryError, match="can't start new thread"):
        start_thread(threading.Thread())


@pytest.mark.skipif(sys.platform != "linux", reason="how much memory a process has is told by /proc")
def test_without_memory_nobody_waits_for_a_thread() -> None:
    """A real process without memory goes on; Python's own start never comes back from a thread that dies at once."""
    ended = subprocess.run([sys.executable, "-c", WITHOUT_MEMORY], capture_output=True, text=True, timeout=30)
    assert (ended.stdout.split(), ended.stderr) == (["told", "started"], "")
