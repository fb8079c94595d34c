"""A training that diverges stops, and what was good stays."""

import json
from pathlib import Path

import keras
import numpy as np
import pytest

from tests.training.fit.test_train import ENVIRONMENT
from training.data.dataset import Dataset, Split, hold_out
from training.errors import TrainingError
from training.fit.checkpoints import RunFolder
from training.fit.recipe import Recipe, recipe
from training.fit.train import Job, train

pytestmark = pytest.mark.keras


@pytest.fixture
def short() -> Recipe:
    """Return a recipe of four epochs of three steps for a very small network."""
    return recipe("smoke", epochs=4, batch_size=16)


@pytest.fixture
def unvalidated(small: Dataset) -> Dataset:
    """Return a data set without validation images, whose loss would show a bad weight."""
    return hold_out("small", small.labels, Split(small.train.images, small.train.classes), small.test, 0)


class _Spoil(keras.callbacks.Callback):  # type: ignore[misc]
    """Make a weight infinite after the last step of an epoch, counted from 0."""

    def __init__(self, epoch: int) -> None:
        super().__init__()
        self._spoilt = epoch
        self._epoch = 0

    def on_epoch_begin(self, epoch: int, logs: object = None) -> None:
        self._epoch = epoch

    def on_train_batch_end(self, batch: int, logs: object = None) -> None:
        if self._epoch == self._spoilt and batch == self.params["steps"] - 1:
            weight = self.model.get_layer("head").kernel
            weight.assign(np.full(weight.shape, np.inf))


@pytest.mark.slow
def test_a_far_too_high_rate_is_named(unvalidated: Dataset, tmp_path: Path) -> None:
    """With a learning rate of 1e9 nothing is saved, and the message tells the way out and the rate that failed."""
    steep = recipe("smoke", epochs=2, batch_size=16, learning_rate=1e9)
    with pytest.raises(TrainingError, match=r"not a number in epoch 1; give a lower --learning-rate \(it is 1e\+09\)"):
        train(Job(unvalidated, steep, RunFolder(tmp_path)), ENVIRONMENT)
    assert not list(tmp_path.glob("epoch-*"))


@pytest.mark.slow
def test_the_last_good_checkpoint_is_kept_and_gone_on_from(unvalidated: Dataset, short: Recipe, tmp_path: Path) -> None:
    """Infinite weights after the third epoch are not saved; a lower rate goes on from the second, and is on record."""
    folder = RunFolder(tmp_path)
    with pytest.raises(TrainingError, match=r"the weights became .* in epoch 3; .*epoch-2 is kept"):
        train(Job(unvalidated, short, folder), ENVIRONMENT, [_Spoil(epoch=2)])
    assert sorted(entry.name for entry in tmp_path.glob("epoch-*")) == ["epoch-1", "epoch-2"]
    lower = recipe("smoke", epochs=4, batch_size=16, learning_rate=0.5)
    trained = train(Job(unvalidated, lower, folder), ENVIRONMENT)
    assert all(np.isfinite(weight).all() for weight in trained.model.get_weights())
    assert len(trained.state.history) == 4
    saved = json.loads((tmp_path / "epoch-4" / "state.json").read_text())
    assert saved["settings"]["learning_rate"] == 0.5
    assert saved["environment"]["changed"] == "learning rate 1.5 -> 0.5 from epoch 3"


@pytest.mark.slow
def test_a_higher_rate_is_another_run(unvalidated: Dataset, short: Recipe, tmp_path: Path) -> None:
    """Only a lower learning rate may go on from a checkpoint."""
    train(Job(unvalidated, short, RunFolder(tmp_path)), ENVIRONMENT)
    higher = recipe("smoke", epochs=4, batch_size=16, learning_rate=2.0)
    with pytest.raises(TrainingError, match=r"learning_rate 1.5 -> 2.0"):
        train(Job(unvalidated, higher, RunFolder(tmp_path)), ENVIRONMENT)
