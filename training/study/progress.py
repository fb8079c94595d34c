"""What a study shows while it runs: a line an epoch, with the time left for the whole of it."""

import sys
import time
from typing import Any

import keras
from tqdm import tqdm

from training.progress import duration
from training.study.configurations import Configuration, Schedule

# Time a picture in relation to the network of three blocks: TensorFlow in bfloat16 on two cores of an AMD EPYC (Zen 4).
_BLOCKS = {1: 0.4, 2: 0.7, 3: 1.0}
_BATCH_NORMALIZATION = 1.75
_AUGMENTATION = 1.1


def cost(configuration: Configuration) -> float:
    """Return roughly what an epoch of ``configuration`` takes, where the baseline's takes 1."""
    batch_normalization = _BATCH_NORMALIZATION if configuration.batch_normalization else 1.0
    augmentation = _AUGMENTATION if configuration.augment else 1.0
    return _BLOCKS[configuration.blocks] * batch_normalization * augmentation


class StudyProgress:
    """How far a study of several trainings has come; on a terminal also as a bar."""

    def __init__(self, schedule: Schedule, trainings: list[Configuration]) -> None:
        self._schedule = schedule
        self._begun = time.monotonic()
        self._left = sum(cost(training) * schedule.epochs_of(training) for training in trainings)
        self._done = 0.0
        self._bar = tqdm(
            total=self._left,
            bar_format="{percentage:3.0f}% |{bar}| {desc}",
            disable=not sys.stderr.isatty(),
            dynamic_ncols=True,
        )

    def skip(self, configuration: Configuration, epochs: int) -> None:
        """Take epochs that an earlier call trained off what is left."""
        self._left -= cost(configuration) * epochs
        self._bar.update(cost(configuration) * epochs)

    def step(self, amount: float) -> None:
        """Count work, in epochs of the baseline."""
        self._done += amount
        self._left -= amount
        self._bar.update(amount)

    def time_left(self) -> str:
        """Return in words how long the rest of the study will take, from what this call has trained."""
        return duration(max(self._left, 0.0) * (time.monotonic() - self._begun) / self._done)

    def say(self, line: str) -> None:
        """Print a line above the bar."""
        tqdm.write(line, file=sys.stdout)
        sys.stdout.flush()

    def close(self) -> None:
        """Take the bar off the terminal."""
        self._bar.close()

    def callback(self, configuration: Configuration, label: str, steps_per_epoch: int) -> keras.callbacks.Callback:
        """Return what reports one training to this study; ``label`` names it."""
        epochs = self._schedule.epochs_of(configuration)
        return _Report(self, label, epochs, cost(configuration) / steps_per_epoch)


class _Report(keras.callbacks.Callback):  # type: ignore[misc]
    def __init__(self, study: StudyProgress, label: str, epochs: int, step: float) -> None:
        super().__init__()
        self._study = study
        self._label = label
        self._epochs = epochs
        self._step = step

    def on_train_batch_end(self, batch: int, logs: dict[str, Any] | None = None) -> None:
        self._study.step(self._step)

    def on_epoch_end(self, epoch: int, logs: dict[str, float] | None = None) -> None:
        logs = logs or {}
        self._study.say(
            f"{self._label}  epoch {epoch + 1}/{self._epochs}  loss {logs['loss']:.4f}  "
            f"training accuracy {logs['accuracy']:.4f}  test accuracy {logs['val_accuracy']:.4f}  "
            f"study: {self._study.time_left()} left"
        )
