"""``python -m training evaluate``: measure a published version on labelled pictures."""

import argparse
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import artifact
from training.commands import labelled
from training.commands.options import DATA, SPLIT, add
from training.errors import Interruption
from training.evaluation import tasks


@dataclass(frozen=True)
class EvaluateSettings:
    """Which version is measured on which pictures; plots go to a folder where one is named."""

    version: Path
    source: labelled.Source
    plots: Path | None
    json: bool


def parse(arguments: Sequence[str]) -> EvaluateSettings:
    """Return what the command line asks for."""
    parser = argparse.ArgumentParser(
        prog="darkroom evaluate",
        description="Measure a published model version: accuracy, calibration, precision and recall. The data may have "
        "other pictures than it was trained on, and need not have all of its labels.",
        allow_abbrev=False,
    )
    parser.add_argument("version", type=Path, help="folder of the version, e.g. models/cifar10/5")
    add(parser, (*DATA, SPLIT))
    parser.add_argument("--plots", type=Path, metavar="DIR", help="also write confusion matrix and mistakes there")
    parser.add_argument("--json", action="store_true", help="print one JSON object instead of a table")
    options = parser.parse_args(arguments)
    return EvaluateSettings(options.version, labelled.Source.of(options), options.plots, options.json)


def run(settings: EvaluateSettings, _interruption: Interruption) -> int:
    """Measure the version and print the figures; return the exit code.

    Raises:
        InvalidVersion: the folder is no version that can be trusted.
        TrainingError: the data cannot be read, or has labels that the version lacks.
    """
    metadata = artifact.validate(settings.version)
    pictures = labelled.for_version(metadata, settings.source)
    evaluation = tasks.evaluate_version(settings.version, metadata, pictures.split, pictures.measured_on)
    labelled.tell_limits(settings.version, metadata, pictures)
    if settings.json:
        version = {"name": metadata.name, "version": metadata.version}
        print(json.dumps({"model": version, **tasks.record(evaluation)}))
    else:
        print(tasks.table(evaluation))
    if settings.plots:
        from training.evaluation.plots import save_plots  # imports Matplotlib

        settings.plots.mkdir(parents=True, exist_ok=True)
        written = save_plots(evaluation, [], settings.plots)
        if not settings.json:
            print(f"Wrote {', '.join(written)} to {settings.plots}.")
    return 0
