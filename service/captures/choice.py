"""Which pictures are worth labelling, and what is kept of each."""

import random
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import msgspec
import numpy as np

from artifact import Metadata
from service.inference.engine import Output
from service.inference.items import Item
from service.inference.loaded import LoadedModel
from service.inference.predictions import interpret

RANDOM, UNFAMILIAR, SMALL_MARGIN, REPORTED = REASONS = ("random", "unfamiliar", "small_margin", "reported")
"""Why a picture is kept; it may be for several reasons."""

_MOST_LABELS = 10  # of an answer that is kept


class Ranked(msgspec.Struct):
    """A label and how probable it was."""

    label: str
    probability: float


class KeptAnswer(msgspec.Struct):
    """What a picture was answered: the most probable labels first; ``familiarity`` where the version tells it.

    ``suggested`` is the label that somebody says is right who reported the answer.
    """

    model: str
    version: int
    predictions: list[Ranked]
    familiarity: float | None
    familiar: bool | None
    reasons: list[str]
    time: float  # seconds since the epoch
    request_id: str | None
    suggested: str | None = None


@dataclass(frozen=True)
class Chosen:
    """A picture as it was sent, with what the version of ``model`` answered; ``output`` is float32 [columns].

    ``suggested`` is as in ``KeptAnswer``.
    """

    content: bytes
    model: str
    version: int
    metadata: Metadata
    output: Output
    reasons: tuple[str, ...]
    suggested: str | None = None

    def answer(self, time: float, request_id: str | None) -> KeptAnswer:
        """Return what is written of the answer, which was given at ``time``, in seconds since the epoch."""
        labels, predicted = self.metadata.labels, interpret(self.output[np.newaxis], self.metadata)
        [probabilities] = predicted.probabilities
        best = np.argsort(-probabilities, kind="stable")[:_MOST_LABELS].tolist()
        predictions = [Ranked(labels[index], float(f"{probabilities[index]:.7g}")) for index in best]
        score = None if predicted.familiarity is None else float(predicted.familiarity[0])
        familiar = None if predicted.familiar is None else predicted.familiar[0]
        return KeptAnswer(
            self.model, self.version, predictions, score, familiar, list(self.reasons), time, request_id, self.suggested
        )


class Choice:
    """Says which pictures are kept: a share of all by chance, and those that the model is not sure of."""

    def __init__(self, share: float, margin: float, chance: Callable[[], float] = random.random) -> None:
        """Take the share of all pictures, 0 to 1, and the lead of the first label, 0 to 1, that is too small."""
        self._share = share
        self._margin = margin
        self._chance = chance

    def among(self, model: LoadedModel, items: Sequence[Item], outputs: Sequence[object]) -> Iterator[Chosen]:
        """Yield what is kept of ``items``; ``outputs`` has float32 [columns] for each that was answered.

        Pixels without a file are not kept. Chance decides first, so that the share does not depend on what a picture
        shows or on what was answered.
        """
        for item, output in zip(items, outputs, strict=True):
            if isinstance(item.content, bytes) and isinstance(output, np.ndarray):
                drawn = self._chance() < self._share
                if reasons := ((RANDOM,) if drawn else ()) + self._doubts(model, output):
                    # A copy, since it is a row of what a whole batch gave.
                    yield Chosen(item.content, model.name, model.version, model.metadata, output.copy(), reasons)

    def _doubts(self, model: LoadedModel, output: Output) -> tuple[str, ...]:
        classes, known = len(model.metadata.labels), model.metadata.familiarity
        unfamiliar = known is not None and output.item(classes) < known.threshold
        doubts = (UNFAMILIAR,) if unfamiliar else ()
        return (*doubts, SMALL_MARGIN) if self._is_close(output[:classes]) else doubts

    def _is_close(self, probabilities: Output) -> bool:
        """Say whether the second label is almost as probable as the first; by what NumPy does fastest with few."""
        place = probabilities.argmax()
        best = probabilities.item(place)
        if 2 * best - 1 >= self._margin or len(probabilities) < 2:  # the others share what is left
            return False
        others = probabilities.copy()
        others[place] = -1.0
        return bool(best - others.item(others.argmax()) < self._margin)
