"""Pictures of a training and its result, as PNG files."""

import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from numpy.typing import NDArray

from training.data.dataset import Classes
from training.evaluation.accuracy import Evaluation, by_confidence
from training.evaluation.few_images import calibration_error_in_words
from training.evaluation.tasks import AnyEvaluation

_MISTAKES = 40
_COLUMNS = 8
_LARGEST_SIDE = 24.0  # inches
_COUNTED_LABELS = 40  # more would make numbers that nobody can read, and take minutes to draw


def save_plots(
    evaluation: AnyEvaluation,
    history: Sequence[Mapping[str, float]],
    folder: Path,
    uncalibrated: NDArray[np.float32] | None = None,
    *,
    pictures: bool = True,
) -> list[str]:
    """Write learning curves (where there is a history), confusion matrix, mistakes and reliability; return their names.

    ``history`` has losses and accuracies by name, a record for each epoch of the training.
    ``uncalibrated`` are the probabilities float32 [N, classes] before the calibration, to show their reliability too.
    Without ``pictures`` there are no mistakes to see. Where a picture may have several labels, there are learning
    curves alone; the report shows the rest.
    """
    drawn = {}
    if isinstance(evaluation, Evaluation):
        drawn["confusion_matrix.png"] = _confusion_matrix(evaluation)
        drawn["reliability.png"] = _reliability(evaluation, uncalibrated)
        if pictures:
            drawn["mistakes.png"] = _mistakes(evaluation)
    if history:
        drawn["learning_curves.png"] = _learning_curves(history)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Glyph .* missing")  # labels in a script that the font lacks become boxes
        for name, figure in drawn.items():
            figure.savefig(folder / name, dpi=100)
    return sorted(drawn)


def _learning_curves(history: Sequence[Mapping[str, float]]) -> Figure:
    figure = Figure(figsize=(9, 3.6), layout="constrained")
    for axes, quantity in zip(figure.subplots(1, 2), ("accuracy", "loss"), strict=True):
        for key, label in ((quantity, "training, augmented"), (f"val_{quantity}", "validation, before averaging")):
            if key in history[0]:
                axes.plot(range(1, len(history) + 1), [epoch[key] for epoch in history], label=label)
        axes.set(xlabel="epoch", ylabel=quantity)
        axes.grid(alpha=0.3)
        axes.legend()
    return figure


def _confusion_matrix(evaluation: Evaluation) -> Figure:
    confusion = evaluation.confusion
    share = confusion / np.maximum(confusion.sum(axis=1, keepdims=True), 1)
    size = min(2.5 + 0.55 * len(evaluation.labels), _LARGEST_SIDE)
    figure = Figure(figsize=(size, size), layout="constrained")
    axes = figure.subplots()
    axes.imshow(share, cmap="Blues", vmin=0, vmax=1)
    _name_ticks(axes, evaluation.labels)
    for (row, column), count in np.ndenumerate(confusion):
        if count and len(evaluation.labels) <= _COUNTED_LABELS:
            axes.text(
                column,
                row,
                str(count),
                ha="center",
                va="center",
                color="white" if share[row, column] > 0.5 else "black",
            )
    metrics = evaluation.metrics()
    axes.set_title(f"{metrics.images:,} images, {metrics.accuracy:.2%} right")
    return figure


def _reliability(evaluation: Evaluation, uncalibrated: NDArray[np.float32] | None) -> Figure:
    """Draw how often answers are right against how sure they are, and below it how many are that sure."""
    figure = Figure(figsize=(6, 6.5), layout="constrained")
    above, below = figure.subplots(2, 1, sharex=True, height_ratios=(3, 1))
    above.plot([0, 1], [0, 1], color="grey", linestyle="--", label="what it should be")
    _bars(above, below, evaluation.probabilities, evaluation.split.classes)
    if uncalibrated is not None:
        before = by_confidence(uncalibrated, evaluation.split.classes)
        some = before.counts > 0
        above.plot(before.confidence[some], before.accuracy[some], color="C1", marker="o", label="before calibration")
    above.set(ylabel="accuracy", xlim=(0, 1), ylim=(0, 1))
    metrics = evaluation.metrics()
    error = calibration_error_in_words(metrics.expected_calibration_error, metrics.images)
    above.set_title(f"expected calibration error {error}", fontsize=11)
    figure.legend(loc="outside lower center", ncols=3, fontsize=9)  # in the axes it would hide bars
    below.set(xlabel="confidence, the probability of the label", ylabel="images", yscale="symlog")
    return figure


def _bars(above: Axes, below: Axes, probabilities: NDArray[np.float32], classes: Classes) -> None:
    bins = by_confidence(probabilities, classes)
    width = 1 / len(bins.counts)
    left = np.arange(len(bins.counts)) * width
    above.bar(left, bins.accuracy, width, align="edge", color="C0", edgecolor="white", alpha=0.7, label="what it is")
    columns = below.bar(left, bins.counts, width, align="edge", color="C0", edgecolor="white", alpha=0.7)
    below.bar_label(columns, [str(count) if count else "" for count in bins.counts], fontsize=7)
    below.set_ylim(0, 10 * bins.counts.max())


def _name_ticks(axes: Axes, labels: tuple[str, ...]) -> None:
    names = [_plain(label) for label in labels]
    size = min(10.0, 72 * _LARGEST_SIDE / (1.5 * len(labels)))  # points
    axes.set_xticks(range(len(labels)), names, rotation=45, ha="right", fontsize=size)
    axes.set_yticks(range(len(labels)), names, fontsize=size)
    axes.set(xlabel="predicted", ylabel="true")


def _plain(label: str) -> str:
    """Return a label as Matplotlib takes it for text: between two dollar signs it would read a formula."""
    return label.replace("$", r"\$")


def _mistakes(evaluation: Evaluation) -> Figure:
    """Draw the most confident mistakes; an empty sheet with a sentence where there is none."""
    chosen = evaluation.confident_mistakes(_MISTAKES)
    rows = max(-(-len(chosen) // _COLUMNS), 1)
    figure = Figure(figsize=(1.5 * _COLUMNS, 1.9 * rows), layout="constrained")
    for axes in figure.subplots(rows, _COLUMNS, squeeze=False).flat:
        axes.set_axis_off()
    if not len(chosen):
        figure.suptitle("No picture was classified wrongly.")
    for axes, index in zip(figure.axes, chosen, strict=False):
        axes.imshow(evaluation.split.images[index])
        true, predicted = evaluation.split.classes[index], evaluation.predicted[index]
        axes.set_title(
            f"{_plain(evaluation.labels[predicted])} {evaluation.probabilities[index, predicted]:.0%}\n"
            f"is {_plain(evaluation.labels[true])}",
            fontsize=9,
        )
    return figure
