"""The pictures on which two versions differ: a sheet to look at and a list of them all."""

import csv
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure
from numpy.typing import NDArray

from training.data.dataset import evenly_spaced
from training.evaluation.accuracy import Evaluation

SHEET = "differences.png"
LIST = "differences.csv"

_SHOWN = 64
_COLUMNS = 8


def save(a: Evaluation, b: Evaluation, folder: Path) -> list[str]:
    """Write the sheet and the list into ``folder``, which is made where it is missing; return the file names.

    ``a`` and ``b`` are of the same pictures and in the same order of labels; the sheet shows ``a``'s.

    Raises:
        OSError: the folder cannot be written.
    """
    folder.mkdir(parents=True, exist_ok=True)
    indices = np.flatnonzero(a.predicted != b.predicted)
    _sheet(a, b, indices).savefig(folder / SHEET, dpi=100)
    with (folder / LIST).open("w", encoding="utf-8", newline="") as stream:
        rows = csv.writer(stream, lineterminator="\n")
        rows.writerow(("index", "label", "a", "a_probability", "b", "b_probability"))
        for index in indices.tolist():
            true = a.labels[a.split.classes[index]]
            rows.writerow((index, true, *_words(a, index), *_words(b, index)))
    return [LIST, SHEET]


def _words(evaluation: Evaluation, index: int) -> tuple[str, float]:
    """Return the label that a picture got, and its probability."""
    best = evaluation.predicted[index]
    return evaluation.labels[best], round(float(evaluation.probabilities[index, best]), 4)


def _sheet(a: Evaluation, b: Evaluation, indices: NDArray[np.int64]) -> Figure:
    """Draw pictures with their label and both answers, evenly spread where there are too many."""
    shown = indices[evenly_spaced(len(indices), _SHOWN)]
    rows = max(-(-len(shown) // _COLUMNS), 1)
    figure = Figure(figsize=(1.5 * _COLUMNS, 0.6 + 2.0 * rows), layout="constrained")
    figure.suptitle(f"{len(indices):,} pictures are answered differently, {len(shown)} of them here")
    for axes in figure.subplots(rows, _COLUMNS, squeeze=False).flat:
        axes.set_axis_off()
    for axes, index in zip(figure.axes, shown.tolist(), strict=False):
        axes.imshow(a.split.images[index])
        (said_a, sure_a), (said_b, sure_b) = _words(a, index), _words(b, index)
        true = a.labels[a.split.classes[index]]
        axes.set_title(f"is {true}\nA: {said_a} {sure_a:.0%}\nB: {said_b} {sure_b:.0%}", fontsize=8)
    return figure
