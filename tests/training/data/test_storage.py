"""Pixels lie in memory while they fit, else in a file that nobody has to clean up."""

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from training.data.storage import allocate
from training.errors import TrainingError

SHAPE = (50, 8, 10, 3)
SIZE = 50 * 8 * 10 * 3


def mapped(array: np.ndarray) -> bool:
    """Say whether an array's memory is a file's."""
    base: object = array
    while isinstance(base, np.ndarray):
        if isinstance(base, np.memmap):
            return True
        base = base.base
    return False


def test_what_fits_is_in_memory(tmp_path: Path) -> None:
    """Up to the budget, which by default is half of what is free, nothing is written."""
    for images in (allocate(SHAPE, tmp_path / "none", budget=SIZE), allocate(SHAPE, tmp_path / "none")):
        assert images.shape == SHAPE
        assert images.dtype == np.uint8
        assert not mapped(images)
    assert not (tmp_path / "none").exists()


def test_what_does_not_fit_is_in_a_file_without_a_name(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Above the budget the pixels are in the folder given, take room on the disk, and leave with the array."""
    images = allocate(SHAPE, tmp_path / "cache", budget=SIZE - 1)
    assert mapped(images)
    assert images.shape == SHAPE
    assert images.dtype == np.uint8
    assert str(tmp_path / "cache") in capsys.readouterr().out
    images[:] = 7
    images[49, 7, 9] = 200
    assert int(images.sum()) == 7 * (SIZE - 3) + 600
    assert list((tmp_path / "cache").iterdir()) == []


def test_a_full_disk_is_found_before_anything_is_read(tmp_path: Path) -> None:
    """Where the folder has too little room, the error has both sizes and the ways out."""
    with pytest.raises(TrainingError, match=r"take 1000000\.0 GB, and .* has room for .*--cache"):
        allocate((10**12, 100, 10, 1), tmp_path, budget=0)


def test_a_disk_that_fills_up_is_an_error_and_not_a_crash(tmp_path: Path) -> None:
    """The room is taken at once: writing pixels later cannot end the process with a bus error."""
    mount = ["mount", "-t", "tmpfs", "-o", "size=64k", "tmpfs", str(tmp_path)]
    if os.geteuid() or subprocess.run(mount, check=False, capture_output=True).returncode:
        pytest.skip("mounting a small file system is not allowed here")
    fill = (
        "import shutil, sys, types; from pathlib import Path; from training.data import storage\n"
        "shutil.disk_usage = lambda _: types.SimpleNamespace(free=10**9)\n"  # another process takes the room just then
        "try: storage.allocate((100, 32, 32, 3), Path(sys.argv[1]), budget=0)[:] = 1\n"
        "except OSError as error: sys.exit(error.strerror)\n"
    )
    try:
        done = subprocess.run([sys.executable, "-c", fill, tmp_path], capture_output=True, text=True, check=False)
    finally:
        subprocess.run(["umount", str(tmp_path)], check=True)
    assert (done.returncode, done.stderr.strip()) == (1, "No space left on device")
