"""The master of the workers outlives a moment in which no process can be started."""

import errno
import os
from pathlib import Path

import pytest

from service.serving.server import DrainFlag, DrainingArbiter, KillCount, Server
from service.settings import Settings


@pytest.mark.parametrize("error", [OSError(errno.EAGAIN, "Resource temporarily unavailable"), MemoryError()])
def test_a_worker_that_cannot_be_started_ends_no_service(
    tmp_path: Path, models: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, error: Exception
) -> None:
    """It is told in a line, and the next look tries it again; gunicorn's own would stop all workers."""

    def fail() -> int:
        raise error

    server = Server(Settings(model_dir=models, workers=2), tmp_path)
    arbiter = DrainingArbiter(server, DrainFlag(), KillCount(), drain_seconds=0, patience=10)
    arbiter.pid = os.getpid()
    monkeypatch.setattr(os, "fork", fail)
    arbiter.manage_workers()
    assert arbiter.WORKERS == {}
    assert [record.exc_info for record in caplog.records] == [None, None]
    assert "no worker can be started, which is tried again" in caplog.text
