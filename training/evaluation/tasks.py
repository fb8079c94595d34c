"""What is measured of a version, whichever its task is: one label for each picture, or several."""

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from artifact import Metadata
from training.data.dataset import Split
from training.evaluation import multi_label, report
from training.evaluation.accuracy import Evaluation
from training.evaluation.comparison import Comparison
from training.evaluation.inference import openvino_predict
from training.evaluation.multi_label import MultiLabelComparison, MultiLabelEvaluation
from training.evaluation.thresholds import Thresholds

AnyEvaluation = Evaluation | MultiLabelEvaluation


def evaluation_of(
    labels: tuple[str, ...],
    measured_on: str,
    split: Split,
    probabilities: NDArray[np.float32],
    thresholds: Thresholds | None,
) -> AnyEvaluation:
    """Return what was answered to ``split``; ``thresholds`` are None where a picture has one label."""
    if thresholds is None:
        return Evaluation(labels, measured_on, split, probabilities)
    return MultiLabelEvaluation(labels, measured_on, split, probabilities, thresholds)


def evaluate_version(version: Path, metadata: Metadata, split: Split, measured_on: str) -> AnyEvaluation:
    """Let the version in folder ``version`` answer to ``split``, whose classes stand in the order of its labels."""
    probabilities = openvino_predict(version)(split.images)
    return evaluation_of(metadata.labels, measured_on, split, probabilities, thresholds_of(metadata))


def thresholds_of(metadata: Metadata) -> Thresholds | None:
    """Return the thresholds of a version in the order of its labels, float64 [labels]; None of any other task."""
    if metadata.thresholds is None:
        return None
    return np.array([metadata.thresholds[label] for label in metadata.labels])


def table(evaluation: AnyEvaluation) -> str:
    """Return the figures for people."""
    if isinstance(evaluation, MultiLabelEvaluation):
        return multi_label.table(evaluation)
    return report.table(evaluation)


def record(evaluation: AnyEvaluation) -> dict[str, Any]:
    """Return the figures for ``json.dumps``."""
    if isinstance(evaluation, MultiLabelEvaluation):
        return multi_label.record(evaluation)
    return report.record(evaluation)


def comparison(a: AnyEvaluation, b: AnyEvaluation) -> Comparison | MultiLabelComparison:
    """Compare two evaluations of the same task, pictures and labels in the same order."""
    if isinstance(a, MultiLabelEvaluation) and isinstance(b, MultiLabelEvaluation):
        return MultiLabelComparison(a, b)
    assert isinstance(a, Evaluation)  # noqa: S101 - for the types
    assert isinstance(b, Evaluation)  # noqa: S101
    return Comparison(a, b)
