"""``python -m training compare``: two published versions on the same pictures."""

import argparse
import json
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from training.commands import labelled
from training.commands.compared import both
from training.commands.labelled import Source
from training.commands.options import DATA, SPLIT, add
from training.errors import Interruption
from training.evaluation.accuracy import Evaluation
from training.evaluation.tasks import comparison


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
        prog="darkroom compare",
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
    first, second = both((settings.first, settings.second), settings.source)
    for each in (first, second):
        labelled.tell_limits(each.version, each.metadata, each.pictures)
    a, b = first.evaluation, second.evaluation
    compared = comparison(a, b)
    if settings.json:
        models = [{"name": each.metadata.name, "version": each.metadata.version} for each in (first, second)]
        print(json.dumps({"models": models, **compared.record()}))
    else:
        print(f"A is {settings.first}, B is {settings.second}.\n{compared.table()}")
    if settings.plots and isinstance(a, Evaluation) and isinstance(b, Evaluation):
        from training.evaluation import differences  # imports Matplotlib

        written = differences.save(a, b, settings.plots)
        if not settings.json:
            print(f"Wrote {', '.join(written)} to {settings.plots}.")
    elif settings.plots:
        print("There is no sheet of differences for versions that give several labels.", file=sys.stderr)
    return 0
