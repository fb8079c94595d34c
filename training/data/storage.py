"""Room for the pixels of a data set: memory while they fit into it, else a file that is mapped into it."""

import os
import shutil
import tempfile
from pathlib import Path

import numpy as np

from machine import free_memory
from training.data.dataset import Pixels
from training.errors import TrainingError


def allocate(shape: tuple[int, int, int, int], cache: Path | None, budget: int | None = None) -> Pixels:
    """Return an array uint8 of ``shape`` [N, H, W, 3] with undefined pixels.

    Above ``budget`` bytes, by default half of the memory that is free, its pixels are in a file without a name in
    folder ``cache`` (None for the system's folder for temporary files). It goes with the array, however that ends.

    Raises:
        TrainingError: the disk has too little room.
        OSError: the folder cannot be written.
    """
    size = int(np.prod(shape, dtype=np.int64))
    if size <= (free_memory() // 2 if budget is None else budget):
        return np.empty(shape, np.uint8)
    folder = cache or Path(tempfile.gettempdir())
    print(f"The pixels take {_gigabytes(size)}, too much to keep in memory: they are kept in {folder}.", flush=True)
    return _mapped(shape, size, folder)


def _mapped(shape: tuple[int, int, int, int], size: int, folder: Path) -> Pixels:
    folder.mkdir(parents=True, exist_ok=True)
    free = shutil.disk_usage(folder).free
    if size > free:
        raise TrainingError(
            f"the pixels take {_gigabytes(size)}, and {folder} has room for {_gigabytes(free)}; "
            "give another folder with --cache, or a smaller --image-size"
        )
    with tempfile.TemporaryFile(dir=folder) as file:
        if hasattr(os, "posix_fallocate"):  # or a write to a disk that has become full would end the process
            os.posix_fallocate(file.fileno(), 0, size)
        return np.asarray(np.memmap(file, np.uint8, "r+", shape=shape))


def _gigabytes(size: int) -> str:
    return f"{size / 1e9:.1f} GB"
