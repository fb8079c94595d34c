"""What there is of the machine for this process, found without a training framework."""

import os
from pathlib import Path

_MEMORY = Path("/proc/meminfo")
_CGROUPS = Path("/sys/fs/cgroup")
_CGROUP_LIMITS = ("memory.max", "memory/memory.limit_in_bytes")  # of versions 2 and 1, as a container sees its own


def cores() -> int:
    """Return the number of processor cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def free_memory(machine: Path = _MEMORY, cgroups: Path = _CGROUPS) -> int:
    """Return the bytes of memory that this process can still take, within the limit of its container."""
    limits = [_available(machine), *(_limit(cgroups / name) for name in _CGROUP_LIMITS)]
    return min(limit for limit in limits if limit is not None)


def _available(machine: Path) -> int:
    try:
        lines = machine.read_text(encoding="ascii").splitlines()
    except OSError:  # not Linux
        return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    (line,) = (line for line in lines if line.startswith("MemAvailable:"))
    return int(line.split()[1]) * 1024


def _limit(file: Path) -> int | None:
    try:
        return int(file.read_text(encoding="ascii"))
    except (OSError, ValueError):  # not there, or "max"
        return None
