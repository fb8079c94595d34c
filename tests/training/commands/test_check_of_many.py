"""Ten thousand pictures are checked in bounded memory and time, in a process of its own."""

import hashlib
import subprocess
import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from machine import usable_cores
from tests.peak import peak_of
from tests.training.conftest import environment
from training.check.pictures import look
from training.data.dataset import Pixels
from training.data.folders import find
from training.fit.checkpoints import RunFolder
from training.fit.features import Embed, Features, Vectors
from training.network.registry import BACKBONES, DEFAULT, IMAGENET_WEIGHTS

pytestmark = [pytest.mark.keras, pytest.mark.process, pytest.mark.slow]

PICTURES, CLASSES, UNKNOWN = 10_000, 10, 100
DIMENSIONS = 1_280
# Libraries and network take 1.2 GB, the pixels of 1,000 pictures 0.4, what is kept of 10,000 of them 0.2. Their pixels
# alone would take 2.0 GB more.
MOST_BYTES = 2_400_000_000
MOST_SECONDS = 180  # of the processors, however many others use them


def draw(folder: Path, number: int) -> None:
    """Write a picture of blots that no other has, in the colour of its class."""
    rng = np.random.default_rng(number)
    blots = Image.fromarray(rng.integers(256, size=(8, 8, 3), dtype=np.uint8)).resize(
        (64, 48), Image.Resampling.BICUBIC
    )
    tint = Image.new("RGB", blots.size, tuple(np.random.default_rng(number % CLASSES).integers(256, size=3).tolist()))
    Image.blend(blots, tint, 0.4).save(folder / f"class-{number % CLASSES}" / f"{number}.jpg", quality=90)


def known_before(file: Path, folder: Path) -> None:
    """Write the features of all pictures but some, as an earlier check leaves them: the network would take minutes."""

    def vectors(images: Pixels) -> Vectors:
        seeds = (int.from_bytes(hashlib.blake2b(image, digest_size=8).digest()) for image in images)
        return np.stack([np.random.default_rng(seed).normal(size=DIMENSIONS) for seed in seeds]).astype(np.float32)

    make: Callable[[], Embed] = lambda: vectors  # noqa: E731
    side = BACKBONES[DEFAULT].side
    look(find(folder), Features(file, make), side)
    with np.load(file) as held:
        digests, features = held["digests"], held["features"]
    np.savez(file, digests=digests[UNKNOWN:], features=features[UNKNOWN:])


def test_ten_thousand_pictures(tmp_path: Path, root: Path) -> None:
    """All are looked at, compared and asked about; the network answers to those that are new."""
    folder, run = tmp_path / "many", tmp_path / "run"
    for class_ in range(CLASSES):
        (folder / f"class-{class_}").mkdir(parents=True)
    with ThreadPoolExecutor(usable_cores()) as pool:
        list(pool.map(lambda number: draw(folder, number), range(PICTURES)))
    side = BACKBONES[DEFAULT].side
    run.mkdir()
    known_before(RunFolder(run).features(DEFAULT, IMAGENET_WEIGHTS, side, side), folder)
    peak = tmp_path / "peak"
    command = [sys.executable, "-m", "tests.peak", str(peak), sys.executable, "-m", "training", "check", str(folder)]
    done = subprocess.run(
        [*command, "--run", str(run)], cwd=root, env=environment(), stdout=subprocess.PIPE, text=True, check=False
    )
    assert done.returncode == 0
    assert f"{folder}: {PICTURES:,} pictures of {CLASSES} classes" in done.stdout
    size, seconds = peak_of(peak)
    assert size < MOST_BYTES
    assert seconds < MOST_SECONDS
    with np.load(RunFolder(run).features(DEFAULT, IMAGENET_WEIGHTS, side, side)) as held:
        assert len(held["digests"]) == PICTURES
