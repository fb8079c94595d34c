"""What a report is made of."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from training.data.dataset import LeftOut
from training.data.findings import Finding
from training.evaluation.tasks import AnyEvaluation


@dataclass(frozen=True)
class Cost:
    """What it takes to answer with a network: its files in megabytes, and the milliseconds for one picture.

    ``accuracy`` says in words what it gets right, and of what.
    """

    network: str
    megabytes: float
    milliseconds: float
    accuracy: str


@dataclass(frozen=True)
class Contents:
    """What a report shows of one version.

    ``evaluation`` is what it answered to the pictures, and ``uncalibrated`` are its probabilities before calibration,
    float32 [N, classes], where they are known. ``history`` has losses and accuracies by name, a record for each epoch.
    ``timed_on`` is the machine that the milliseconds are of. ``facts`` are further names and values, and ``command`` is
    what repeats the training, where that is known. ``warnings`` say what the figures leave out. Without ``pictures``
    there are neither thumbnails nor names of files.
    """

    title: str
    evaluation: AnyEvaluation
    uncalibrated: NDArray[np.float32] | None
    history: Sequence[Mapping[str, float]]
    costs: tuple[Cost, ...]
    timed_on: str
    facts: tuple[tuple[str, str], ...]
    command: str | None = None
    left_out: tuple[LeftOut, ...] = ()
    passed_over: tuple[str, ...] = ()
    findings: tuple[Finding, ...] = ()
    warnings: tuple[str, ...] = ()
    pictures: bool = True
