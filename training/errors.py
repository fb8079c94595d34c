"""What a user can put right, as opposed to a fault of the program."""


class TrainingError(Exception):
    """Training cannot go on; the message says why and what to do. It becomes exit code 1, without a traceback."""


class Interrupted(Exception):
    """A signal asked the training to stop; what was learned up to the last epoch is on the disk."""

    def __init__(self, signal_number: int) -> None:
        super().__init__(signal_number)
        self.signal_number = signal_number
