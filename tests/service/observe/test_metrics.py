"""The metrics of several processes: the space of their files is taken before it is used."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = [pytest.mark.process, pytest.mark.skipif(sys.platform != "linux", reason="files are as on Linux")]

# Counts under {labels} paths, with files of {limit} bytes at most; prints what is told of all processes.
COUNTING = """
import resource
from prometheus_client import CollectorRegistry
from service.observe.metrics import Metrics
resource.setrlimit(resource.RLIMIT_FSIZE, ({limit}, resource.RLIM_INFINITY))
metrics = Metrics(CollectorRegistry())
for number in range({labels}):
    metrics.requests.labels(f"/{{number}}", "GET", "200").inc()
    metrics.write()
print(metrics.render().decode())
"""


def count(folder: Path, labels: int, limit: int) -> tuple[str, str]:
    """Return what a process prints and logs that counts in ``folder``, and that is not killed by it."""
    done = subprocess.run(
        [sys.executable, "-c", COUNTING.format(labels=labels, limit=limit)],
        env={**os.environ, "PROMETHEUS_MULTIPROC_DIR": str(folder)},
        capture_output=True,
        text=True,
        check=True,
    )
    return done.stdout, done.stderr


def test_files_have_their_space(tmp_path: Path) -> None:
    """None of the files has a hole that a full file system could not fill, also those that grew."""
    told, _ = count(tmp_path, 1000, 2**30)
    assert told.count("darkroom_requests_total{") == 1000
    files = [path.stat() for path in tmp_path.glob("*.db")]
    assert len(files) >= 3
    assert max(file.st_size for file in files) > 64 * 1024, "none grew, so this proves less"
    assert all(file.st_blocks * 512 >= file.st_size for file in files)


def test_without_space_a_process_counts_for_itself(tmp_path: Path) -> None:
    """Where there is no space at all it lives, leaves no broken file to the others, and says so once for each file."""
    told, log = count(tmp_path, 10, 4096)
    assert "darkroom_requests_total{" not in told
    assert list(tmp_path.iterdir()) == []
    assert "there is no space for metrics" in log


def test_without_more_space_what_was_shared_stays(tmp_path: Path) -> None:
    """Where a file cannot grow, what fits into it is told."""
    told, log = count(tmp_path, 1000, 64 * 1024)
    assert 100 < told.count("darkroom_requests_total{") < 1000
    assert log.count("there is no space for metrics") == 1
