"""What the commands print of an evaluation: a table for people, a record for programs."""

from typing import Any

from training.evaluation.accuracy import Evaluation
from training.evaluation.few_images import accuracy_in_words, accuracy_interval, calibration_error_in_words


def table(evaluation: Evaluation) -> str:
    """Return precision and recall of each label, and below them accuracy and calibration.

    A label of which there is no picture has no recall; one that was never answered either is left out.
    """
    metrics = evaluation.metrics()
    confusion = evaluation.confusion
    pictures, answers = confusion.sum(axis=1), confusion.sum(axis=0)
    shown = [index for index in range(len(evaluation.labels)) if pictures[index] or answers[index]]
    width = max(len(evaluation.labels[index]) for index in shown)
    lines = [f"{'':{width}}  precision  recall"]
    for index in shown:
        label = evaluation.labels[index]
        figures = metrics.per_class[label]
        recall = f"{figures['recall']:6.2%}" if pictures[index] else "     -"
        lines.append(f"{label:{width}}  {figures['precision']:9.2%}  {recall}")
    accuracy = accuracy_in_words(metrics.accuracy, metrics.images, metrics.measured_on)
    calibration_error = calibration_error_in_words(metrics.expected_calibration_error, metrics.images)
    lines.append(f"accuracy {accuracy}, expected calibration error {calibration_error}")
    return "\n".join(lines)


def record(evaluation: Evaluation) -> dict[str, Any]:
    """Return the same for ``json.dumps``, with the number of pictures of each label, None where there is no figure."""
    metrics = evaluation.metrics()
    confusion = evaluation.confusion
    pictures, answers = confusion.sum(axis=1), confusion.sum(axis=0)
    return {
        "measured_on": metrics.measured_on,
        "images": metrics.images,
        "accuracy": metrics.accuracy,
        "accuracy_95": accuracy_interval(int(evaluation.right.sum()), metrics.images),
        "expected_calibration_error": metrics.expected_calibration_error,
        "per_class": {
            label: {
                "images": int(pictures[index]),
                "precision": metrics.per_class[label]["precision"] if answers[index] else None,
                "recall": metrics.per_class[label]["recall"] if pictures[index] else None,
            }
            for index, label in enumerate(evaluation.labels)
        },
        "confusion": confusion.tolist(),
    }
