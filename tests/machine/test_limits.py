"""Cores and memory: the limit of a control group counts, in both versions and at every level."""

import mmap
import os
from pathlib import Path

import pytest

from machine import free_memory, own_memory, usable_cores, usable_memory

AVAILABLE = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
GIBIBYTE = 1024**3
MACHINE = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")


def cores(folder: Path, membership: str, files: dict[str, str]) -> int:
    """Return the cores of a process that is where ``membership`` says, with ``files`` of its control groups."""
    for name, text in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text)
    (folder / "membership").write_text(membership)
    return usable_cores(folder, folder / "membership")


def within(quota: int) -> int:
    """Return what is left of ``quota`` cores on this machine."""
    return min(quota, AVAILABLE)


@pytest.mark.parametrize(
    ("quota", "expected"),
    [("max 100000", AVAILABLE), ("150000 100000", 1), ("20000 100000", 1), ("6400000 100000", 64)],
)
def test_quota_of_version_2(tmp_path: Path, quota: str, expected: int) -> None:
    """``cpu.max`` limits the cores, rounded down, to one at least; ``max`` does not."""
    assert cores(tmp_path, "0::/\n", {"cpu.max": quota}) == within(expected)


def test_the_lowest_quota_above_counts(tmp_path: Path) -> None:
    """A pod's quota holds for its containers, also where these have a larger one."""
    files = {"pod/cpu.max": "100000 100000", "pod/container/cpu.max": "800000 100000", "cpu.max": "max 100000"}
    assert cores(tmp_path, "0::/pod/container\n", files) == 1


@pytest.mark.parametrize(("quota", "expected"), [("-1", AVAILABLE), ("100000", 1)])
def test_quota_of_version_1(tmp_path: Path, quota: str, expected: int) -> None:
    """The two files of the cpu controller limit the cores; -1 does not. Other controllers do not matter."""
    files = {"cpu,cpuacct/task/cpu.cfs_quota_us": quota, "cpu,cpuacct/task/cpu.cfs_period_us": "100000"}
    membership = "12:memory:/task\n5:cpu,cpuacct:/task\n1:name=systemd:/task\n"
    assert cores(tmp_path, membership, files) == expected


@pytest.mark.parametrize("files", [{}, {"cpu.max": ""}, {"cpu.max": "nonsense"}])
def test_without_a_quota_all_cores_count(tmp_path: Path, files: dict[str, str]) -> None:
    """Missing and unreadable files limit nothing; so on systems that have no control groups."""
    assert cores(tmp_path, "0::/\n", files) == AVAILABLE
    assert usable_cores(tmp_path, tmp_path / "missing") == AVAILABLE


def memory(folder: Path, membership: str, files: dict[str, str]) -> int:
    """Return the memory of a process that is where ``membership`` says, with ``files`` of its control groups."""
    cores(folder, membership, files)  # writes them
    return usable_memory(folder, folder / "membership")


@pytest.mark.parametrize(
    ("files", "expected"),
    [
        pytest.param({"memory.max": "1000000\n"}, 1_000_000, id="limit"),
        pytest.param({"memory.max": "max\n"}, MACHINE, id="max"),
        pytest.param({"memory.max": str(2**60)}, MACHINE, id="more-than-the-machine-has"),
        pytest.param({"memory.max": "nonsense"}, MACHINE, id="nonsense"),
        pytest.param({}, MACHINE, id="no-file"),
    ],
)
def test_memory_of_version_2(tmp_path: Path, files: dict[str, str], expected: int) -> None:
    """``memory.max`` limits the memory; ``max`` and what cannot be read leave the machine's."""
    assert memory(tmp_path, "0::/\n", files) == expected


def test_the_lowest_memory_above_counts(tmp_path: Path) -> None:
    """A pod's limit holds for its containers, also where these have a larger one or none."""
    files = {"pod/memory.max": "3000000", "pod/container/memory.max": "5000000", "memory.max": "max"}
    assert memory(tmp_path, "0::/pod/container\n", files) == 3_000_000
    assert memory(tmp_path, "0::/pod/container\n", {"pod/container/memory.max": "2000000"}) == 2_000_000
    assert memory(tmp_path, "0::/pod/container\n", {"pod/container/memory.max": "max"}) == 3_000_000


@pytest.mark.parametrize(("limit", "expected"), [("7000000\n", 7_000_000), ("9223372036854771712\n", MACHINE)])
def test_memory_of_version_1(tmp_path: Path, limit: str, expected: int) -> None:
    """The memory controller's file limits the memory; the huge number that means no limit does not."""
    files = {"memory/task/memory.limit_in_bytes": limit, "cpu/task/memory.limit_in_bytes": "5"}
    assert memory(tmp_path, "12:memory:/task\n5:cpu:/task\n1:name=systemd:/task\n0::/\n", files) == expected


def test_without_control_groups_the_machine_counts(tmp_path: Path) -> None:
    """Where there is no file of memberships, as on systems without control groups, the machine's memory counts."""
    assert usable_memory(tmp_path, tmp_path / "missing") == MACHINE


@pytest.fixture
def meminfo(tmp_path: Path) -> Path:
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
def test_a_containers_limit_counts(meminfo: Path, tmp_path: Path, limit: str, value: str, expected: int) -> None:
    """Free is what the machine has, or less where the container's control group, of version 1 or 2, says so."""
    file = tmp_path / "cgroup" / limit
    file.parent.mkdir(parents=True)
    file.write_text(f"{value}\n")
    membership = tmp_path / "membership"
    membership.write_text("1:memory:/\n0::/\n")
    assert free_memory(meminfo, tmp_path / "cgroup", membership) == expected


@pytest.mark.parametrize(
    ("statistics", "expected"),
    [
        pytest.param("anon 700\ninactive_file 200\nactive_file 300\nshmem 1\n", 1_000_000 - 500, id="files-are-free"),
        pytest.param("inactive_file 5000\n", 1_000_000, id="more-files-than-memory"),
        pytest.param("nonsense", 1_000_000, id="nonsense"),
    ],
)
@pytest.mark.parametrize("version", [1, 2])
def test_what_others_in_the_container_take_is_not_free(
    meminfo: Path, tmp_path: Path, version: int, statistics: str, expected: int
) -> None:
    """Of a limit, what is taken already is gone; what the kernel keeps of files it gives back."""
    names = {1: ("memory/memory.limit_in_bytes", "memory/memory.usage_in_bytes", "memory/memory.stat")}
    limit, usage, told = names.get(version, ("memory.max", "memory.current", "memory.stat"))
    prefix = "total_" if version == 1 else ""
    lines = [line if "_file" not in line else f"{prefix}{line}" for line in statistics.splitlines()]
    for name, text in {limit: "1000000", usage: "1000", told: "\n".join(lines)}.items():
        (tmp_path / "cgroup" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "cgroup" / name).write_text(text)
    membership = tmp_path / "membership"
    membership.write_text("1:memory:/\n0::/\n")
    assert free_memory(meminfo, tmp_path / "cgroup", membership) == expected


def test_own_memory_is_what_is_written_to() -> None:
    """A large block counts once it is filled; without /proc there is nothing to tell."""
    before = own_memory()
    # Not of the C library, which may have kept as much of what was freed.
    with mmap.mmap(-1, 50_000_000, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS) as block:
        block.write(b"x" * 50_000_000)
        assert 45e6 < own_memory() - before < 120e6
    assert own_memory(Path("/nonexistent")) == 0


def test_this_machine() -> None:
    """Here, too, there is some memory and a core; without /proc, as on macOS, all the memory counts."""
    assert free_memory() > 10**8
    assert free_memory(Path("/nonexistent")) >= free_memory() // 2
    assert usable_cores() >= 1
