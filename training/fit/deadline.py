"""A training that ends when its time is over, with the best so far."""

import time

import keras


class StopAtDeadline(keras.callbacks.Callback):  # type: ignore[misc]
    """End the training between two steps once ``seconds`` have passed since it began; None waits for its last epoch.

    The epoch counts as done, so that the weights are averaged and saved as after any other.
    """

    def __init__(self, seconds: float | None) -> None:
        super().__init__()
        self._seconds = seconds
        self._deadline: float | None = None
        self.over = False

    def on_train_begin(self, logs: dict[str, float] | None = None) -> None:
        """Start the clock; Keras calls this."""
        if self._seconds is not None:
            self._deadline = time.monotonic() + self._seconds

    def on_train_batch_end(self, batch: int, logs: dict[str, float] | None = None) -> None:
        """Stop once the time is over; Keras calls this."""
        if self._deadline is not None and not self.over and time.monotonic() >= self._deadline:
            self.over = True
            self.model.stop_training = True
            print("The time is over: going on with what is reached.", flush=True)
