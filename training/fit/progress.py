"""What a training shows while it runs, and how it listens to signals."""

import signal
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from types import FrameType
from typing import Any

import keras
from tqdm import tqdm

from training.errors import Interrupted
from training.fit.checkpoints import RunFolder, RunState
from training.progress import duration

_SILENCE = 30.0  # seconds without a word, at most, until it is said how long an epoch takes


class Progress(keras.callbacks.Callback):  # type: ignore[misc]
    """Print a line an epoch with losses, accuracies and the time left; on a terminal also a bar over all steps.

    Where there is no bar and the first epoch takes long, a line says after half a minute how long all will take.
    """

    def __init__(self, epochs: int, steps_per_epoch: int) -> None:
        super().__init__()
        self._epochs = epochs
        self._steps = steps_per_epoch
        self._bar: tqdm[Any] | None = None
        self._begun = 0.0
        self._first = 0
        self._first_step: float | None = None
        self._silent = True

    def on_epoch_begin(self, epoch: int, logs: dict[str, float] | None = None) -> None:
        """Start the bar with the first epoch; Keras calls this."""
        if self._bar is None:
            self._begun, self._first = time.monotonic(), epoch
            self._bar = tqdm(
                total=self._epochs * self._steps,
                initial=epoch * self._steps,
                unit="step",
                disable=not sys.stderr.isatty(),
                dynamic_ncols=True,
            )

    def on_train_batch_end(self, batch: int, logs: dict[str, float] | None = None) -> None:
        """Move the bar; Keras calls this."""
        if self._bar is not None:
            self._bar.set_postfix({name: f"{value:.3f}" for name, value in (logs or {}).items()}, refresh=False)
            self._bar.update()
            if self._silent and self._bar.disable:
                self._foretell(batch)

    def _foretell(self, batch: int) -> None:
        """Say how long the training will take, once that can be told; the first step, which compiles, tells nothing."""
        now = time.monotonic()
        if self._first_step is None:
            self._first_step = now
        elif now - self._first_step >= _SILENCE:
            epoch = (now - self._first_step) / batch * self._steps
            left = epoch * (self._epochs - self._first) - (now - self._begun)
            print(f"An epoch takes about {duration(epoch)}, all of them {duration(left)} more.", flush=True)
            self._silent = False

    def on_epoch_end(self, epoch: int, logs: dict[str, float] | None = None) -> None:
        """Print the epoch's line; Keras calls this."""
        self._silent = False
        logs = logs or {}
        elapsed = time.monotonic() - self._begun
        left = elapsed / (epoch + 1 - self._first) * (self._epochs - epoch - 1)
        line = f"epoch {epoch + 1}/{self._epochs}  loss {logs['loss']:.4f}  accuracy {logs['accuracy']:.4f}"
        if "val_accuracy" in logs:
            line += f"  validation loss {logs['val_loss']:.4f}  accuracy {logs['val_accuracy']:.4f}"
        tqdm.write(f"{line}  time left {duration(left)}", file=sys.stdout)
        sys.stdout.flush()

    def close(self) -> None:
        """Take the bar off the terminal."""
        if self._bar is not None:
            self._bar.close()


class Checkpoints(keras.callbacks.Callback):  # type: ignore[misc]
    """Save the run after every epoch."""

    def __init__(self, folder: RunFolder, state: RunState) -> None:
        super().__init__()
        self._folder = folder
        self.state = state
        self._begun = 0.0

    def on_epoch_begin(self, epoch: int, logs: dict[str, float] | None = None) -> None:
        """Take the time; Keras calls this."""
        self._begun = time.monotonic()

    def on_epoch_end(self, epoch: int, logs: dict[str, float] | None = None) -> None:
        """Save; Keras calls this."""
        record = {name: float(value) for name, value in (logs or {}).items()}
        record["seconds"] = time.monotonic() - self._begun
        self.state = replace(self.state, epoch=epoch + 1, history=[*self.state.history, record])
        self._folder.save(self.model, self.state)


class StopOnSignal(keras.callbacks.Callback):  # type: ignore[misc]
    """End the training between two steps once SIGTERM or SIGINT has come."""

    def __init__(self) -> None:
        super().__init__()
        self._received: int | None = None

    def on_train_batch_end(self, batch: int, logs: dict[str, float] | None = None) -> None:
        """Raise Interrupted if a signal came; Keras calls this."""
        if self._received is not None:
            raise Interrupted(self._received)

    @contextmanager
    def listening(self) -> Iterator[None]:
        """Take over both signals within the block; a second one does not wait for the step.

        Raises:
            Interrupted: at the block's end, where a signal came after the last step.
        """
        numbers = (signal.SIGTERM, signal.SIGINT)
        self._before = {number: signal.signal(number, self._receive) for number in numbers}
        try:
            yield
        finally:
            self._restore()
        if self._received is not None:
            raise Interrupted(self._received)

    def _receive(self, number: int, _frame: FrameType | None) -> None:
        self._received = number
        self._restore()

    def _restore(self) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)
