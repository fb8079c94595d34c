"""What there is for this process: the cores and the memory of the machine, within what its control groups allow."""

import os
from collections.abc import Callable, Iterator
from pathlib import Path, PurePosixPath
from typing import TypeVar

_GROUPS = Path("/sys/fs/cgroup")
_MEMBERSHIP = Path("/proc/self/cgroup")
_MEMORY = Path("/proc/meminfo")
_OWN_PAGES = Path("/proc/self/statm")

Limit = TypeVar("Limit", int, float)


def usable_cores(groups: Path = _GROUPS, membership: Path = _MEMBERSHIP) -> int:
    """Return how many cores this process can keep busy, at least 1.

    A container that may use 1.5 cores of a host's 64 has the affinity of all 64 and a quota of 1.5: one core's worth
    of work fits, and the rest is for what else the process does. ``groups`` is where the control groups' files are,
    version 1 or 2, and ``membership`` the file that says in which ones this process is.
    """
    affinity = getattr(os, "sched_getaffinity", None)  # not on macOS
    cores = len(affinity(0)) if affinity else os.cpu_count() or 1
    quotas = _limits(groups, membership, "cpu", _quota_1, _quota_2)
    return max(1, min([cores, *(int(quota) for quota in quotas)]))


def usable_memory(groups: Path = _GROUPS, membership: Path = _MEMBERSHIP) -> int:
    """Return the bytes of memory that this process may take: the machine's, or the lowest limit of its groups."""
    return min([_whole_memory(), *_limits(groups, membership, "memory", _memory_1, _memory_2)])


def free_memory(memory: Path = _MEMORY, groups: Path = _GROUPS, membership: Path = _MEMBERSHIP) -> int:
    """Return the bytes of memory that this process can still take, within what the limits of its groups leave.

    ``memory`` is where /proc/meminfo is; without it, as on macOS, all of the machine's memory counts. What the kernel
    keeps of files counts as free: it gives that back.
    """
    return min([_available(memory), *_limits(groups, membership, "memory", _left_1, _left_2)])


def own_memory(pages: Path = _OWN_PAGES) -> int:
    """Return the bytes of memory that are this process's alone; 0 where there is no /proc, as on macOS.

    What is read from files without a change is not among them.
    """
    try:
        _, resident, shared, *_ = pages.read_bytes().split()
    except OSError:
        return 0
    return (int(resident) - int(shared)) * os.sysconf("SC_PAGE_SIZE")


def _available(memory: Path) -> int:
    try:
        lines = memory.read_text(encoding="ascii").splitlines()
    except OSError:  # not Linux
        return _whole_memory()
    (line,) = (line for line in lines if line.startswith("MemAvailable:"))
    return int(line.split()[1]) * 1024


def _whole_memory() -> int:
    return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")


def _limits(
    groups: Path,
    membership: Path,
    controller: str,
    read_1: Callable[[Path], Limit | None],
    read_2: Callable[[Path], Limit | None],
) -> Iterator[Limit]:
    """Yield the limits of this process's control groups and those above them, in version 1 and 2."""
    try:
        lines = membership.read_text(encoding="utf-8").splitlines()
    except OSError:  # not Linux
        return
    for line in lines:
        _, controllers, path = line.split(":", 2)
        if controllers and controller not in controllers.split(","):
            continue
        root: Path = groups / controllers if controllers else groups
        read = read_1 if controllers else read_2
        group: PurePosixPath = PurePosixPath(path.lstrip("/"))
        for folder in (root / group, *(root / parent for parent in group.parents)):
            try:
                limit = read(folder)
            except (OSError, ValueError):
                continue
            if limit is not None:
                yield limit


def _quota_2(folder: Path) -> float | None:
    """Return the cores that ``cpu.max`` of version 2 allows: microseconds in each period, or ``max``."""
    quota, period = (folder / "cpu.max").read_text(encoding="ascii").split()
    return None if quota == "max" else int(quota) / int(period)


def _quota_1(folder: Path) -> float | None:
    """Return the cores that version 1 allows, in two files; -1 is no limit."""
    quota = int((folder / "cpu.cfs_quota_us").read_text(encoding="ascii"))
    period = int((folder / "cpu.cfs_period_us").read_text(encoding="ascii"))
    return None if quota < 0 else quota / period


def _memory_2(folder: Path) -> int | None:
    """Return the bytes that ``memory.max`` of version 2 allows, or ``max``."""
    limit = (folder / "memory.max").read_text(encoding="ascii").strip()
    return None if limit == "max" else int(limit)


def _memory_1(folder: Path) -> int | None:
    """Return the bytes that version 1 allows; without a limit it is a number that no machine has."""
    return int((folder / "memory.limit_in_bytes").read_text(encoding="ascii"))


def _left_2(folder: Path) -> int | None:
    """Return the bytes that version 2 leaves of its limit, or None where there is no limit."""
    limit = _memory_2(folder)
    return None if limit is None else _left(limit, folder / "memory.current", folder / "memory.stat", "")


def _left_1(folder: Path) -> int | None:
    """Return the bytes that version 1 leaves of its limit."""
    limit = _memory_1(folder)
    return None if limit is None else _left(limit, folder / "memory.usage_in_bytes", folder / "memory.stat", "total_")


def _left(limit: int, usage: Path, statistics: Path, prefix: str) -> int:
    """Return what ``usage`` leaves of ``limit`` bytes; all of it where that is not told.

    Lines of ``statistics`` with ``prefix`` tell of those below as well. What is kept of files counts as unused.
    """
    try:
        used = int(usage.read_text(encoding="ascii"))
        told = dict(line.split() for line in statistics.read_text(encoding="ascii").splitlines())
        files = sum(int(told.get(f"{prefix}{kind}_file", 0)) for kind in ("active", "inactive"))
    except (OSError, ValueError):
        return limit
    return max(0, limit - max(0, used - files))
