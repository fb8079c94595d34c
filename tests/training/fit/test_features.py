"""Features are computed once, and kept whatever happens."""

import resource
from pathlib import Path

import keras
import numpy as np
import pytest

from tests.training.backbones import SIDE, blots, pooled, small_on_backbone
from training.data.dataset import Pixels
from training.errors import TrainingError
from training.fit.features import Embed, Features, Vectors, embedder

pytestmark = pytest.mark.keras

PICTURES = np.random.default_rng(0).integers(256, size=(40, 4, 4, 3), dtype=np.uint8)


def features_of(images: Pixels) -> Vectors:
    """Return the mean colours, as a backbone might."""
    colours: Vectors = images.astype(np.float32).mean(axis=(1, 2))
    return colours


class Backbone:
    """Counts how often it is made and how many pictures it sees; it may fail after some."""

    def __init__(self, fails_after: float = np.inf) -> None:
        self.made = self.seen = 0
        self._most = fails_after

    def make(self) -> Embed:
        self.made += 1
        return self._embed

    def _embed(self, images: Pixels) -> Vectors:
        if self.seen >= self._most:
            raise KeyboardInterrupt
        self.seen += len(images)
        return features_of(images)


def test_features_are_computed_once(tmp_path: Path) -> None:
    """The second time, and from the file by another process, no backbone is even made."""
    file, backbone = tmp_path / "run" / "features.npz", Backbone()
    features = Features(file, backbone.make)
    for _ in range(2):
        np.testing.assert_array_equal(features.of(PICTURES), features_of(PICTURES))
    np.testing.assert_array_equal(Features(file, backbone.make).of(PICTURES), features_of(PICTURES))
    assert (backbone.made, backbone.seen) == (1, 40)


def test_more_pictures_cost_only_what_is_new(tmp_path: Path) -> None:
    """Other pictures between the known ones, in another order, are the only ones computed; each gets its own row."""
    backbone = Backbone()
    Features(tmp_path / "features.npz", backbone.make).of(PICTURES[::2])
    order = np.random.default_rng(1).permutation(40)
    found = Features(tmp_path / "features.npz", backbone.make).of(PICTURES[order])
    np.testing.assert_array_equal(found, features_of(PICTURES[order]))
    assert backbone.seen == 40


@pytest.mark.parametrize("damage", ["cut", "text", "nothing", "bytes"])
def test_a_damaged_file_is_made_again(tmp_path: Path, damage: str) -> None:
    """Cut short, empty, overwritten in part or whole: it counts as none, and a whole one takes its place."""
    file, backbone = tmp_path / "features.npz", Backbone()
    Features(file, backbone.make).of(PICTURES)
    content = file.read_bytes()
    middle = len(content) // 2
    changed = content[: middle - 9] + bytes(18) + content[middle + 9 :]
    file.write_bytes({"cut": content[:middle], "text": b"no features", "nothing": b"", "bytes": changed}[damage])
    np.testing.assert_array_equal(Features(file, backbone.make).of(PICTURES), features_of(PICTURES))
    np.testing.assert_array_equal(Features(file, backbone.make).of(PICTURES), features_of(PICTURES))
    assert (backbone.made, backbone.seen) == (2, 80)


@pytest.mark.parametrize(
    "held",
    [
        {"digests": np.array([None, {}], object), "features": np.zeros((2, 3), np.float32)},
        {"digests": np.zeros((2, 16), np.uint8), "features": np.zeros((2, 3), np.float64)},
        {"digests": np.zeros((2, 16), np.uint8), "features": np.full((2, 3), np.nan, np.float32)},
        {"digests": np.zeros((2, 15), np.uint8), "features": np.zeros((2, 3), np.float32)},
        {"digests": np.zeros((3, 16), np.uint8), "features": np.zeros((2, 3), np.float32)},
        {"digests": np.zeros((2, 16), np.uint8), "features": np.float32(0)},
        {"digests": np.zeros((2, 16), np.uint8)},
    ],
    ids=["objects", "doubles", "no numbers", "short digests", "more digests", "a number", "no features"],
)
def test_a_file_of_something_else_is_made_again(tmp_path: Path, held: dict[str, np.ndarray]) -> None:
    """What is not exactly a row of numbers for each digest counts as none, and no object in it is unpickled."""
    file, backbone = tmp_path / "features.npz", Backbone()
    np.savez(file, **held)  # type: ignore[arg-type]
    np.testing.assert_array_equal(Features(file, backbone.make).of(PICTURES), features_of(PICTURES))
    assert backbone.seen == 40


def test_a_full_disk_is_told_and_leaves_no_half(tmp_path: Path) -> None:
    """The error names the file, and what was written of it does not stay."""
    file = tmp_path / "features.npz"
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100, limits[1]))
    try:
        with pytest.raises(
            TrainingError, match=r"features\.npz cannot be written \(File too large\); make room for it"
        ):
            Features(file, Backbone().make).of(PICTURES)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert list(tmp_path.iterdir()) == []


def test_an_interruption_keeps_what_is_known(tmp_path: Path) -> None:
    """What was computed by then is not computed again, and no half-written file is left."""
    file, backbone = tmp_path / "features.npz", Backbone(fails_after=32)
    with pytest.raises(KeyboardInterrupt):
        Features(file, backbone.make).of(PICTURES)
    assert backbone.seen == 32
    resumed = Backbone()
    np.testing.assert_array_equal(Features(file, resumed.make).of(PICTURES), features_of(PICTURES))
    assert resumed.seen == 8
    assert list(tmp_path.iterdir()) == [file]


@pytest.mark.slow
@pytest.mark.parametrize("number", [1, 8, 11])
def test_the_backbone_is_that_below_the_head(number: int) -> None:
    """Its features are what the head of the network in Keras gets, for any number of pictures."""
    model: keras.Model = small_on_backbone()
    images = blots(number)
    found = embedder(model)(images)
    assert found.dtype == np.float32
    assert images.shape[1] == SIDE
    np.testing.assert_allclose(found, pooled(model, images), rtol=1e-3, atol=1e-3)
