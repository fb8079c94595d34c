"""Train and measure one configuration, resumably."""

import json
import math
from dataclasses import asdict, dataclass
from pathlib import Path

import keras

from training.data.batching import batch_of
from training.data.dataset import Dataset, Split, evenly_spaced
from training.errors import TrainingError
from training.fit.checkpoints import History, RunFolder, RunState
from training.fit.lineage import Record
from training.fit.optimizer import Triangle
from training.fit.progress import Checkpoints, StopOnSignal
from training.study.configurations import Configuration, Schedule
from training.study.network import build
from training.study.pictures import Batches
from training.study.progress import StudyProgress

_WARMUP = 0.2  # share of the steps over which the learning rate rises
_EVALUATION_BATCH = 500
_OUTCOME = "outcome.json"
_DESCRIPTION = ("what", "original")  # words about a configuration, which change nothing that it learns


@dataclass(frozen=True)
class Outcome:
    """A configuration, trained with one seed and measured.

    ``train_accuracy`` is of the training images as they are, with nothing dropped; ``test_accuracy`` of all test
    images. ``seconds`` is the time of the training alone. ``history`` has a record for each epoch, in which
    ``accuracy`` is measured while training and ``val_accuracy`` on the schedule's ``curve_images`` test images.
    ``settings`` are what makes two runs the same.
    """

    configuration: str
    seed: int
    parameters: int
    epochs: int
    seconds: float
    train_accuracy: float
    test_accuracy: float
    history: History
    settings: Record
    environment: dict[str, str]


@dataclass(frozen=True)
class Training:
    """A configuration with a schedule and a seed, and the folder ``path`` for its checkpoints and its outcome."""

    configuration: Configuration
    schedule: Schedule
    seed: int
    path: Path

    def settings(self, data: str) -> Record:
        """Return what makes two runs the same, as JSON keeps it; ``data`` is the data set's digest."""
        chosen = {**asdict(self.schedule), **asdict(self.configuration), "schedule": self.schedule.name}
        chosen = {name: value for name, value in chosen.items() if name not in _DESCRIPTION}
        settings: Record = json.loads(json.dumps({**chosen, "seed": self.seed, "data": data}))
        return settings

    def outcome(self, data: str) -> Outcome | None:
        """Return the outcome where this has been trained to its end on the data set with this digest."""
        try:
            outcome = Outcome(**json.loads((self.path / _OUTCOME).read_text(encoding="utf-8")))
        except FileNotFoundError:
            return None
        except (OSError, ValueError, TypeError) as error:
            raise TrainingError(f"{self.path / _OUTCOME} cannot be read ({error}); --fresh starts over") from error
        return outcome if outcome.settings == self.settings(data) else None

    def clear(self) -> None:
        """Remove the outcome and the checkpoints."""
        (self.path / _OUTCOME).unlink(missing_ok=True)
        RunFolder(self.path).clear()


def run(
    training: Training, dataset: Dataset, data: str, environment: dict[str, str], progress: StudyProgress, label: str
) -> Outcome:
    """Train, beginning at the last checkpoint, measure and return the outcome, which is kept in the folder.

    ``data`` is the digest of ``dataset``, ``environment`` says in words where it runs, ``label`` names it to the user.

    Raises:
        Interrupted: SIGTERM or SIGINT came; the epochs done are saved.
        TrainingError: the folder holds a run with other settings, or the loss is no number any more.
        OSError: the folder cannot be written.
    """
    keras.utils.clear_session()  # the network of the configuration before
    train = subset(dataset.train, training.schedule.train_images)
    model = build(training.configuration, train.images, len(dataset.labels), training.seed)
    batches = Batches(train, training.schedule.batch_size, augment=training.configuration.augment, seed=training.seed)
    _compile(model, training, len(batches))
    folder = RunFolder(training.path)
    state = folder.state(training.settings(data), environment)
    if state.epoch:
        folder.load(model)
        progress.say(f"{label}  goes on after epoch {state.epoch}")
        progress.skip(training.configuration, state.epoch)
    report = progress.callback(training.configuration, label, len(batches))
    state = _fit(model, batches, dataset.test, training, folder, state, report)
    outcome = Outcome(
        configuration=training.configuration.name,
        seed=training.seed,
        parameters=model.count_params(),
        epochs=state.epoch,
        seconds=round(state.seconds, 1),
        train_accuracy=_accuracy(model, train),
        test_accuracy=_accuracy(model, dataset.test),
        history=state.history,
        settings=state.settings,
        environment=state.environment,
    )
    _keep(outcome, training.path / _OUTCOME)
    return outcome


def subset(split: Split, count: int | None) -> Split:
    """Return ``count`` pictures of ``split``, evenly spread over it; all where it has no more, or for None."""
    if count is None or count >= len(split):
        return split
    chosen = evenly_spaced(len(split), count)
    return Split(split.images[chosen], split.classes[chosen])


def _compile(model: keras.Model, training: Training, steps_per_epoch: int) -> None:
    schedule = training.schedule
    steps = schedule.epochs_of(training.configuration) * steps_per_epoch
    rate = Triangle(schedule.learning_rate, steps, _WARMUP) if schedule.one_cycle else schedule.learning_rate
    model.compile(
        optimizer=keras.optimizers.SGD(rate, momentum=schedule.momentum),
        loss="sparse_categorical_crossentropy",
        metrics=["accuracy"],
    )
    model.optimizer.build(model.trainable_variables)  # a checkpoint has its state too


def _fit(
    model: keras.Model,
    batches: Batches,
    test: Split,
    training: Training,
    folder: RunFolder,
    state: RunState,
    report: keras.callbacks.Callback,
) -> RunState:
    epochs = training.schedule.epochs_of(training.configuration)
    if state.epoch >= epochs:
        return state
    curve = subset(test, training.schedule.curve_images)
    checkpoints = Checkpoints(folder, state)
    stop = StopOnSignal()
    with stop.listening():
        model.fit(
            batches.from_epoch(state.epoch),
            steps_per_epoch=len(batches),
            shuffle=False,  # an epoch is shuffled already
            epochs=epochs,
            initial_epoch=state.epoch,
            validation_data=(curve.images, curve.classes),
            validation_batch_size=_batch(curve),
            callbacks=[
                _ChanceOfEpoch(training.seed, len(batches)),
                _StopWithoutLoss(training.configuration.name),
                checkpoints,
                report,
                stop,
            ],
            verbose=0,
        )
    return checkpoints.state


class _ChanceOfEpoch(keras.callbacks.Callback):  # type: ignore[misc]
    """Let what dropout drops follow from the seed and the epoch's number: a checkpoint does not hold its state."""

    def __init__(self, seed: int, steps_per_epoch: int) -> None:
        super().__init__()
        self._seed = seed
        self._steps = steps_per_epoch

    def on_epoch_begin(self, epoch: int, logs: dict[str, float] | None = None) -> None:
        dropouts = [layer for layer in self.model.layers if isinstance(layer, keras.layers.Dropout)]
        for number, layer in enumerate(dropouts):
            # A stream's name and the place in it, which every step moves on by one.
            layer.seed_generator.state.assign([self._seed * len(dropouts) + number, epoch * self._steps])


class _StopWithoutLoss(keras.callbacks.Callback):  # type: ignore[misc]
    """End a training whose loss is no number any more, before it is saved."""

    def __init__(self, name: str) -> None:
        super().__init__()
        self._name = name

    def on_epoch_end(self, epoch: int, logs: dict[str, float] | None = None) -> None:
        loss = (logs or {})["loss"]
        if not math.isfinite(loss):
            raise TrainingError(f"{self._name}: the loss is {loss} after epoch {epoch + 1}; try --precision float32")


def _accuracy(model: keras.Model, split: Split) -> float:
    return float(model.evaluate(split.images, split.classes, _batch(split), verbose=0, return_dict=True)["accuracy"])


def _batch(split: Split) -> int:
    height, width = split.images.shape[1:3]
    return batch_of(height, width, _EVALUATION_BATCH)


def _keep(outcome: Outcome, path: Path) -> None:
    """Write the outcome beside its place and rename it, so that there is never half of one."""
    draft = path.with_suffix(".draft")
    draft.write_text(json.dumps(asdict(outcome)), encoding="utf-8")
    draft.replace(path)
