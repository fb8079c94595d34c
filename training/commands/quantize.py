"""``python -m training quantize``: publish the next version of a model, with an int8 network as well."""

import argparse
import dataclasses
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import artifact
from artifact import Int8, Metadata
from artifact.layout import MODEL_CARD, REPORT
from training.commands import labelled
from training.commands.options import (
    LABELS,
    LAYOUT,
    MAX_UNREADABLE,
    add,
    data_of,
    folder_and_store,
    models_place,
    reading_of,
)
from training.data.dataset import Dataset
from training.data.pictures import Reading
from training.errors import Interruption, TrainingError
from training.evaluation.inference import answers_to
from training.evaluation.post_hoc import fit_to_logits
from training.evaluation.tasks import evaluate_version, thresholds_of
from training.fit.head import cross_validate
from training.publish import provenance
from training.publish.model_card import CAPTIONS, int8_accuracy, model_card
from training.publish.quantization import add_int8, add_int8_by_folds, libraries, require_held_out
from training.publish.report import Shown, before_calibration, shows_pictures, write_report
from training.publish.stores import open_store, where


@dataclass(frozen=True)
class QuantizeSettings:
    """Which version is quantised, with the data that it was trained on; ``models`` is None for its own folder.

    ``store`` is the address of the object store that it goes to, of which ``models`` then has a copy.
    """

    version: Path
    data: Path | None
    reading: Reading
    models: Path | None
    store: str | None = None


def parse(arguments: Sequence[str]) -> QuantizeSettings:
    """Return what the command line asks for."""
    parser = argparse.ArgumentParser(
        prog="darkroom quantize",
        description="Publish the next version of a model: the same files, and the network in int8 beside. Both are "
        "measured on the images that were held out for validation, those of a new head by cross-validation; where int8 "
        "has more than 0.2 points of accuracy less, beyond noise, nothing is published. Where these are fewer than 50, "
        "it has to give the same labels instead.",
        allow_abbrev=False,
    )
    parser.add_argument("version", type=Path, help="folder of the version, e.g. models/cifar10/5")
    parser.add_argument(
        "--data", type=Path, metavar="PATH", help="the data that it was trained on (default: download CIFAR-10)"
    )
    add(parser, (MAX_UNREADABLE, LAYOUT, LABELS))
    parser.add_argument(
        "--models",
        type=models_place,
        metavar="DIR",
        help="folder or object store to publish under, e.g. s3://BUCKET/PREFIX (default: the one that VERSION lies in)",
    )
    options = parser.parse_args(arguments)
    models, store = folder_and_store(options.models) if options.models else (None, None)
    return QuantizeSettings(options.version, data_of(options), reading_of(options), models, store)


def run(settings: QuantizeSettings, interruption: Interruption) -> int:
    """Publish what the version holds, and its int8 network; return the exit code.

    Raises:
        InvalidVersion: the folder is no version that can be trusted.
        AccuracyLost: int8 costs too much accuracy, or gives other labels.
        SourceFails: the store cannot be read or written.
        TrainingError: it has an int8 network, it was imported, nothing was held out and it is no new head, or other
            data is given than it was trained on.
        OSError: the folder cannot be written.
    """
    version = settings.version
    metadata = artifact.validate(version)
    if metadata.int8:
        raise TrainingError(f"{version} carries an int8 network already")
    if "sha256" not in metadata.dataset:
        raise TrainingError(
            f"{version} has no data on record that could tell what int8 costs; where a network is imported, "
            "darkroom import takes photographs for that, with --int8 and --data"
        )
    by_folds = "head" in metadata.training  # which learned from all pictures
    images = 0 if by_folds else require_held_out(metadata.training)
    dataset = labelled.of_training(version, metadata, settings.data, settings.reading)
    models = settings.models or version.resolve().parent.parent
    store = open_store(settings.store, models, metadata.name)
    with artifact.draft(models, metadata.name, store) as draft:
        for name in metadata.files:
            (draft.path / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(version / name, draft.path / name)
        int8 = (
            _add_int8_by_folds(draft.path, dataset)
            if by_folds
            else add_int8(draft.path, dataset, images, thresholds_of(metadata))
        )
        made_with = {**metadata.libraries, **libraries()}
        quantized = dataclasses.replace(metadata, int8=int8, created=provenance.now(), libraries=made_with)
        plots = [name for name in sorted(CAPTIONS) if (draft.extra / name).exists()]
        (draft.path / MODEL_CARD).write_text(model_card(quantized, plots), encoding="utf-8")
        if REPORT in metadata.files:  # which says what there was before
            _report_again(draft.path, quantized, dataset)
        interruption.check()
        path = draft.publish(quantized)
    print(f"accuracy in int8 {int8_accuracy(int8)}")
    print(f"Published {where(store, path)}.")
    return 0


def _add_int8_by_folds(version: Path, dataset: Dataset) -> Int8:
    """Write the int8 network in folder ``version``, a new head, and measure it by the folds that the training had."""
    split = dataset.train  # nothing was held out of it
    features = answers_to(version, split.images)["embedding"]
    folds = cross_validate(features, split.classes, len(dataset.labels))
    if not len(folds.rows):
        raise TrainingError("int8 is measured by cross-validation, and no label has two pictures for that; add some")
    post_hoc = fit_to_logits(folds.logits(features), split.classes[folds.rows], dataset.labels, dataset.name)
    return add_int8_by_folds(version, split, features, folds, dataset.name, post_hoc.of_labels)


def _report_again(version: Path, metadata: Metadata, dataset: Dataset) -> None:
    """Write the report anew in folder ``version``, with pictures where the one before had them."""
    several = metadata.task == "multi-label"
    split = labelled.with_labels(dataset.test, dataset.labels, metadata.labels, multi_label=several)
    evaluation = evaluate_version(version, metadata, split, f"{dataset.name} test")
    uncalibrated = before_calibration(evaluation, metadata.calibration)
    write_report(version, metadata, evaluation, Shown(dataset, shows_pictures(version)), uncalibrated)
