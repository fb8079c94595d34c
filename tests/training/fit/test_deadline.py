"""A training ends when its time is over, and what it has reached by then counts."""

from pathlib import Path

import keras
import numpy as np
import pytest

from training.data.dataset import Dataset
from training.fit.checkpoints import RunFolder
from training.fit.deadline import StopAtDeadline
from training.fit.recipe import recipe
from training.fit.train import Job, train

pytestmark = pytest.mark.keras


class Steps(keras.callbacks.Callback):  # type: ignore[misc]
    """Counts the steps of a training."""

    def __init__(self) -> None:
        super().__init__()
        self.done = 0

    def on_train_batch_end(self, batch: int, logs: object = None) -> None:
        self.done += 1


@pytest.mark.slow
def test_time_that_is_over_stops_between_two_steps(
    small: Dataset, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The step that runs is finished, and the epoch counts as done: it is saved, averaged and in the table."""
    steps, deadline = Steps(), StopAtDeadline(1e-3)
    job = Job(small, recipe("smoke", epochs=4, batch_size=8), RunFolder(tmp_path))
    trained = train(job, {}, [steps, deadline])
    assert (steps.done, deadline.over) == (1, True)
    assert trained.state.epoch == len(trained.state.history) == 1
    assert {"loss", "val_loss", "seconds"} <= trained.state.history[0].keys()
    assert all(np.isfinite(weight).all() for weight in trained.model.get_weights())
    assert job.folder.last() == tmp_path / "epoch-1"
    assert len((tmp_path / "tensorboard" / "results.csv").read_text().splitlines()) == 2
    assert capsys.readouterr().out.count("The time is over: going on with what is reached.") == 1


@pytest.mark.slow
@pytest.mark.parametrize("seconds", [None, 600.0])
def test_time_that_is_not_over_changes_nothing(small: Dataset, tmp_path: Path, seconds: float | None) -> None:
    """Without a limit, or well within it, all epochs have all their steps."""
    steps, deadline = Steps(), StopAtDeadline(seconds)
    trained = train(Job(small, recipe("smoke", epochs=2, batch_size=16), RunFolder(tmp_path)), {}, [steps, deadline])
    assert (steps.done, deadline.over, trained.state.epoch) == (2 * (48 // 16), False, 2)
