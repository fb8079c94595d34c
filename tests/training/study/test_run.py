"""A configuration can be interrupted anywhere and goes on as if it had not been."""

from dataclasses import replace
from pathlib import Path

import pytest

from tests.training.study.interruption import send_signal
from training.data.dataset import Dataset
from training.errors import Interrupted, TrainingError
from training.study.configurations import QUICK, Configuration
from training.study.progress import StudyProgress
from training.study.run import Outcome, Training, run, subset

pytestmark = pytest.mark.keras

ENVIRONMENT = {"backend": "tensorflow", "precision": "float32", "hardware": "any"}
CONFIGURATION = Configuration("moved", "dropped and moved", blocks=1, dropout=0.5, augment=True)


@pytest.fixture
def training(tmp_path: Path) -> Training:
    """Return a training of three epochs of three steps, in which chance has its hand everywhere."""
    return Training(CONFIGURATION, replace(QUICK, epochs=3, batch_size=16), 1, tmp_path / "run")


def _run(training: Training, small: Dataset) -> Outcome:
    progress = StudyProgress(training.schedule, [training.configuration])
    return run(training, small, "digest", ENVIRONMENT, progress, "[1/1]")


@pytest.mark.slow
def test_a_resumed_training_learns_what_an_uninterrupted_one_does(
    small: Dataset, training: Training, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also what dropout drops and how pictures are moved is the same after a resumption."""
    whole = _run(replace(training, path=tmp_path / "whole"), small)
    with monkeypatch.context() as patch:
        send_signal(patch, "moved", epoch=1)
        with pytest.raises(Interrupted):
            _run(training, small)
    assert training.outcome("digest") is None
    resumed = _run(training, small)
    losses = [[record["loss"] for record in outcome.history] for outcome in (whole, resumed)]
    assert losses[1] == pytest.approx(losses[0], rel=1e-4)
    assert resumed.test_accuracy == whole.test_accuracy
    assert training.outcome("digest") == resumed
    assert training.outcome("of other data") is None

    other = replace(training, schedule=replace(training.schedule, learning_rate=0.5))
    assert other.outcome("digest") is None
    with pytest.raises(TrainingError, match=r"learning_rate 0\.02 -> 0\.5.*--fresh"):
        _run(other, small)
    training.clear()
    assert list(training.path.iterdir()) == []


@pytest.mark.slow
def test_a_loss_that_is_no_number_ends_the_training(small: Dataset, training: Training) -> None:
    """The error names the configuration, and no such epoch is saved."""
    configuration = Configuration("wild", "", blocks=1, l2=1.0)
    wild = replace(training, configuration=configuration, schedule=replace(training.schedule, learning_rate=1e30))
    with pytest.raises(TrainingError, match=r"wild: the loss is (nan|inf) after epoch 1"):
        _run(wild, small)
    assert list(training.path.rglob("epoch-*")) == []


def test_some_pictures_are_taken_from_everywhere(small: Dataset) -> None:
    """A subset is spread over all pictures, since a data set may be sorted by class; all are taken where asked."""
    part = subset(small.train, 5)
    places = [0, 11, 23, 35, 47]
    assert (part.images == small.train.images[places]).all()
    assert (part.classes == small.train.classes[places]).all()
    assert subset(small.train, None) is subset(small.train, 1000) is small.train


def test_a_damaged_outcome_is_named(training: Training) -> None:
    """An outcome that cannot be read says which file it is and how to go on."""
    training.path.mkdir()
    (training.path / "outcome.json").write_text("{")
    with pytest.raises(TrainingError, match=r"outcome\.json cannot be read .*--fresh"):
        training.outcome("digest")
