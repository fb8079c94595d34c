"""Small data sets and a trained smoke version, which the trainer's tests share."""

import io
import os
import pickle
import subprocess
import sys
import tarfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from training.dataset import Dataset, Split, hold_out

LABELS = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")
PER_BATCH = 4
BATCHES = (*(f"data_batch_{number}" for number in range(1, 6)), "test_batch")

Train = Callable[..., subprocess.CompletedProcess[str]]


def picture_bytes(batch: str) -> tuple[np.ndarray, list[int]]:
    """Return a batch of made-up pictures as uint8 [4, 3072] with their classes."""
    rng = np.random.default_rng(BATCHES.index(batch))
    return rng.integers(256, size=(PER_BATCH, 3072), dtype=np.uint8), rng.integers(10, size=PER_BATCH).tolist()


def python_layout() -> dict[str, bytes]:
    """Return made-up files of CIFAR-10's Python layout by name, keyed with bytes as the original's are."""
    files = {"batches.meta": pickle.dumps({b"label_names": [label.encode() for label in LABELS]})}
    for batch in BATCHES:
        planes, classes = picture_bytes(batch)
        files[batch] = pickle.dumps({b"data": planes, b"labels": classes}, protocol=2)
    return files


def binary_layout() -> dict[str, bytes]:
    """Return the same pictures in CIFAR-10's binary layout."""
    files = {"batches.meta.txt": "\n".join(LABELS).encode() + b"\n"}
    for batch in BATCHES:
        planes, classes = picture_bytes(batch)
        files[f"{batch}.bin"] = np.column_stack([np.array(classes, np.uint8), planes]).tobytes()
    return files


def write_folder(folder: Path, files: dict[str, bytes]) -> Path:
    """Write files into a new folder and return it."""
    folder.mkdir(parents=True)
    for name, content in files.items():
        (folder / name).write_bytes(content)
    return folder


def write_archive(path: Path, files: dict[str, bytes]) -> Path:
    """Write files into a ``.tar.gz`` archive, below one folder as in the original, and return its path."""
    with tarfile.open(path, "w:gz") as archive:
        for name, content in files.items():
            member = tarfile.TarInfo(f"cifar-10-batches-py/{name}")
            member.size = len(content)
            archive.addfile(member, io.BytesIO(content))
    return path


@pytest.fixture
def small() -> Dataset:
    """Return a data set of 60 random 32x32 pictures in three classes, 12 of them for validation."""
    rng = np.random.default_rng(0)

    def split(count: int) -> Split:
        return Split(rng.integers(256, size=(count, 32, 32, 3), dtype=np.uint8), rng.integers(3, size=count))

    return hold_out("small", ("a", "b", "c"), split(60), split(9), validation_images=12)


def environment(**changes: str) -> dict[str, str]:
    """Return the environment for a trainer in a process of its own, on the CPU."""
    return {**os.environ, "CUDA_VISIBLE_DEVICES": "", **changes}


@pytest.fixture(scope="session")
def run_training(root: Path) -> Train:
    """Return a function that runs ``python -m training`` and captures its output."""

    def run(*arguments: str | Path, **changes: str) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-m", "training", *map(str, arguments)]
        return subprocess.run(
            command, cwd=root, env=environment(**changes), capture_output=True, text=True, check=False, timeout=300
        )

    return run


@pytest.fixture(scope="session")
def smoke(run_training: Train, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    """Train with the smoke preset; return the published version's folder and what was printed."""
    folder = tmp_path_factory.mktemp("smoke")
    done = run_training("--preset", "smoke", "--models", folder / "models", "--run", folder / "run")
    assert done.returncode == 0, done.stderr
    return folder / "models" / "smoke" / "1", done.stdout
