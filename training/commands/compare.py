"""``compare``: two published versions on the same pictures."""

import argparse
import dataclasses
import json
from pathlib import Path
from typing import Any

import numpy as np

import artifact
from artifact import Metadata
from training.commands import labelled
from training.commands.labelled import Labelled
from training.errors import TrainingError
from training.evaluation import differences
from training.evaluation.accuracy import Evaluation, evaluate
from training.evaluation.inference import openvino_predict
from training.evaluation.paired import Paired

LEVEL = 0.05


def compare_versions(options: argparse.Namespace) -> int:
    """Compare two published versions and print what they get right; return the exit code.

    Raises:
        InvalidVersion: a folder is no version that can be trusted.
        TrainingError: they know other labels than each other or than the data, or the data cannot be read.
    """
    versions = (options.first, options.second)
    first, second = (artifact.validate(version) for version in versions)
    if set(first.labels) != set(second.labels):
        raise TrainingError(
            f"{versions[0]} knows {', '.join(first.labels)}; {versions[1]} knows {', '.join(second.labels)}"
        )
    pictures, again = _pictures(first, second, options)
    a = _evaluated(options.first, first, pictures)
    b = _in_order_of(first.labels, _evaluated(options.second, second, again))
    for version, metadata, taken in zip(versions, (first, second), (pictures, again), strict=True):
        labelled.tell_limits(version, metadata, taken)
    compared = Comparison(a, b)
    if options.json:
        models = [{"name": metadata.name, "version": metadata.version} for metadata in (first, second)]
        print(json.dumps({"models": models, **compared.record()}))
    else:
        print(f"A is {options.first}, B is {options.second}.\n{compared.table()}")
    if options.plots:
        written = differences.save(a, b, options.plots)
        if not options.json:
            print(f"Wrote {', '.join(written)} to {options.plots}.")
    return 0


class Comparison:
    """What two versions answered to the same pictures, in figures."""

    def __init__(self, a: Evaluation, b: Evaluation) -> None:
        self._labels = a.labels
        self._true = a.split.classes
        self._measured_on = a.measured_on
        self._differ = a.predicted != b.predicted  # [N]
        self._right = a.right, b.right
        self._paired = Paired.count(*self._right)

    def record(self) -> dict[str, Any]:
        """Return the figures for ``json.dumps``."""
        paired = self._paired
        return {
            "measured_on": self._measured_on,
            "images": paired.images,
            "accuracies": paired.accuracies,
            "difference": paired.difference,
            "difference_95": paired.interval(),
            "both_right": paired.both,
            "only_first_right": paired.only_first,
            "only_second_right": paired.only_second,
            "both_wrong": paired.neither,
            "p": paired.p_different(),
            "answered_differently": int(self._differ.sum()),
            "recalls": self._recalls(),
        }

    def table(self) -> str:
        """Return the figures for people."""
        paired = self._paired
        low, high = paired.interval()
        recalls = self._recalls()
        width = max(len("accuracy"), *map(len, recalls))
        both_wrong = int((self._differ & ~self._right[0] & ~self._right[1]).sum())
        counts = (
            f"Of {paired.images:,} images ({self._measured_on}) both get {paired.both:,} right, only A "
            f"{paired.only_first:,}, only B {paired.only_second:,}, neither {paired.neither:,}."
        )
        lines = [
            f"{'recall':{width}}        A        B   B - A",
            *(f"{label:{width}}  {a:7.2%}  {b:7.2%}  {100 * (b - a):+6.2f}" for label, (a, b) in recalls.items()),
            "{:{}}  {:7.2%}  {:7.2%}  {:+6.2f}".format("accuracy", width, *paired.accuracies, 100 * paired.difference),
            f"The difference is between {100 * low:+.2f} and {100 * high:+.2f} points, at a confidence of 95%.",
            counts,
            f"They answer {int(self._differ.sum()):,} differently, {both_wrong:,} of them both wrong.",
            f"McNemar's exact test: p = {paired.p_different():.2g}; {self._verdict()}.",
        ]
        return "\n".join(lines)

    def _verdict(self) -> str:
        if self._paired.p_different() >= LEVEL:
            return f"no difference beyond noise at a level of {LEVEL:g}"
        better = "B" if self._paired.difference > 0 else "A"
        return f"{better} is better beyond noise, at a level of {LEVEL:g}"

    def _recalls(self) -> dict[str, list[float]]:
        """Return the recalls of both by label, where there are pictures of it."""
        return {
            label: [float(right[self._true == index].mean()) for right in self._right]
            for index, label in enumerate(self._labels)
            if (self._true == index).any()
        }


def _pictures(first: Metadata, second: Metadata, options: argparse.Namespace) -> tuple[Labelled, Labelled]:
    """Return the same pictures as both versions take them, each with its own classes."""
    pictures = labelled.for_version(first, options)
    if second.input == first.input:
        split = labelled.with_labels(pictures.split, first.labels, second.labels)
        return pictures, dataclasses.replace(pictures, split=split)
    again = labelled.for_version(second, options)
    classes = labelled.with_labels(again.split, second.labels, first.labels).classes
    if not np.array_equal(classes, pictures.split.classes):
        raise TrainingError("the two versions take pictures of other sizes, in which not the same ones can be read")
    return pictures, again


def _evaluated(version: Path, metadata: Metadata, pictures: Labelled) -> Evaluation:
    return evaluate(openvino_predict(version), metadata.labels, pictures.split, pictures.measured_on)


def _in_order_of(labels: tuple[str, ...], evaluation: Evaluation) -> Evaluation:
    """Return an evaluation with its classes in the order of ``labels``, which are the same ones."""
    columns = [evaluation.labels.index(label) for label in labels]
    split = labelled.with_labels(evaluation.split, evaluation.labels, labels)
    return Evaluation(labels, evaluation.measured_on, split, evaluation.probabilities[:, columns])
