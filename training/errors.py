"""What ends a training early: what a user can put right, and a user's wish."""

from types import FrameType


class TrainingError(Exception):
    """Training cannot go on; the message says why and what to do. It becomes exit code 1, without a traceback."""


class AccuracyLost(TrainingError):
    """The int8 network is not worth publishing: it answers too many pictures wrong."""


class WorseVersion(TrainingError):
    """The new version is worse than the one that it would replace, so it is not published."""


class NoGpu(TrainingError):
    """The training is meant for a GPU, and there is none."""


class Interrupted(BaseException):
    """A signal asked the training to stop; what was learned up to the last epoch is on the disk.

    Like KeyboardInterrupt it is no error, so that nothing that catches those takes it for one.
    """

    def __init__(self, signal_number: int) -> None:
        super().__init__(signal_number)
        self.signal_number = signal_number


class Interruption:
    """Turns a signal into Interrupted, so that the program leaves through every ``with`` and cleans up."""

    def __init__(self) -> None:
        self._received: int | None = None

    def receive(self, number: int, _frame: FrameType | None) -> None:
        """Raise Interrupted; a handler for ``signal.signal``."""
        self._received = number
        self.check()

    def check(self) -> None:
        """Raise Interrupted if a signal came: Python drops what a handler raises inside a callback of native code."""
        if self._received is not None:
            raise Interrupted(self._received)
