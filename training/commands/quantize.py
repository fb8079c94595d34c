"""``python -m training quantize``: publish the next version of a model, with an int8 network as well."""

import argparse
import dataclasses
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import artifact
from artifact import Metadata
from artifact.layout import MODEL_CARD, REPORT
from training.commands import labelled
from training.commands.options import LAYOUT, MAX_UNREADABLE, add
from training.data.dataset import Dataset
from training.data.pictures import Reading
from training.errors import Interruption, TrainingError
from training.evaluation.accuracy import evaluate
from training.evaluation.inference import openvino_predict
from training.publish import provenance
from training.publish.model_card import CAPTIONS, int8_accuracy, model_card
from training.publish.quantization import add_int8, libraries, require_held_out
from training.publish.report import Shown, before_calibration, shows_pictures, write_report


@dataclass(frozen=True)
class QuantizeSettings:
    """Which version is quantised, with the data that it was trained on; ``models`` is None for its own folder."""

    version: Path
    data: Path | None
    reading: Reading
    models: Path | None


def parse(arguments: Sequence[str]) -> QuantizeSettings:
    """Return what the command line asks for."""
    parser = argparse.ArgumentParser(
        prog="python -m training quantize",
        description="Publish the next version of a model: the same files, and the network in int8 beside. Both are "
        "measured on the images that were held out for validation; where int8 has more than 0.2 points of accuracy "
        "less, beyond noise, nothing is published. Where fewer than 50 were, it has to give the same labels instead.",
        allow_abbrev=False,
    )
    parser.add_argument("version", type=Path, help="folder of the version, e.g. models/cifar10/5")
    parser.add_argument(
        "--data", type=Path, metavar="PATH", help="the data that it was trained on (default: download CIFAR-10)"
    )
    add(parser, (MAX_UNREADABLE, LAYOUT))
    parser.add_argument(
        "--models", type=Path, metavar="DIR", help="folder to publish under (default: the one that VERSION lies in)"
    )
    options = parser.parse_args(arguments)
    reading = Reading(max_unreadable=options.max_unreadable, layout=options.layout)
    return QuantizeSettings(options.version, options.data, reading, options.models)


def run(settings: QuantizeSettings, interruption: Interruption) -> int:
    """Publish what the version holds, and its int8 network; return the exit code.

    Raises:
        InvalidVersion: the folder is no version that can be trusted.
        AccuracyLost: int8 costs too much accuracy, or gives other labels.
        TrainingError: it has an int8 network, nothing was held out, or other data is given than it was trained on.
        OSError: the folder cannot be written.
    """
    version = settings.version
    metadata = artifact.validate(version)
    if metadata.int8:
        raise TrainingError(f"{version} carries an int8 network already")
    images = require_held_out(metadata.training)
    dataset = labelled.of_training(version, metadata, settings.data, settings.reading)
    with artifact.draft(settings.models or version.resolve().parent.parent, metadata.name) as draft:
        for name in metadata.files:
            (draft.path / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(version / name, draft.path / name)
        int8 = add_int8(draft.path, dataset, images)
        made_with = {**metadata.libraries, **libraries()}
        quantized = dataclasses.replace(metadata, int8=int8, created=provenance.now(), libraries=made_with)
        plots = [name for name in sorted(CAPTIONS) if (draft.extra / name).exists()]
        (draft.path / MODEL_CARD).write_text(model_card(quantized, plots), encoding="utf-8")
        if REPORT in metadata.files:  # which says what there was before
            _report_again(draft.path, quantized, dataset)
        interruption.check()
        path = draft.publish(quantized)
    print(f"accuracy in int8 {int8_accuracy(int8)}")
    print(f"Published {path}.")
    return 0


def _report_again(version: Path, metadata: Metadata, dataset: Dataset) -> None:
    """Write the report anew in folder ``version``, with pictures where the one before had them."""
    split = labelled.with_labels(dataset.test, dataset.labels, metadata.labels)
    evaluation = evaluate(openvino_predict(version), metadata.labels, split, f"{dataset.name} test")
    uncalibrated = before_calibration(evaluation, metadata.calibration)
    write_report(version, metadata, evaluation, Shown(dataset, shows_pictures(version)), uncalibrated)
