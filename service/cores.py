"""How many processor cores there are for this process: those it may run on, within what its control group allows."""

import os
from collections.abc import Iterator
from pathlib import Path, PurePosixPath

_GROUPS = Path("/sys/fs/cgroup")
_MEMBERSHIP = Path("/proc/self/cgroup")


def usable_cores(groups: Path = _GROUPS, membership: Path = _MEMBERSHIP) -> int:
    """Return how many cores this process can keep busy, at least 1.

    A container that may use 1.5 cores of a host's 64 has the affinity of all 64 and a quota of 1.5: one core's worth
    of work fits, and the rest is for what else the process does. ``groups`` is where the control groups' files are,
    version 1 or 2, and ``membership`` the file that says in which ones this process is.
    """
    affinity = getattr(os, "sched_getaffinity", None)  # not on macOS
    cores = len(affinity(0)) if affinity else os.cpu_count() or 1
    return max(1, min([cores, *(int(quota) for quota in _quotas(groups, membership))]))


def _quotas(groups: Path, membership: Path) -> Iterator[float]:
    """Yield the quotas, in cores, of this process's control group and those above it."""
    try:
        lines = membership.read_text(encoding="utf-8").splitlines()
    except OSError:  # not Linux
        return
    for line in lines:
        _, controllers, path = line.split(":", 2)
        if controllers and "cpu" not in controllers.split(","):
            continue
        root = groups / controllers if controllers else groups
        group = PurePosixPath(path.lstrip("/"))
        for folder in (root / group, *(root / parent for parent in group.parents)):
            quota = _quota_2(folder) if not controllers else _quota_1(folder)
            if quota is not None:
                yield quota


def _quota_2(folder: Path) -> float | None:
    """Return the quota in ``cpu.max`` of version 2: microseconds in each period, or ``max``."""
    try:
        quota, period = (folder / "cpu.max").read_text(encoding="ascii").split()
    except (OSError, ValueError):
        return None
    return None if quota == "max" else int(quota) / int(period)


def _quota_1(folder: Path) -> float | None:
    """Return the quota of version 1, in two files; -1 is none."""
    try:
        quota = int((folder / "cpu.cfs_quota_us").read_text(encoding="ascii"))
        period = int((folder / "cpu.cfs_period_us").read_text(encoding="ascii"))
    except (OSError, ValueError):
        return None
    return None if quota < 0 else quota / period
