"""A folder of somebody's own pictures becomes a model, and the service answers with its labels."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from PIL import Image

import artifact
from tests.drawings import drawing
from tests.service.running import start
from training.data import synthetic

pytestmark = [pytest.mark.process, pytest.mark.slow]

NAMES = {"disc": "Scheibe", "square": "Viereck", "stripes": "полосы"}


@pytest.fixture
def shapes(tmp_path: Path) -> Path:
    """Return a folder of 600 shapes in several formats and sizes, and a file that is none."""
    folder = tmp_path / "My shapes"
    labels, drawn, _ = synthetic.load(600, 1, seed=0)
    for number, (pixels, index) in enumerate(zip(drawn.images, drawn.classes, strict=True)):
        path = folder / NAMES[labels[index]] / f"{number}{('.png', '.jpg', '.webp')[number % 3]}"
        path.parent.mkdir(parents=True, exist_ok=True)
        side = 32 + number % 5
        Image.fromarray(pixels).resize((side, side)).save(path, quality=90)
    (folder / NAMES["disc"] / os.fsdecode(b"broken\xff.jpg")).write_bytes(b"\xff\xd8\xff")
    return folder


def test_pictures_become_a_service_that_knows_their_labels(root: Path, shapes: Path, tmp_path: Path) -> None:
    """Training tells what it left out and publishes under the folder's name; the service names new pictures rightly.

    The terminal's encoding knows neither the labels nor the name of the broken file.
    """
    models, runs = tmp_path / "models", tmp_path / "runs"
    command = [sys.executable, "-m", "training", "--data", str(shapes), "--preset", "smoke", "--epochs", "6"]
    options = ["--models", str(models), "--resize", "stretch"]
    environment = {**os.environ, "CUDA_VISIBLE_DEVICES": "", "RUN_DIR": str(runs), "PYTHONIOENCODING": "ascii"}
    done = subprocess.run([*command, *options], cwd=root, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "Left out 1 of 601 pictures, since they cannot be read:" in done.stdout
    assert r"broken\udcff.jpg: " in done.stdout
    assert re.search(r"My shapes: 4\d\d training images, 54 for validation, (59|60|61) for the test\.", done.stdout)
    metadata = artifact.validate(models / "My-shapes" / "1")
    assert metadata.labels == tuple(sorted(NAMES.values()))
    assert metadata.input == artifact.Input(height=32, width=32, resize="stretch")
    assert metadata.dataset["name"] == "My shapes"
    assert [entry.name for entry in runs.iterdir()] == ["My-shapes"]
    service = start({"MODEL_DIR": str(models), "DRAIN_SECONDS": "0"})
    try:
        service.wait_until_ready()
        for shape, name in NAMES.items():
            answer = service.predict(drawing(shape)).json()
            assert answer["predictions"][0]["label"] == name
            assert answer["model"] == {"name": "My-shapes", "version": 1}
    finally:
        service.kill()
