"""A batch that does not fit into memory is halved."""

from pathlib import Path

import keras
import numpy as np
import pytest
import tensorflow as tf

from tests.training.fit.test_train import ENVIRONMENT
from training.data.dataset import Dataset
from training.errors import TrainingError
from training.fit.checkpoints import RunFolder
from training.fit.out_of_memory import OutOfMemory, is_out_of_memory, smaller_batch
from training.fit.recipe import recipe
from training.fit.train import Job, train

pytestmark = pytest.mark.keras

TOO_MUCH = (2**20, 2**22)  # 16 TiB of float32, which no allocator gives


@pytest.fixture(scope="module")
def exhausted() -> Exception:
    """Return what TensorFlow raises where memory runs out; it first waits ten seconds for some."""
    with pytest.raises(tf.errors.ResourceExhaustedError) as raised:
        tf.zeros(TOO_MUCH)
    error: Exception = raised.value
    return error


class _Hog(keras.callbacks.Callback):  # type: ignore[misc]
    """Let memory run out in the third epoch, while that has fewer than ``steps`` steps."""

    def __init__(self, steps: int, exhausted: Exception) -> None:
        super().__init__()
        self._steps = steps
        self._exhausted = exhausted
        self._epoch = 0

    def on_epoch_begin(self, epoch: int, logs: object = None) -> None:
        self._epoch = epoch

    def on_train_batch_begin(self, batch: int, logs: object = None) -> None:
        if self._epoch == 2 and batch == 1 and self.params["steps"] < self._steps:
            raise self._exhausted


@pytest.mark.slow
def test_the_batch_is_halved_and_the_training_goes_on(
    small: Dataset, exhausted: Exception, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Out of memory in the third epoch, it begins again with half the batch; schedule, record and resuming follow."""
    folder = RunFolder(tmp_path)
    short = recipe("smoke", epochs=4, batch_size=16)
    trained = train(Job(small, short, folder), ENVIRONMENT, [_Hog(6, exhausted)])
    printed = capsys.readouterr().out
    assert "Out of memory: going on with a batch of 8 in place of 16" in printed
    assert f"Resuming {tmp_path} after epoch 2 of 4." in printed
    assert len(trained.state.history) == 4
    optimizer = trained.model.optimizer
    assert int(optimizer.iterations) == 4 * 6  # as if every epoch had had six steps, so the schedule ended at zero
    assert float(optimizer.learning_rate) == pytest.approx(0, abs=1e-6)
    resumed = train(Job(small, short, folder), ENVIRONMENT)
    assert resumed.state.batch_size == 8
    assert resumed.state.environment["changed"] == "batch size 16 -> 8, for want of memory from epoch 3"


@pytest.mark.slow
def test_out_of_memory_is_told_from_other_errors(exhausted: Exception) -> None:
    """The real errors of TensorFlow and NumPy are; a full disk, which TensorFlow calls the same, is not."""
    with pytest.raises(MemoryError) as from_numpy:
        np.empty(2**55)
    assert is_out_of_memory(exhausted)
    assert is_out_of_memory(from_numpy.value)
    assert not is_out_of_memory(tf.errors.ResourceExhaustedError(None, None, "/runs; No space left on device"))
    assert not is_out_of_memory(ValueError("2 is not 3"))


def test_devices_still_share_equally() -> None:
    """Half a batch is rounded down to what every device gets as much of."""
    assert smaller_batch(OutOfMemory(500), devices=1, machines=1) == 250
    assert smaller_batch(OutOfMemory(24), devices=8, machines=1) == 8


def test_the_end_is_said() -> None:
    """Where no picture would be left for a device, or other machines wait for the whole batch, a sentence says so."""
    with pytest.raises(TrainingError, match="does not even hold a batch of 1"):
        smaller_batch(OutOfMemory(1), devices=1, machines=1)
    with pytest.raises(TrainingError, match="--batch-size 8 to all machines"):
        smaller_batch(OutOfMemory(16), devices=2, machines=2)
