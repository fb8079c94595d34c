"""Small file systems, which fill up; a test is skipped where mounting is not allowed."""

import os
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest


@contextmanager
def small_disk(folder: Path, kibibytes: int) -> Iterator[Path]:
    """Make ``folder`` a file system of that size until the block ends."""
    resize(folder, kibibytes)
    yield folder
    unmount(folder)


def resize(folder: Path, kibibytes: int) -> Path:
    """Give the file system in ``folder`` that size, after making it where there is none; return ``folder``."""
    folder.mkdir(exist_ok=True)
    options = f"{'remount,' if folder.is_mount() else ''}size={kibibytes}k"
    mount = ["mount", "-t", "tmpfs", "-o", options, "tmpfs", str(folder)]
    if os.geteuid() or subprocess.run(mount, check=False, capture_output=True).returncode:
        pytest.skip("mounting a small file system is not allowed here")
    return folder


def unmount(folder: Path) -> None:
    """Make ``folder`` an ordinary folder again."""
    subprocess.run(["umount", str(folder)], check=True)
