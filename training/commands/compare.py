"""``python -m training compare``: two published versions on the same pictures."""

import argparse
import dataclasses
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

import artifact
from artifact import Metadata
from training.commands import labelled
from training.commands.labelled import Labelled, Source
from training.commands.options import DATA, SPLIT, add
from training.errors import Interruption, TrainingError
from training.evaluation.accuracy import Evaluation, evaluate
from training.evaluation.comparison import Comparison
from training.evaluation.inference import openvino_predict


@dataclass(frozen=True)
class CompareSettings:
    """Which versions are compared on which pictures; those on which they differ go to a folder where one is named."""

    first: Path
    second: Path
    source: Source
    plots: Path | None
    json: bool


def parse(arguments: Sequence[str]) -> CompareSettings:
    """Return what the command line asks for."""
    parser = argparse.ArgumentParser(
        prog="python -m training compare",
        description="Let two versions classify the same pictures: accuracies, their difference with its confidence "
        "interval, McNemar's exact test, the recall of each class, and the pictures on which they differ.",
        allow_abbrev=False,
    )
    parser.add_argument("first", type=Path, metavar="A", help="folder of a version, e.g. models/cifar10/5")
    parser.add_argument("second", type=Path, metavar="B", help="folder of another, which knows the same labels")
    add(parser, (SPLIT,))
    parser.add_argument(
        "--plots",
        type=Path,
        metavar="DIR",
        help="also write the pictures on which they differ there: some in differences.png, all in differences.csv",
    )
    parser.add_argument("--json", action="store_true", help="print one JSON object instead of tables")
    add(parser, DATA)
    options = parser.parse_args(arguments)
    return CompareSettings(options.first, options.second, Source.of(options), options.plots, options.json)


def run(settings: CompareSettings, _interruption: Interruption) -> int:
    """Compare the versions and print what they get right; return the exit code.

    Raises:
        InvalidVersion: a folder is no version that can be trusted.
        TrainingError: they know other labels than each other or than the data, or the data cannot be read.
    """
    versions = (settings.first, settings.second)
    first, second = (artifact.validate(version) for version in versions)
    if set(first.labels) != set(second.labels):
        raise TrainingError(
            f"{versions[0]} knows {', '.join(first.labels)}; {versions[1]} knows {', '.join(second.labels)}"
        )
    pictures, again = _pictures(first, second, settings.source)
    a = _evaluated(settings.first, first, pictures)
    b = _in_order_of(first.labels, _evaluated(settings.second, second, again))
    for version, metadata, taken in zip(versions, (first, second), (pictures, again), strict=True):
        labelled.tell_limits(version, metadata, taken)
    compared = Comparison(a, b)
    if settings.json:
        models = [{"name": metadata.name, "version": metadata.version} for metadata in (first, second)]
        print(json.dumps({"models": models, **compared.record()}))
    else:
        print(f"A is {settings.first}, B is {settings.second}.\n{compared.table()}")
    if settings.plots:
        from training.evaluation import differences  # imports Matplotlib

        written = differences.save(a, b, settings.plots)
        if not settings.json:
            print(f"Wrote {', '.join(written)} to {settings.plots}.")
    return 0


def _pictures(first: Metadata, second: Metadata, source: Source) -> tuple[Labelled, Labelled]:
    """Return the same pictures as both versions take them, each with its own classes."""
    pictures = labelled.for_version(first, source)
    if second.input == first.input:
        split = labelled.with_labels(pictures.split, first.labels, second.labels)
        return pictures, dataclasses.replace(pictures, split=split)
    again = labelled.for_version(second, source)
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
