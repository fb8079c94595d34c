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
    ``familiar`` says of each whether it reaches the version's threshold. ``told``, bool [N, classes], says which labels
    reach theirs, where a picture may have several; None where it has one.
    """

    probabilities: Probabilities
    familiarity: npt.NDArray[np.float32] | None = None
    familiar: list[bool] | None = None
    embedding: Embedding | None = None
    told: npt.NDArray[np.bool_] | None = None


def interpret(outputs: Outputs, metadata: Metadata) -> Predictions:
    """Take apart the ``outputs`` of an engine that runs the version with ``metadata``."""
    classes = len(metadata.labels)
    columns = columns_without_embedding(metadata)
    embedding = outputs[:, columns:] if outputs.shape[1] > columns else None
    told = None if metadata.thresholds is None else outputs[:, :classes] >= _thresholds(metadata)
    if metadata.familiarity is None:
        return Predictions(outputs[:, :classes], embedding=embedding, told=told)
    scores = outputs[:, classes]
    familiar = (scores >= metadata.familiarity.threshold).tolist()
    return Predictions(outputs[:, :classes], scores, familiar, embedding, told)


def _thresholds(metadata: Metadata) -> npt.NDArray[np.float32]:
    """Return the thresholds in the order of the labels, float32 [classes], as the probabilities are."""
    thresholds = metadata.thresholds or {}
    return np.array([thresholds[label] for label in metadata.labels], np.float32)


def columns_without_embedding(metadata: Metadata) -> int:
    """Return how many columns an engine's outputs have for the version with ``metadata``, embeddings left out."""
    return len(metadata.labels) + (metadata.familiarity is not None)
