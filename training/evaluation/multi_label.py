"""Measure a version where a picture may have several labels, or none: by how labels are ranked, and which are told."""

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from artifact import Metrics, MultiLabel
from artifact.accuracy import accuracy_in_words
from training.data.dataset import Split
from training.evaluation.average_precision import (
    Has,
    RankedPair,
    Weights,
    average_precisions,
    bootstrapped,
    interval,
    mean_over_labels,
)
from training.evaluation.few_images import calibration_error_in_words
from training.evaluation.paired import better_in_words
from training.evaluation.sigmoids import decision_calibration_error
from training.names import printable


@dataclass(frozen=True)
class LabelFigures:
    """What was measured of one label; a figure is None where there is no picture, or no answer, that it is of."""

    label: str
    images: int
    told: int
    threshold: float
    average_precision: float | None
    precision: float | None
    recall: float | None


@dataclass(frozen=True)
class MultiLabelEvaluation:
    """What a version answered on a split: probabilities float32 [N, labels] beside the pictures and their labels.

    A label is told from its threshold on, float64 [labels].
    """

    labels: tuple[str, ...]
    measured_on: str
    split: Split
    probabilities: NDArray[np.float32]
    thresholds: NDArray[np.float64]

    @cached_property
    def has(self) -> Has:
        """Which labels the pictures have, bool [N, labels]."""
        return self.split.classes > 0

    @cached_property
    def told(self) -> Has:
        """Which labels are told of the pictures, bool [N, labels]."""
        told: Has = self.probabilities >= self.thresholds
        return told

    @property
    def right(self) -> NDArray[np.bool_]:
        """Of which pictures all labels are told, and no others; bool [N]."""
        right: NDArray[np.bool_] = (self.told == self.has).all(axis=1)
        return right

    @cached_property
    def figures(self) -> tuple[LabelFigures, ...]:
        """What was measured of each label."""
        hits, told, has = (each.sum(axis=0).tolist() for each in (self.told & self.has, self.told, self.has))
        precisions = average_precisions(self.probabilities, self.has)[0].tolist()
        return tuple(
            LabelFigures(
                label=label,
                images=has[place],
                told=told[place],
                threshold=float(self.thresholds[place]),
                average_precision=precisions[place] if has[place] else None,
                precision=hits[place] / told[place] if told[place] else None,
                recall=hits[place] / has[place] if has[place] else None,
            )
            for place, label in enumerate(self.labels)
        )

    @cached_property
    def averages(self) -> dict[str, float]:
        """Mean average precision, micro F1 and macro F1, by their names."""
        values = np.nan_to_num(self._averages(np.ones((1, len(self.split)))))  # 0 where no picture has a label
        return dict(zip(_AVERAGES, values[0].tolist(), strict=True))

    @cached_property
    def intervals(self) -> dict[str, tuple[float, float]]:
        """The 95% confidence intervals of the averages, by the bootstrap over pictures."""
        values = np.nan_to_num(bootstrapped(self._averages, *self.has.shape))
        return {name: interval(values[:, place]) for place, name in enumerate(_AVERAGES)}

    def metrics(self) -> Metrics:
        """Return the figures that go into a version's metadata; the accuracy is of all labels of a picture together."""
        return Metrics(
            measured_on=self.measured_on,
            images=len(self.split),
            accuracy=float(self.right.mean()),
            expected_calibration_error=decision_calibration_error(self.probabilities, self.has),
            per_class={
                each.label: {
                    "precision": each.precision or 0.0,
                    "recall": each.recall or 0.0,
                    **({} if each.average_precision is None else {"average_precision": each.average_precision}),
                }
                for each in self.figures
            },
        )

    def summary(self, chosen_on: str) -> MultiLabel:
        """Return the averages for a version's metadata; ``chosen_on`` says what the thresholds were chosen on."""
        return MultiLabel(
            mean_average_precision=self.averages["mean_average_precision"],
            micro_f1=self.averages["micro_f1"],
            macro_f1=self.averages["macro_f1"],
            intervals_95=dict(self.intervals),
            thresholds_chosen_on=chosen_on,
        )

    def confident_mistakes(self, label: int, count: int) -> NDArray[np.int64]:
        """Return the pictures of which ``label`` is wrongly told or not told, the surest first, at most ``count``."""
        wrong = np.flatnonzero(self.told[:, label] != self.has[:, label])
        away = np.abs(self.probabilities[wrong, label] - self.thresholds[label])
        return wrong[np.argsort(-away, kind="stable")[:count]]

    def together(self) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Return how many pictures have two labels, and how many are told both; int64 [labels, labels] each."""
        has, told = (each.astype(np.int64) for each in (self.has, self.told))
        return has.T @ has, told.T @ told

    def _averages(self, weights: Weights) -> NDArray[np.float64]:
        """Return the averages [draws, 3] of pictures that count as often as ``weights`` [draws, N] say."""
        hits, told, has = (weights @ each.astype(np.float64) for each in (self.told & self.has, self.told, self.has))
        ranked = mean_over_labels(average_precisions(self.probabilities, self.has, weights))
        micro = 2 * hits.sum(axis=1) / np.maximum(told.sum(axis=1) + has.sum(axis=1), 1)
        with np.errstate(invalid="ignore"):  # a label that no picture has and none is told has no F1
            macro = mean_over_labels(2 * hits / (told + has))
        return np.stack([ranked, micro, macro], axis=1)


_AVERAGES = ("mean_average_precision", "micro_f1", "macro_f1")
_NAMES = {"mean_average_precision": "mean average precision", "micro_f1": "micro F1", "macro_f1": "macro F1"}


def averages_in_words(summary: MultiLabel) -> str:
    """Return the averages with their intervals, in words."""
    parts = []
    for field, name in _NAMES.items():
        low, high = summary.intervals_95[field]
        parts.append(f"{name} {getattr(summary, field):.4f} (95%: {low:.3f} to {high:.3f})")
    return ", ".join(parts)


def table(evaluation: MultiLabelEvaluation) -> str:
    """Return a line for each label that there are pictures or answers of, and below them the averages."""
    shown = [each for each in evaluation.figures if each.images or each.told]
    width = max((len(printable(each.label)) for each in shown), default=0)
    lines = [f"{'':{width}}  pictures  average precision  threshold  precision  recall"]
    lines += [
        f"{printable(each.label):{width}}  {each.images:8,}  {_number(each.average_precision):>17}  "
        f"{each.threshold:9.3f}  {_percent(each.precision):>9}  {_percent(each.recall):>6}"
        for each in shown
    ]
    metrics = evaluation.metrics()
    error = calibration_error_in_words(metrics.expected_calibration_error, metrics.images)
    accuracy = accuracy_in_words(metrics.accuracy, metrics.images, metrics.measured_on)
    lines.append(averages_in_words(evaluation.summary("")))
    lines.append(f"all labels right {accuracy}, expected calibration error {error}")
    return "\n".join(lines)


def record(evaluation: MultiLabelEvaluation) -> dict[str, Any]:
    """Return the same for ``json.dumps``, None where there is no figure."""
    metrics = evaluation.metrics()
    return {
        "measured_on": metrics.measured_on,
        "images": metrics.images,
        "task": "multi-label",
        **evaluation.averages,
        **{f"{name}_95": span for name, span in evaluation.intervals.items()},
        "accuracy": metrics.accuracy,
        "expected_calibration_error": metrics.expected_calibration_error,
        "per_class": {
            each.label: {
                "images": each.images,
                "told": each.told,
                "average_precision": each.average_precision,
                "threshold": each.threshold,
                "precision": each.precision,
                "recall": each.recall,
            }
            for each in evaluation.figures
        },
    }


class MultiLabelComparison:
    """What two versions, A and B, answered to the same pictures; their evaluations have the same order of labels."""

    def __init__(self, a: MultiLabelEvaluation, b: MultiLabelEvaluation) -> None:
        self._a, self._b = a, b
        self._paired = RankedPair.of(a.probabilities, b.probabilities, a.has)
        self._differ = (a.told != b.told).any(axis=1)

    def record(self) -> dict[str, Any]:
        """Return the figures for ``json.dumps``."""
        paired = self._paired
        return {
            "measured_on": self._a.measured_on,
            "images": paired.images,
            "task": "multi-label",
            "mean_average_precisions": [paired.first, paired.second],
            "micro_f1s": [each.averages["micro_f1"] for each in (self._a, self._b)],
            "difference": paired.difference,
            "difference_95": paired.interval(),
            "p": self._p(),
            "answered_differently": int(self._differ.sum()),
            "average_precisions": {label: [a, b] for label, a, b in self._lines()},
        }

    def table(self) -> str:
        """Return the figures for people."""
        paired = self._paired
        low, high = paired.interval()
        width = max(len("mean"), *map(len, map(printable, self._a.labels)))
        micro = [each.averages["micro_f1"] for each in (self._a, self._b)]
        lines = [
            f"{'average precision':{width}}       A       B    B - A",
            *(f"{printable(label):{width}}  {a:6.4f}  {b:6.4f}  {b - a:+7.4f}" for label, a, b in self._lines()),
            f"{'mean':{width}}  {paired.first:6.4f}  {paired.second:6.4f}  {paired.difference:+7.4f}",
            f"Of {paired.images:,} images ({self._a.measured_on}); micro F1 {micro[0]:.4f} and {micro[1]:.4f}.",
            f"The difference of the means is between {low:+.4f} and {high:+.4f}, at a confidence of 95%.",
            f"They tell other labels of {int(self._differ.sum()):,} images.",
            self.verdict("A", "B"),
        ]
        return "\n".join(lines)

    def verdict(self, a: str, b: str) -> str:
        """Return the sentence that says which is better, if one is; the first is called ``a``, the second ``b``."""
        p = self._p()
        better = b if self._paired.difference > 0 else a
        return f"Paired bootstrap over the images: p = {p:.2g}; {better_in_words(p, better)}."

    def _p(self) -> float:
        """Return the two-sided p of the paired bootstrap."""
        return min(1.0, 2 * min(self._paired.p_second_worse(), self._paired.p_second_better()))

    def _lines(self) -> Iterator[tuple[str, float, float]]:
        for a, b in zip(self._a.figures, self._b.figures, strict=True):
            if a.average_precision is not None and b.average_precision is not None:
                yield a.label, a.average_precision, b.average_precision


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:.4f}"


def _percent(value: float | None) -> str:
    return "-" if value is None else f"{value:.2%}"
