"""The network for photographs that compare.py serves where no other is named; git ignores the folder it is made in."""

from __future__ import annotations

import subprocess
import sys
import tempfile
from pathlib import Path

from artifact import InvalidVersion, latest, read_metadata, version_path
from benchmarks.measuring import ROOT, drawings, jpeg, photograph

_NAME = "photographs"
_CLASSES = 3
_OF_A_CLASS = 24  # pictures
_SIZE = (240, 320)  # pixels: height and width of these


def own_version(runs: Path) -> Path:
    """Return the folder of an int8 version for photographs, of 224x224 pixels, in ``runs``; it is made there once.

    It tells drawings apart, so its answers are of no use; what an answer costs is that of any EfficientNet-Lite0.
    """
    models = runs / "bench-models"
    if not models.is_dir() or latest(models, _NAME) is None:
        print("making a network for photographs, once; it takes half a minute", file=sys.stderr)
        _train(models, runs / "bench-photographs")
    found = latest(models, _NAME)
    if found is None:
        sys.exit(f"error: the training published nothing in {models}")
    return int8_version(version_path(models, _NAME, found))


def int8_version(folder: Path) -> Path:
    """Return the version in ``folder``; end the program where it is none, or carries no int8 network."""
    try:
        carried = read_metadata(folder).int8
    except (OSError, InvalidVersion) as error:
        sys.exit(f"error: {error}")
    if carried is None:
        sys.exit(f"error: {folder} carries no int8 network; python -m training quantize makes one")
    return folder.resolve()


def training(pictures: Path | str, models: Path, run: Path) -> list[str]:
    """Return the arguments of the training that makes the version in ``models``."""
    places = ["--data", str(pictures), "--name", _NAME, "--models", str(models), "--run", str(run)]
    return [*places, "--backbone", "EfficientNetLite0", "--minutes", "0", "--fresh", "--cpu"]


def _train(models: Path, run: Path) -> None:
    with tempfile.TemporaryDirectory() as folder:
        _draw(Path(folder))
        command = [sys.executable, "-m", "training", *training(folder, models, run)]
        done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    if done.returncode:
        sys.exit(f"error: the training of the benchmark's network failed:\n{done.stderr[-2000:]}")


def _draw(folder: Path) -> None:
    """Write a folder for each class, each with its own drawing under other noise."""
    samples = len(drawings(1, 1))
    for label in range(_CLASSES):
        (folder / f"drawing-{label}").mkdir()
        for number in range(_OF_A_CLASS):
            pixels = photograph(*_SIZE, seed=label + number * samples)  # the same drawing each time
            (folder / f"drawing-{label}" / f"{number}.jpg").write_bytes(jpeg(pixels))
