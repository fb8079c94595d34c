"""A training can be interrupted anywhere and goes on as if it had not been."""

import dataclasses
import json
from itertools import islice
from pathlib import Path

import keras
import numpy as np
import pytest

from training.data.augmentation import Batches
from training.data.dataset import Dataset
from training.errors import Interrupted, TrainingError
from training.fit.checkpoints import RunFolder
from training.fit.recipe import Recipe, recipe
from training.fit.train import Job, recalibrate, train
from training.network.model import build

pytestmark = pytest.mark.keras

ENVIRONMENT = {"backend": "tensorflow", "precision": "float32", "hardware": "any"}


@pytest.fixture
def short() -> Recipe:
    """Return a recipe of four epochs of three steps for a very small network."""
    return recipe("smoke", epochs=4, batch_size=16)


class _Interrupt(keras.callbacks.Callback):  # type: ignore[misc]
    def __init__(self, epoch: int) -> None:
        super().__init__()
        self._last = epoch
        self._epoch = 0

    def on_epoch_begin(self, epoch: int, logs: object = None) -> None:
        self._epoch = epoch

    def on_train_batch_end(self, batch: int, logs: object = None) -> None:
        if self._epoch == self._last and batch == 1:
            raise Interrupted(15)


def _interrupt(monkeypatch: pytest.MonkeyPatch, epoch: int) -> None:
    """Let the next training be interrupted in the middle of an epoch, counted from 0."""
    fit = keras.Model.fit

    def fit_and_stop(self: keras.Model, *arguments: object, callbacks: list[object], **options: object) -> object:
        return fit(self, *arguments, callbacks=[*callbacks, _Interrupt(epoch)], **options)

    monkeypatch.setattr(keras.Model, "fit", fit_and_stop)


@pytest.mark.slow
def test_a_resumed_run_ends_with_the_same_weights(
    small: Dataset, short: Recipe, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Interrupted in the middle of the third epoch and resumed, it has the very weights of an uninterrupted run."""
    whole = train(Job(small, short, RunFolder(tmp_path / "whole")), ENVIRONMENT)
    folder = RunFolder(tmp_path / "broken")
    with monkeypatch.context() as patch:
        _interrupt(patch, epoch=2)
        with pytest.raises(Interrupted):
            train(Job(small, short, folder), ENVIRONMENT)
    resumed = train(Job(small, short, folder), {**ENVIRONMENT, "hardware": "other"})
    assert len(resumed.state.history) == 4
    assert resumed.state.environment["hardware"] == "any"
    for expected, found in zip(whole.model.get_weights(), resumed.model.get_weights(), strict=True):
        np.testing.assert_array_equal(found, expected)


@pytest.mark.slow
def test_a_finished_run_is_not_trained_again(small: Dataset, short: Recipe, tmp_path: Path) -> None:
    """When publishing failed, the same command comes straight back to it with the same weights."""
    folder = RunFolder(tmp_path)
    first = train(Job(small, short, folder), ENVIRONMENT)
    again = train(Job(small, short, folder), ENVIRONMENT)
    assert again.state == first.state
    for expected, found in zip(first.model.get_weights(), again.model.get_weights(), strict=True):
        np.testing.assert_array_equal(found, expected)


@pytest.mark.slow
def test_another_run_is_not_resumed(small: Dataset, short: Recipe, tmp_path: Path) -> None:
    """A checkpoint of other settings is refused with the difference and the ways out, and stays as it is."""
    train(Job(small, short, RunFolder(tmp_path)), ENVIRONMENT)
    with pytest.raises(TrainingError, match=r"seed 0 -> 1.*--fresh"):
        train(Job(small, recipe("smoke", epochs=4, batch_size=16, seed=1), RunFolder(tmp_path)), ENVIRONMENT)
    stretched = dataclasses.replace(small, resize="stretch")  # of files, which would have the same digest
    with pytest.raises(TrainingError, match=r"pictures 32x32 pixels \(crop, bicubic\) -> 32x32 pixels \(stretch"):
        train(Job(stretched, short, RunFolder(tmp_path)), ENVIRONMENT)
    assert (tmp_path / "epoch-4").is_dir()


@pytest.mark.slow
def test_a_damaged_checkpoint_costs_an_epoch_and_changes_nothing(
    small: Dataset, short: Recipe, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The run goes on from the one before, and ends with the weights that it had."""
    first = train(Job(small, short, RunFolder(tmp_path)), ENVIRONMENT)
    (tmp_path / "epoch-4" / "checkpoint.weights.h5").write_bytes(b"damaged")
    again = train(Job(small, short, RunFolder(tmp_path)), ENVIRONMENT)
    printed = capsys.readouterr().out
    assert f"Passed over a checkpoint: {tmp_path}/epoch-4 is damaged" in printed
    assert f"Resuming {tmp_path} after epoch 3 of 4." in printed
    for expected, found in zip(first.model.get_weights(), again.model.get_weights(), strict=True):
        np.testing.assert_array_equal(found, expected)


@pytest.mark.slow
def test_only_the_last_two_checkpoints_are_kept(small: Dataset, short: Recipe, tmp_path: Path) -> None:
    """A long run does not fill the disk, and clear() leaves nothing but the logs."""
    folder = RunFolder(tmp_path)
    train(Job(small, short, folder), ENVIRONMENT)
    assert sorted(entry.name for entry in tmp_path.iterdir()) == ["epoch-3", "epoch-4", "tensorboard"]
    assert len(json.loads((tmp_path / "epoch-4" / "state.json").read_text())["history"]) == 4
    folder.clear()
    assert [entry.name for entry in tmp_path.iterdir()] == ["tensorboard"]


def test_recalibration_measures_the_plain_mean(small: Dataset) -> None:
    """After it, the statistics of the first normalisation are the mean over the batches' own."""
    model = build((32, 32, 3), 3, (8, 8), seed=0)
    recalibrate(model, np.split(small.train.images, 3))
    norm = model.get_layer("group1_a_norm")
    before = keras.Model(model.input, norm.input)
    means = [np.asarray(before(images)).mean(axis=(0, 1, 2)) for images in np.split(small.train.images, 3)]
    np.testing.assert_allclose(np.asarray(norm.moving_mean), np.mean(means, axis=0), rtol=1e-3, atol=1e-3)
    assert norm.momentum == 0.6


@pytest.mark.slow
def test_the_statistics_are_those_of_augmented_pictures(small: Dataset, tmp_path: Path) -> None:
    """Blanking a quarter of every picture moves them, as it moved those that the network learned with."""
    cut = recipe("smoke", epochs=1, batch_size=16, cutout=16)
    model = train(Job(small, cut, RunFolder(tmp_path)), ENVIRONMENT).model
    batches = Batches(small.train, 3, 16, cut.translation, cutout=16, flip=False, seed=cut.seed)
    norm = model.get_layer("group1_a_norm")
    before = keras.Model(model.input, norm.input)
    means = [np.asarray(before(images)).mean(axis=(0, 1, 2)) for images, _ in islice(batches.from_epoch(1), 20)]
    np.testing.assert_allclose(np.asarray(norm.moving_mean), np.mean(means, axis=0), rtol=2e-2, atol=2e-2)
    plain = np.asarray(before(small.train.images)).mean(axis=(0, 1, 2))
    assert np.abs(plain - norm.moving_mean).max() > 0.1
