"""Stop a training that has diverged before it overwrites its last good checkpoint."""

import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import keras
import numpy as np

from training.errors import TrainingError

_LOOK_SECONDS = 1.0


class StopWhenDiverged(keras.callbacks.Callback):  # type: ignore[misc]
    """Raise TrainingError when a loss or a weight is no longer a finite number; it stands before what saves them.

    Within an epoch it looks at the loss once a second, since reading a figure makes a GPU wait. ``learning_rate`` is
    the recipe's and ``last_checkpoint`` finds the last one saved, if any; both are for the message.
    """

    def __init__(self, learning_rate: float, last_checkpoint: Callable[[], Path | None]) -> None:
        super().__init__()
        self._learning_rate = learning_rate
        self._last_checkpoint = last_checkpoint
        self._epoch = 0
        self._looked = time.monotonic()

    def on_epoch_begin(self, epoch: int, logs: dict[str, float] | None = None) -> None:
        """Note the epoch; Keras calls this."""
        self._epoch = epoch

    def on_train_batch_end(self, batch: int, logs: dict[str, Any] | None = None) -> None:
        """Look at the loss; Keras calls this."""
        if logs and time.monotonic() - self._looked >= _LOOK_SECONDS:
            self._looked = time.monotonic()
            self._require_finite("loss", [logs["loss"]])

    def on_epoch_end(self, epoch: int, logs: dict[str, float] | None = None) -> None:
        """Look at all that is about to be saved; Keras calls this."""
        figures = {name: value for name, value in (logs or {}).items() if name.endswith("loss")}
        for name, value in figures.items():
            self._require_finite(name.replace("val_", "validation "), [value])
        self._require_finite("weights", (*self.model.weights, *self.model.optimizer.variables))

    def _require_finite(self, what: str, values: Iterable[Any]) -> None:
        if all(np.isfinite(keras.ops.convert_to_numpy(value)).all() for value in values):
            return
        checkpoint = self._last_checkpoint()
        rate = f"a lower --learning-rate (it is {self._learning_rate:g})"
        raise TrainingError(
            f"the {what} became infinite or not a number in epoch {self._epoch + 1}; "
            + (
                f"{checkpoint} is kept: give the same command with {rate} to go on from it"
                if checkpoint
                else f"give {rate}"
            )
        )
