"""A control group with a limit on memory, as a container has one: the kernel kills what takes more."""

import contextlib
import errno
import os
import secrets
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

_GROUPS = Path("/sys/fs/cgroup")


@contextlib.contextmanager
def limited(memory: int) -> Iterator[Callable[[], None]]:
    """Make a group of at most ``memory`` bytes below this process's own; give what a child calls to join it.

    The test is skipped where this process may make none.
    """
    parent, file, swap = _own()
    group = parent / f"darkroom-{secrets.token_hex(4)}"
    try:
        group.mkdir()
    except OSError as error:
        pytest.skip(f"no control group can be made: {error}")
    try:
        try:
            (group / file).write_text(str(memory))
        except OSError as error:
            pytest.skip(f"the control group takes no limit: {error}")
        with contextlib.suppress(OSError):  # a kernel that does not count swap
            (group / swap).write_text(str(memory) if swap.startswith("memory.memsw") else "0")
        yield lambda: _join(group)
    finally:
        _remove(group)


def _remove(group: Path) -> None:
    """Remove ``group`` as soon as the kernel has cleared away its processes, which is a little after they ended."""
    deadline = time.monotonic() + 10
    while True:
        try:
            group.rmdir()
        except OSError as error:
            if error.errno != errno.EBUSY or time.monotonic() > deadline:
                raise
            time.sleep(0.05)
        else:
            return


def _join(group: Path) -> None:
    (group / "cgroup.procs").write_text(str(os.getpid()))


def _own() -> tuple[Path, str, str]:
    """Return this process's group, and the names of the files for its limits on memory, and memory and swap."""
    lines = [line.split(":", 2) for line in Path("/proc/self/cgroup").read_text(encoding="ascii").splitlines()]
    for _, controllers, path in lines:
        if "memory" in controllers.split(","):
            return _GROUPS / controllers / path.lstrip("/"), "memory.limit_in_bytes", "memory.memsw.limit_in_bytes"
    [path] = [path for _, controllers, path in lines if not controllers] or pytest.skip("there are no control groups")
    return _GROUPS / path.lstrip("/"), "memory.max", "memory.swap.max"
