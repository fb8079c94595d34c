"""Pictures are looked at a chunk at a time, and what is kept of each does not depend on the chunks."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tests.training.check.scenes import write_scenes
from training.check import pictures
from training.check.pictures import look
from training.data.dataset import Pixels
from training.data.folders import find
from training.fit.features import Features, Vectors

pytestmark = pytest.mark.keras

SIDE = 40


def embed(images: Pixels) -> Vectors:
    """Return a few pixels as features float32 [B, 12]."""
    assert len(images) <= 32
    return images[:, ::20, ::20].reshape(len(images), -1).astype(np.float32)


def test_chunks_do_not_matter(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Three at a time, with a damaged one between them, gives what all at once gives, and in the files' order."""
    folder = write_scenes(tmp_path / "scenes", 4)
    damaged = folder / "blue" / "2.jpg"
    damaged.write_bytes(damaged.read_bytes()[:200])
    found = find(folder)
    whole = look(found, Features(tmp_path / "one.npz", lambda: embed), SIDE)
    monkeypatch.setattr(pictures, "_AT_ONCE", 3)
    parts = look(found, Features(tmp_path / "other.npz", lambda: embed), SIDE)
    assert [file.path for file in parts.faults] == [damaged]
    assert parts.files == whole.files == [file for file in found.train if file.path != damaged]
    assert parts.facts == whole.facts
    for name in ("features", "copies", "hashes", "classes"):
        assert np.array_equal(getattr(parts, name), getattr(whole, name)), name
    assert np.array_equal(parts.features[0], whole.features[0])


def test_facts_are_those_of_the_file(tmp_path: Path) -> None:
    """Format, size once upright, and the same pixels in two formats."""
    (tmp_path / "a").mkdir()
    rng = np.random.default_rng(0)
    image = Image.fromarray(rng.integers(256, size=(30, 90, 3), dtype=np.uint8))
    image.save(tmp_path / "a" / "1.png")
    image.save(tmp_path / "a" / "2.bmp")
    exif = Image.Exif()
    exif[0x0112] = 6  # lies on its side
    image.save(tmp_path / "a" / "3.jpg", exif=exif)
    Image.new("RGB", (60, 60), (250, 250, 250)).save(tmp_path / "a" / "4.png")
    seen = look(find(tmp_path, 1), Features(tmp_path / "features.npz", lambda: embed), SIDE).facts
    assert [(facts.format, facts.width, facts.height) for facts in seen] == [
        ("PNG", 90, 30),
        ("BMP", 90, 30),
        ("JPEG", 30, 90),
        ("PNG", 60, 60),
    ]
    assert seen[0].pixels == seen[1].pixels != seen[2].pixels
    assert seen[0].content != seen[1].content
    assert (seen[3].darkest, seen[3].brightest, seen[3].sharpness) == (250, 250, 0)
    assert seen[0].sharpness > 100
