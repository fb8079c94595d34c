"""Small data sets and a version that was refused, which the trainer's tests share."""

import contextlib
import io
import json
import os
import pickle
import shutil
import subprocess
import sys
import tarfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tests.shared import made_once
from training.cli import main
from training.data.dataset import Dataset, Split, hold_out

LABELS = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")
PER_BATCH = 4
BATCHES = (*(f"data_batch_{number}" for number in range(1, 6)), "test_batch")

SMOKE = ("--preset", "smoke", "--precision", "float32")

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
    """Return ``small_dataset``."""
    return small_dataset()


def small_dataset() -> Dataset:
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

    def run(*arguments: str | Path, peak: Path | None = None, **changes: str) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-m", "training", *map(str, arguments)]
        if peak is not None:  # where it is written how much memory it had
            command = [sys.executable, "-m", "tests.peak", str(peak), *command]
        return subprocess.run(
            command, cwd=root, env=environment(**changes), capture_output=True, text=True, check=False, timeout=300
        )

    return run


@dataclass(frozen=True)
class Refused:
    """A training whose result the quality gate refused: what it printed, and where its model and run folders lie."""

    code: int
    printed: str
    errors: str
    models: Path
    run: Path
    arguments: list[str]


@pytest.fixture(scope="session")
def refused(smoke: tuple[Path, str], tmp_path_factory: pytest.TempPathFactory) -> Refused:
    """Train with a learning rate of next to nothing where the smoke version lies already; not to be changed."""

    def train(folder: Path) -> None:
        shutil.copytree(smoke[0], folder / "models" / "smoke" / "1")
        (folder / "poor.toml").write_text(
            'preset = "smoke"\nprecision = "float32"\n[recipe]\nlearning_rate = 1e-6\nepochs = 1\n'
        )
        code, printed, errors = call(_poor(folder))
        (folder / "answer.json").write_text(json.dumps([code, printed, errors]), encoding="utf-8")

    folder = made_once(tmp_path_factory, "refused", train)
    code, printed, errors = json.loads((folder / "answer.json").read_text(encoding="utf-8"))
    return Refused(code, printed, errors, folder / "models", folder / "run", _poor(folder))


def _poor(folder: Path) -> list[str]:
    places = {"--config": "poor.toml", "--models": "models", "--run": "run"}
    return [argument for option, name in places.items() for argument in (option, str(folder / name))]


@pytest.fixture(scope="session")
def worse(refused: Refused, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    """Publish what was refused after all, elsewhere; return the version's folder and what was printed."""

    def publish(folder: Path) -> None:
        shutil.copytree(refused.models.parent, folder, dirs_exist_ok=True)
        places = ["--models", str(folder / "models"), "--run", str(folder / "run")]
        code, printed, errors = call([*refused.arguments, *places, "--publish-anyway"])
        assert code == 0, errors
        assert not list((folder / "run").glob("epoch-*"))
        (folder / "printed").write_text(printed, encoding="utf-8")

    folder = made_once(tmp_path_factory, "worse", publish)
    return folder / "models" / "smoke" / "2", (folder / "printed").read_text(encoding="utf-8")


def call(arguments: Sequence[str | Path]) -> tuple[int, str, str]:
    """Run the command line in this process; return its exit code and what it printed on both streams.

    A training has to be in float32, as ``SMOKE`` is: Keras keeps the precision for the tests that follow.
    """
    printed, errors = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(printed), contextlib.redirect_stderr(errors):
        code = main(list(map(str, arguments)))
    return code, printed.getvalue(), errors.getvalue()


def write_pictures(folder: Path, split: Split, labels: tuple[str, ...]) -> Path:
    """Write pictures as PNG files, a subfolder for each label, and return the folder."""
    for number, (image, class_) in enumerate(zip(split.images, split.classes, strict=True)):
        file = folder / labels[class_] / f"{number}.png"
        file.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(image).save(file)
    return folder
