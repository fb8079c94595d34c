"""What the commands print of an evaluation: a table for people, a record for programs."""

from collections.abc import Iterator
from typing import Any

from artifact.accuracy import accuracy_in_words, accuracy_interval
from training.evaluation.accuracy import Evaluation
from training.evaluation.few_images import calibration_error_in_words
from training.names import printable


def table(evaluation: Evaluation) -> str:
    """Return for each label how many pictures there are, precision and recall, and below them accuracy and calibration.

    A label of which there is no picture has no recall; one that was never answered either is left out.
    """
    metrics = evaluation.metrics()
    confusion = evaluation.confusion
    pictures, answers = confusion.sum(axis=1), confusion.sum(axis=0)
    shown = [index for index in range(len(evaluation.labels)) if pictures[index] or answers[index]]
    names = {index: printable(evaluation.labels[index]) for index in shown}
    width = max(map(len, names.values()))
    lines = [f"{'':{width}}  pictures  precision   recall"]
    for index, name in names.items():
        figures = metrics.per_class[evaluation.labels[index]]
        recall = f"{figures['recall']:7.2%}" if pictures[index] else f"{'-':>7}"
        lines.append(f"{name:{width}}  {pictures[index]:8,}  {figures['precision']:9.2%}  {recall}")
    accuracy = accuracy_in_words(metrics.accuracy, metrics.images, metrics.measured_on)
    calibration_error = calibration_error_in_words(metrics.expected_calibration_error, metrics.images)
    lines.append(f"accuracy {accuracy}, expected calibration error {calibration_error}")
    lines += _beside_the_most_frequent(evaluation)
    return "\n".join(lines)


def _beside_the_most_frequent(evaluation: Evaluation) -> Iterator[str]:
    """Yield a line where these pictures do not tell the answers from always answering the most frequent label."""
    counts = evaluation.confusion.sum(axis=1)
    total, right = int(counts.sum()), int(evaluation.right.sum())
    most = int(counts.argmax())
    share = counts[most] / total
    if share < 1 and accuracy_interval(right, total)[0] <= share:
        label = printable(evaluation.labels[most])
        yield f"Always answering {label} would get {share:.2%} right; these images do not tell that it does better."


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
