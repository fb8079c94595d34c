"""What the rows of an engine say: how probable each label is, and how familiar the picture looks where that is told."""

from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from artifact import Metadata
from service.inference.engine import Probabilities, Rows

Row = npt.NDArray[np.float32]  # one of Rows


class Answers(NamedTuple):
    """What there is to say of N pictures; the familiarity is None where the version does not tell it.

    ``familiarity`` is the score, float32 [N], higher where a picture is more like those of the training, and
    ``familiar`` says of each whether it reaches the version's threshold.
    """

    probabilities: Probabilities
    familiarity: npt.NDArray[np.float32] | None = None
    familiar: list[bool] | None = None


def read(rows: Rows, metadata: Metadata) -> Answers:
    """Take ``rows`` of an engine that runs the version with ``metadata`` apart."""
    if metadata.familiarity is None:
        return Answers(rows)
    classes = len(metadata.labels)
    scores = rows[:, classes]
    return Answers(rows[:, :classes], scores, (scores >= metadata.familiarity.threshold).tolist())
