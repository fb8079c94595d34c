"""How much memory is free, on a machine and in a container, and what becomes of it."""

import platform
import subprocess
import sys
from pathlib import Path

import pytest

from training.machine import cores, free_memory

GIBIBYTE = 1024**3


@pytest.fixture
def machine(tmp_path: Path) -> Path:
    """Return a /proc/meminfo of a machine with 8 GiB free of 16."""
    file = tmp_path / "meminfo"
    file.write_text(f"MemTotal: {16 * 1024**2} kB\nMemFree: 1024 kB\nMemAvailable:   {8 * 1024**2} kB\n")
    return file


@pytest.mark.parametrize(
    ("limit", "value", "expected"),
    [
        ("memory.max", str(2 * GIBIBYTE), 2 * GIBIBYTE),
        ("memory.max", "max", 8 * GIBIBYTE),
        ("memory.max", str(64 * GIBIBYTE), 8 * GIBIBYTE),
        ("memory/memory.limit_in_bytes", str(3 * GIBIBYTE), 3 * GIBIBYTE),
        ("memory/memory.limit_in_bytes", "9223372036854771712", 8 * GIBIBYTE),
        ("other", "", 8 * GIBIBYTE),
    ],
)
def test_a_containers_limit_counts(machine: Path, tmp_path: Path, limit: str, value: str, expected: int) -> None:
    """Free is what the machine has, or less where the container's control group, of version 1 or 2, says so."""
    file = tmp_path / "cgroup" / limit
    file.parent.mkdir(parents=True)
    file.write_text(f"{value}\n")
    assert free_memory(machine, tmp_path / "cgroup") == expected


def test_this_machine() -> None:
    """Here, too, there is some memory and a core; without /proc, as on macOS, all the memory counts."""
    assert free_memory() > 10**8
    assert free_memory(Path("/nonexistent")) >= free_memory() // 2
    assert cores() >= 1


def _pages_cleared(first: str) -> int:
    """Run ``first``, then take and free 100 MB four times in a thread; return the pages got from the system."""
    lines = f"""
import resource, threading
from training.machine import keep_freed_memory
{first}
def take(times):
    for _ in range(times):
        b"x" * 100_000_000
def work():
    take(1)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    take(4)
    print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
thread = threading.Thread(target=work)
thread.start()
thread.join()
"""
    return int(subprocess.run([sys.executable, "-c", lines], capture_output=True, text=True, check=True).stdout)


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="only glibc has the settings")
def test_freed_memory_is_taken_again() -> None:
    """glibc by itself gets what was freed from the system again, page by page; now hardly a page comes from there."""
    assert _pages_cleared("keep_freed_memory()") < _pages_cleared("") / 10
