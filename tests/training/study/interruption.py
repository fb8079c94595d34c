"""A signal that comes in the middle of a training."""

import os
import signal

import keras
import pytest


class _Signal(keras.callbacks.Callback):  # type: ignore[misc]
    """Send SIGTERM to this process in an epoch, counted from 0, of the model with this name."""

    def __init__(self, name: str, epoch: int) -> None:
        super().__init__()
        self._place = (name, epoch)
        self._epoch = 0

    def on_epoch_begin(self, epoch: int, logs: object = None) -> None:
        self._epoch = epoch

    def on_train_batch_begin(self, batch: int, logs: object = None) -> None:
        if (self.model.name, self._epoch) == self._place and batch == 1:
            os.kill(os.getpid(), signal.SIGTERM)


def send_signal(monkeypatch: pytest.MonkeyPatch, name: str, epoch: int) -> None:
    """Let a signal come in the middle of ``epoch`` whenever the model with this name is trained."""
    fit = keras.Model.fit

    def fit_with_signal(self: keras.Model, *arguments: object, callbacks: list[object], **options: object) -> object:
        return fit(self, *arguments, callbacks=[_Signal(name, epoch), *callbacks], **options)

    monkeypatch.setattr(keras.Model, "fit", fit_with_signal)
