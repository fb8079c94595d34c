"""What the client gives back: one result for each picture, and the errors that end everything."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Prediction:
    """One label and how probable it is, from 0 to 1."""

    label: str
    probability: float


@dataclass(frozen=True, slots=True)
class Model:
    """The model version that answered."""

    name: str
    version: int


@dataclass(frozen=True, slots=True)
class Result:
    """What came of one picture, or of one path that leads to none.

    ``file`` is the name as it was given or found; bytes of it that are not text are surrogates, as ``os.fsdecode``
    makes them. Either ``predictions`` (the most probable first) and ``model`` are there, or ``error``, a word for
    programs, and ``message``, a sentence for people. ``familiar`` says whether the picture looks like those that the
    model was trained on, where the model tells it. Where a picture may have several labels, ``labels`` are those that
    it has, which may be none; they are None where it has one.
    """

    file: str
    predictions: tuple[Prediction, ...] = ()
    model: Model | None = None
    error: str | None = None
    message: str = ""
    familiar: bool | None = None
    labels: tuple[Prediction, ...] | None = None

    @property
    def told(self) -> tuple[Prediction, ...]:
        """What to tell of the picture: the labels that it has, or else the most probable ones."""
        return self.predictions if self.labels is None else self.labels


class RequestFailed(Exception):
    """A request got no usable answer. ``name`` is a word for programs, the text a sentence for people."""

    def __init__(self, name: str, message: str) -> None:
        super().__init__(message)
        self.name = name


class Refused(RequestFailed):
    """What answers does not take such requests at all: a wrong address, missing rights, no Darkroom service."""


class TooLarge(RequestFailed):
    """The request holds more than the service takes at once."""


class Busy(RequestFailed):
    """The service cannot answer now. ``retry_after`` is how long it asks to wait, in seconds, if it says so."""

    def __init__(self, name: str, message: str, retry_after: float | None = None) -> None:
        super().__init__(name, message)
        self.retry_after = retry_after


class Unreachable(Busy):
    """Nothing answered: no connection, a broken one, or no answer in time."""
