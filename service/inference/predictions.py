"""What a model predicts of pictures: how probable each label is, and how familiar they look where that is told."""

from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from artifact import Metadata
from service.inference.engine import Outputs, Probabilities

Embedding = npt.NDArray[np.float32]  # [N, D]


class Predictions(NamedTuple):
    """What is predicted of N pictures; the familiarity is None where the version does not tell it.

    The ``embedding``, float32 [N, D], is None where it was not asked for.

    ``familiarity`` is the score, float32 [N], higher where a picture is more like those of the training, and
    ``familiar`` says of each whether it reaches the version's threshold.
    """

    probabilities: Probabilities
    familiarity: npt.NDArray[np.float32] | None = None
    familiar: list[bool] | None = None
    embedding: Embedding | None = None


def interpret(outputs: Outputs, metadata: Metadata) -> Predictions:
    """Take apart the ``outputs`` of an engine that runs the version with ``metadata``."""
    classes = len(metadata.labels)
    columns = columns_without_embedding(metadata)
    embedding = outputs[:, columns:] if outputs.shape[1] > columns else None
    if metadata.familiarity is None:
        return Predictions(outputs[:, :classes], embedding=embedding)
    scores = outputs[:, classes]
    return Predictions(outputs[:, :classes], scores, (scores >= metadata.familiarity.threshold).tolist(), embedding)


def columns_without_embedding(metadata: Metadata) -> int:
    """Return how many columns an engine's outputs have for the version with ``metadata``, embeddings left out."""
    return len(metadata.labels) + (metadata.familiarity is not None)
