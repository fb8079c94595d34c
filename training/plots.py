"""Pictures of a training and its result, as PNG files."""

from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from training.evaluate import Evaluation
from training.run_folder import History

_MISTAKES = 40
_COLUMNS = 8


def save_plots(evaluation: Evaluation, history: History, folder: Path) -> list[str]:
    """Write learning curves (where there is a history), confusion matrix and mistakes; return the file names."""
    drawn = {
        "confusion_matrix.png": _confusion_matrix(evaluation),
        "mistakes.png": _mistakes(evaluation),
    }
    if history:
        drawn["learning_curves.png"] = _learning_curves(history)
    for name, figure in drawn.items():
        figure.savefig(folder / name, dpi=100)
    return sorted(drawn)


def _learning_curves(history: History) -> Figure:
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
    size = 2.5 + 0.55 * len(evaluation.labels)
    figure = Figure(figsize=(size, size), layout="constrained")
    axes = figure.subplots()
    axes.imshow(share, cmap="Blues", vmin=0, vmax=1)
    _name_ticks(axes, evaluation.labels)
    for (row, column), count in np.ndenumerate(confusion):
        if count:
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


def _name_ticks(axes: Axes, labels: tuple[str, ...]) -> None:
    axes.set_xticks(range(len(labels)), labels, rotation=45, ha="right")
    axes.set_yticks(range(len(labels)), labels)
    axes.set(xlabel="predicted", ylabel="true")


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
            f"{evaluation.labels[predicted]} {evaluation.probabilities[index, predicted]:.0%}\n"
            f"is {evaluation.labels[true]}",
            fontsize=9,
        )
    return figure
