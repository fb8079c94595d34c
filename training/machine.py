"""What there is of the machine for this process, found without a training framework."""

import contextlib
import ctypes
import os
from pathlib import Path

_MEMORY = Path("/proc/meminfo")
_CGROUPS = Path("/sys/fs/cgroup")
_CGROUP_LIMITS = ("memory.max", "memory/memory.limit_in_bytes")  # of versions 2 and 1, as a container sees its own

_TRIM_THRESHOLD, _MMAP_MAX, _ARENA_MAX = -1, -4, -8  # of malloc.h
_UNLIMITED = -1


def cores() -> int:
    """Return the number of processor cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def free_memory(machine: Path = _MEMORY, cgroups: Path = _CGROUPS) -> int:
    """Return the bytes of memory that this process can still take, within the limit of its container."""
    limits = [_available(machine), *(_limit(cgroups / name) for name in _CGROUP_LIMITS)]
    return min(limit for limit in limits if limit is not None)


def keep_freed_memory() -> None:
    """Make the C library (glibc) keep what is freed, in one pool for all threads, so that the next step takes it.

    Left alone, it returns every tensor of more than 32 MiB to the system and asks for it anew, and the system clears
    each page of it first: without AVX-512, that was 2.5 million pages and two fifths of the time of a step of the
    standard preset. Call it before there are threads.
    """
    with contextlib.suppress(AttributeError, OSError):  # other C libraries have no such settings
        library = ctypes.CDLL(None)
        for setting, value in ((_ARENA_MAX, 1), (_MMAP_MAX, 0), (_TRIM_THRESHOLD, _UNLIMITED)):
            library.mallopt(setting, value)


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
