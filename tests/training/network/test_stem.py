"""The first layers follow from the size of the pictures, and whiten what they get."""

import dataclasses
from pathlib import Path

import keras
import numpy as np
import pytest
from PIL import Image

from training.data import synthetic
from training.data.dataset import Pixels, Split, hold_out
from training.errors import TrainingError
from training.fit.checkpoints import RunFolder
from training.fit.recipe import PRESETS, recipe
from training.fit.train import Job, train
from training.network.model import build, fit_to_pixels, megaflops
from training.network.stem import mean_and_variance, patches, whitening_filters
from training.publish.export import read_weights

pytestmark = pytest.mark.keras

WIDTHS = (64, 256, 256)


def smooth(count: int, side: int) -> Pixels:
    """Return random pictures [count, side, side, 3] in which neighbours are alike, as in photographs."""
    noise = np.random.default_rng(0).normal(size=(count, side + 4, side + 4, 3))
    views = [noise[:, row : row + side, column : column + side] for row in range(5) for column in range(5)]
    pictures: Pixels = np.clip(128 + 12 * np.sum(views, axis=0), 0, 255).astype(np.uint8)
    return pictures


def test_mean_and_variance_are_those_of_all_parts() -> None:
    """Parts of different sizes count by their pixels, and no backend is asked."""
    images = smooth(10, 12)
    mean, variance = mean_and_variance(iter([images[:3], images[3:]]))
    np.testing.assert_allclose(mean, images.mean(axis=(0, 1, 2)))
    np.testing.assert_allclose(variance, images.var(axis=(0, 1, 2)))


@pytest.mark.parametrize(
    ("height", "width", "patch", "stride"),
    [(9, 9, 2, 1), (32, 32, 2, 1), (64, 64, 2, 1), (65, 65, 2, 2), (96, 128, 2, 2), (160, 160, 3, 3), (224, 224, 4, 4)],
)
def test_patches_follow_from_the_size(height: int, width: int, patch: int, stride: int) -> None:
    """The map that enters the first group has about 64x64 positions at most, whatever the pictures' size."""
    assert patches(height, width) == (patch, stride)
    positions = ((height - patch) // stride + 1) * ((width - patch) // stride + 1)
    assert positions <= 64 * 64


@pytest.mark.parametrize(
    ("height", "width", "maps", "cost"),
    [
        (16, 16, [(15, 15), (7, 7), (3, 3), (1, 1)], 47),
        (32, 32, [(31, 31), (15, 15), (7, 7), (3, 3)], 236),
        (64, 64, [(63, 63), (31, 31), (15, 15), (7, 7)], 1055),
        (96, 128, [(48, 64), (24, 32), (12, 16), (6, 8)], 879),
        (224, 224, [(56, 56), (28, 28), (14, 14), (7, 7)], 997),
    ],
)
def test_one_family_serves_all_sizes(height: int, width: int, maps: list[tuple[int, int]], cost: int) -> None:
    """Each group halves the map that the first convolution leaves; the cost in MFLOP stays near that of 64x64."""
    model = build((height, width, 3), 10, WIDTHS, seed=0)
    names = ("whiten", "group1_b_convolution", "group2_b_convolution", "group3_b_convolution")
    assert [model.get_layer(name).output.shape[1:3] for name in names] == maps
    assert round(megaflops(model)) == cost
    assert model.output_shape == (None, 10)


def test_the_published_network_still_fits(root: Path) -> None:
    """At 32x32 the weights have the shapes and the order of the bundled version, which --start-from begins with."""
    expected = [weight.shape for weight in read_weights(root / "models" / "cifar10" / "5")]
    standard = PRESETS["standard"]
    model = build((32, 32, 3), 10, standard.widths, seed=0, convolutions=standard.convolutions)
    assert [tuple(weight.shape) for weight in model.weights] == expected


@pytest.mark.parametrize(("height", "width", "least"), [(8, 8, 9), (8, 32, 9), (20, 900, 24)])
def test_pictures_that_are_too_small_are_refused(height: int, width: int, least: int) -> None:
    """A side that three groups would halve to nothing is an error that says which length is enough, and it is."""
    with pytest.raises(TrainingError, match=f"pictures of {height}x{width} .* shorter side at least {least} pixels"):
        build((height, width, 3), 10, (8, 8, 8), seed=0)
    build((least, max(least, width), 3), 10, (8, 8, 8), seed=0)


@pytest.mark.parametrize(("patch", "stride", "kept"), [(2, 1, 12), (2, 2, 12), (4, 4, 24)])
def test_whitening_decorrelates_patches(patch: int, stride: int, kept: int) -> None:
    """The filters' answers to the pictures that they were made from have unit covariance; each has its negative."""
    normalized = (smooth(30, 40) / 64.0 - 2).astype(np.float32)
    filters = whitening_filters(iter(np.split(normalized, 3)), patch, stride)
    assert filters.shape == (patch, patch, 3, 2 * kept)
    answers = np.asarray(keras.ops.conv(normalized, filters, strides=stride)).reshape(-1, 2 * kept)
    covariance = answers[:, :kept].T @ answers[:, :kept] / len(answers)
    np.testing.assert_allclose(covariance, np.eye(kept), atol=0.15)
    np.testing.assert_allclose(answers[:, kept:], -answers[:, :kept], atol=1e-3)


def test_of_large_patches_the_directions_of_most_variance_are_kept() -> None:
    """Half of the directions of 4x4 patches hold nineteen twentieths of what smooth pictures vary by."""
    normalized = (smooth(30, 40) / 64.0 - 2).astype(np.float32)
    filters = whitening_filters(iter([normalized]), 4, 4)[..., :24].reshape(48, 24)
    directions = filters / np.linalg.norm(filters, axis=0)  # [48, 24], orthonormal
    cut = normalized.reshape(30, 10, 4, 10, 4, 3).transpose(0, 1, 3, 2, 4, 5).reshape(-1, 48)
    assert np.square(cut @ directions).sum() / np.square(cut).sum() > 0.95


def test_pictures_in_a_file_are_measured_as_those_in_memory(tmp_path: Path) -> None:
    """Normalisation and filters can be fitted to a memory-mapped file, to the same effect."""
    pictures = smooth(20, 70)
    np.save(tmp_path / "pictures.npy", pictures)
    models = [build((70, 70, 3), 3, (8, 8), seed=0) for _ in range(2)]
    fit_to_pixels(models[0], pictures)
    fit_to_pixels(models[1], np.load(tmp_path / "pictures.npy", mmap_mode="r"))
    for expected, found in zip(models[0].get_weights(), models[1].get_weights(), strict=True):
        np.testing.assert_array_equal(found, expected)
    inside = np.asarray(models[0].get_layer("normalize")(pictures))
    np.testing.assert_allclose(inside.mean(axis=(0, 1, 2)), 0, atol=1e-3)


@pytest.mark.slow
def test_large_pictures_that_are_no_squares_are_learned(tmp_path: Path) -> None:
    """A small network tells made-up shapes of 96x128 pixels apart after 50 steps."""
    labels, *splits = synthetic.load(800, 100, seed=0)
    training, test = (Split(enlarge(split.images, 96, 128), split.classes) for split in splits)
    dataset = hold_out("shapes", labels, training, test, validation_images=0)
    quick = dataclasses.replace(recipe("smoke", epochs=1, batch_size=16), learning_rate=4.0)
    environment = {"backend": "any", "precision": "float32", "hardware": "any"}
    trained = train(Job(dataset, quick, RunFolder(tmp_path)), environment)
    answers = np.asarray(trained.model(test.images.astype(np.float32), training=False))
    assert (answers.argmax(axis=1) == test.classes).mean() > 0.8


def enlarge(images: Pixels, height: int, width: int) -> Pixels:
    """Scale pictures [N, H, W, 3] to another size."""
    return np.stack([np.asarray(Image.fromarray(image).resize((width, height))) for image in images])
