"""Which classes are taken for which others, and the pictures of each such mistake."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from training.evaluation.accuracy import Evaluation

Cell = tuple[int, int]
"""A true class and a predicted one."""


@dataclass(frozen=True)
class Confusion:
    """The confusion matrix of an evaluation, int64 [classes, classes], and the pictures of the cells that have any.

    Wrong answers stand with the surest first, right ones with the least sure first: those that there is most to learn
    from.
    """

    matrix: NDArray[np.int64]
    pictures: dict[Cell, NDArray[np.int64]]

    @classmethod
    def of(cls, evaluation: Evaluation) -> "Confusion":
        """Return that of ``evaluation``."""
        true, predicted = evaluation.split.classes, evaluation.predicted
        confidence = evaluation.probabilities.max(axis=1)
        order = np.lexsort((np.where(true == predicted, confidence, -confidence), predicted, true))
        cells = np.stack([true[order], predicted[order]], axis=1)
        found, firsts = np.unique(cells, axis=0, return_index=True)
        parts = np.split(order, firsts[1:])
        return cls(evaluation.confusion, {(int(t), int(p)): part for (t, p), part in zip(found, parts, strict=True)})

    @property
    def mistakes(self) -> list[Cell]:
        """The cells of wrong answers, those with the most pictures first."""
        wrong = [cell for cell in self.pictures if cell[0] != cell[1]]
        return sorted(wrong, key=lambda cell: (-len(self.pictures[cell]), cell))

    def taken_for(self, true: int) -> int | None:
        """Return the class that pictures of class ``true`` are most often wrongly taken for; None where none are."""
        row = self.matrix[true].copy()
        row[true] = 0
        return int(row.argmax()) if row.any() else None
