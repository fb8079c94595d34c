"""What a model predicts of pictures: how probable each label is, and how familiar they look where that is told."""

from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from artifact import Metadata
from service.inference.engine import Outputs, Probabilities


class Predictions(NamedTuple):
    """What is predicted of N pictures; the familiarity is None where the version does not tell it.

    ``familiarity`` is the score, float32 [N], higher where a picture is more like those of the training, and
    ``familiar`` says of each whether it reaches the version's threshold.
    """

    probabilities: Probabilities
    familiarity: npt.NDArray[np.float32] | None = None
    familiar: list[bool] | None = None


def interpret(outputs: Outputs, metadata: Metadata) -> Predictions:
    """Take apart the ``outputs`` of an engine that runs the version with ``metadata``."""
    if metadata.familiarity is None:
        return Predictions(outputs)
    classes = len(metadata.labels)
    scores = outputs[:, classes]
    return Predictions(outputs[:, :classes], scores, (scores >= metadata.familiarity.threshold).tolist())
