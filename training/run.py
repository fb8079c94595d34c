"""What the commands do: wire data, training, evaluation, quantising and publishing together."""

import argparse
import dataclasses
import datetime
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import keras

import artifact
from artifact import Input, Int8, Metadata
from artifact.layout import INT8_MODEL, MODEL_CARD
from training.commands import config
from training.data import sources
from training.data.dataset import Dataset, Split
from training.data.pictures import Reading
from training.errors import AccuracyLost, Interruption, TrainingError, WorseVersion
from training.evaluation import report
from training.evaluation.accuracy import Evaluation, evaluate
from training.evaluation.calibration import Correction
from training.evaluation.confidence import Trust, learn_trust, logits_of
from training.evaluation.familiarity import measure
from training.evaluation.inference import openvino_predict, openvino_score
from training.evaluation.plots import save_plots
from training.fit import defaults, device
from training.fit.checkpoints import RunFolder
from training.fit.distillation import Teacher, together
from training.fit.hardware import describe, has_gpu, set_deterministic, set_precision
from training.fit.progress import duration
from training.fit.recipe import Recipe, recipe
from training.fit.strategy import connect
from training.fit.tracking import MLFLOW_RUN, tracked
from training.fit.train import Start, Trained, held_out, settings, smoothing, train
from training.network.model import in_float32, megaflops
from training.network.registry import IMAGENET_WEIGHTS
from training.publish.model_card import CAPTIONS, calibration_in_words, familiarity_in_words, int8_accuracy, model_card

_CHECKED_IMAGES = 100
_LIBRARIES = ("keras", "numpy", "openvino", "nncf", "tensorflow", "jax", "torch")


def train_and_publish(options: argparse.Namespace) -> int:
    """Train as the command line says and publish the result; return the exit code."""
    smoke = options.preset == "smoke"
    name = options.name or sources.model_name(options.data, smoke)
    run = RunFolder(options.run or Path(os.environ.get("RUN_DIR") or "runs") / name)
    if options.deterministic:
        set_deterministic()
    spread = connect()
    if spread.is_chief:
        _require_writable(options.models)
        _require_writable(run.path)
    reading = _reading(options, run)
    dataset = sources.load(options.data, options.validation_images, smoke, reading=reading)
    chosen = spread.shared(_recipe(options, dataset), len(dataset.train))
    if options.fresh and spread.is_chief:
        run.clear()
    precision = set_precision(options.precision)
    environment = {
        "backend": keras.backend.backend(),
        "precision": precision,
        "hardware": describe(),
        **spread.environment(),
    }
    start = _start(options.start_from, dataset) if options.start_from else None
    teacher = together([_teacher(version, dataset) for version in options.teacher]) if options.teacher else None
    wanted = settings(dataset, chosen, start, teacher)
    if options.int8:
        _require_held_out(wanted)
    _announce(dataset, chosen, environment)
    if not spread.is_chief:
        train(dataset, chosen, run, environment, start, spread, teacher=teacher)
        print(f"Worker {spread.worker} has trained and waits for the chief to publish.", flush=True)
        spread.finish()
        return 0
    with tracked(name, wanted, environment, run.environment()) as tracker:
        if tracker.run_id:
            environment[MLFLOW_RUN] = tracker.run_id
        trained = train(dataset, chosen, run, environment, start, spread, [tracker], teacher)
        if keras.backend.backend() != "tensorflow":
            return _publish_with_tensorflow()
        try:
            path = _publish(
                trained,
                dataset,
                options.models,
                name,
                options.interruption,
                int8=options.int8,
                configuration=_configuration(options, name, chosen, dataset, trained),
                gate=lambda evaluation: _pass_gate(options, name, evaluation, dataset, trained, reading),
            )
        except WorseVersion:
            spread.finish()  # the training of all machines is done, and nothing of it is lost
            raise
        tracker.published(path)
    run.clear()
    spread.finish()
    return 0


def _reading(options: argparse.Namespace, run: RunFolder) -> Reading:
    """Return what becomes of pictures; unless the command line says it, what became of those to build on."""
    size, resize = options.image_size, options.resize
    if version := next(filter(None, [options.start_from, *(options.teacher or [])]), None):
        before = artifact.read_metadata(version).input
        size, resize = size or (before.height, before.width), resize or before.resize
    return Reading(size, resize or "crop", options.max_unreadable, options.cache or run.path)


def quantize_version(options: argparse.Namespace) -> int:
    """Publish the next version of a model: what a version holds, and its int8 network; return the exit code."""
    from training.publish.quantization import add_int8, libraries

    metadata = artifact.validate(options.version)
    if metadata.int8:
        raise TrainingError(f"{options.version} carries an int8 network already")
    images = _require_held_out(metadata.training)
    smoke, reading = metadata.dataset["name"] == "made-up", Reading(max_unreadable=options.max_unreadable)
    dataset = sources.load(options.data, metadata.dataset["validation"], smoke, metadata.input, reading)
    _require_same_data(options.version, metadata, dataset)
    with artifact.draft(options.models or options.version.resolve().parent.parent, metadata.name) as draft:
        _copy(options.version, draft.path, metadata)
        int8 = add_int8(draft.path, dataset, images)
        made_with = {**metadata.libraries, **libraries()}
        quantized = dataclasses.replace(metadata, int8=int8, created=_now(), libraries=made_with)
        plots = [name for name in sorted(CAPTIONS) if (draft.extra / name).exists()]
        (draft.path / MODEL_CARD).write_text(model_card(quantized, plots), encoding="utf-8")
        options.interruption.check()
        path = draft.publish(quantized)
    print(f"accuracy in int8 {int8_accuracy(int8)}")
    print(f"Published {path}.")
    return 0


def _copy(version: Path, target: Path, metadata: Metadata) -> None:
    """Copy all that has a sha256 in the metadata of a version to folder ``target``."""
    for name in metadata.files:
        (target / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(version / name, target / name)


def _recipe(options: argparse.Namespace, dataset: Dataset) -> Recipe:
    """Return the recipe of the configuration file, of the preset, or else what follows from the data; options win."""
    if options.backbone_weights and not options.backbone:
        raise TrainingError("--backbone-weights says nothing without --backbone; give both")
    chosen = config.own_recipe(options) or config.with_fields(_preset(options, dataset), options)
    if options.teacher:
        chosen = dataclasses.replace(chosen, label_smoothing=0.0)  # its answers are smooth
    return dataclasses.replace(chosen, batch_size=min(chosen.batch_size, len(dataset.train)))


def _preset(options: argparse.Namespace, dataset: Dataset) -> Recipe:
    """Return the preset that was asked for, CIFAR-10's standard one, or else a recipe that follows from the data."""
    changes = {"epochs": options.epochs, "batch_size": options.batch_size, "seed": options.seed}
    rate = {} if options.learning_rate is None else {"learning_rate": options.learning_rate}
    preset = options.preset or ("standard" if dataset.name == "CIFAR-10" and not options.backbone else None)
    if preset:
        return recipe(preset, **changes, **rate)
    weights = (options.backbone_weights or IMAGENET_WEIGHTS) if options.backbone else None
    chosen = defaults.for_data(dataset, backbone=options.backbone, backbone_weights=weights, **changes)
    print(defaults.explain(dataset, chosen))
    return dataclasses.replace(chosen, **rate)


def _require_held_out(training: dict[str, Any]) -> int:
    """Return how many images no training has seen; int8 needs them to measure what it costs."""
    number = held_out(training)
    if not number:
        raise TrainingError(
            "int8 is kept only where it costs little accuracy, and there are no held-out images to measure that on: "
            "the network, or the version that it started from, saw them all; train with --validation-images"
        )
    return number


def _require_same_data(version: Path, metadata: Metadata, dataset: Dataset) -> None:
    """Find out that other data is given than was trained on: what was held out could not be told from the rest."""
    if dataset.digest() != metadata.dataset["sha256"]:
        raise TrainingError(f"{version} was trained on other data; give the same with --data")


def _start(version: Path, dataset: Dataset) -> Start:
    from training.publish.export import read_weights

    metadata = artifact.validate(version)
    _require_same_labels(version, metadata, dataset)
    return Start(read_weights(version), _origin(metadata))


def _teacher(version: Path, dataset: Dataset) -> Teacher:
    """Return a published version to learn from; where it has an int8 network, that one answers, since it is faster."""
    metadata = artifact.validate(version)
    _require_same_labels(version, metadata, dataset)
    if metadata.input != dataset.picture:
        takes, has = (_in_words(picture) for picture in (metadata.input, dataset.picture))
        raise TrainingError(
            f"{version} takes pictures of {takes}, and the training has {has}; a teacher needs the same"
        )
    network = version / INT8_MODEL if metadata.int8 else version
    return Teacher(openvino_predict(network), (_origin(metadata),))


def _in_words(picture: Input) -> str:
    return f"{picture.height}x{picture.width} pixels ({picture.resize}, {picture.interpolation})"


def _origin(metadata: Metadata) -> dict[str, object]:
    """Return what the record of a training says of a version that it built on."""
    return {
        "name": metadata.name,
        "version": metadata.version,
        "accuracy": metadata.metrics.accuracy,
        "training_seconds": metadata.training_seconds,
        "training": metadata.training,
    }


def _require_same_labels(version: Path, metadata: Metadata, dataset: Dataset) -> None:
    if dataset.labels != metadata.labels:
        raise TrainingError(f"{version} knows {', '.join(metadata.labels)}; the data has {', '.join(dataset.labels)}")


def _require_writable(folder: Path) -> None:
    """Find out now that a folder cannot be written, not after an hour of training."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            pass
    except OSError as error:
        raise TrainingError(f"{folder} cannot be written ({error.strerror}); choose another folder") from error


def _announce(dataset: Dataset, chosen: Recipe, environment: dict[str, str]) -> None:
    held_out = f"{len(dataset.validation):,} for validation" if len(dataset.validation) else "none held out"
    print(f"{dataset.name}: {len(dataset.train):,} training images, {held_out}, {len(dataset.test):,} for the test.")
    if not has_gpu():
        print("Training on the CPU, without a GPU.")
    print(
        "Training {epochs} epochs with {backend} in {precision} on {hardware}.".format(
            epochs=chosen.epochs, **environment
        )
    )
    if devices := environment.get("devices"):
        print(f"Devices that share every batch: {devices}.")
    sys.stdout.flush()


def _publish_with_tensorflow() -> int:
    """Publish in a process of its own, since Keras keeps the backend that it started with.

    The run is done, so the same command under TensorFlow goes on from its last checkpoint straight to publishing.
    """
    arguments = [argument for argument in sys.argv[1:] if argument != "--fresh"]
    first_gpu = os.environ.get("CUDA_VISIBLE_DEVICES", "0").partition(",")[0]  # several would ask for another batch
    environment = {**os.environ, "KERAS_BACKEND": "tensorflow", "CUDA_VISIBLE_DEVICES": first_gpu, device.VARIABLE: ""}
    return subprocess.run([sys.executable, "-m", "training", *arguments], env=environment, check=False).returncode


def _configuration(options: argparse.Namespace, name: str, chosen: Recipe, dataset: Dataset, trained: Trained) -> str:
    """Return the file that repeats the run, with what it found out in the place of what was left open."""
    height, width, _ = dataset.input_shape
    environment = trained.state.environment
    return config.write(
        options.parser,
        options,
        chosen,
        changed=environment.get("changed", ""),
        name=name,
        precision=environment["precision"],
        image_size=f"{height}x{width}",
        resize=dataset.resize,
    )


def _pass_gate(
    options: argparse.Namespace,
    name: str,
    evaluation: Evaluation,
    dataset: Dataset,
    trained: Trained,
    reading: Reading,
) -> None:
    """Hold the new version against the one that it would replace.

    Raises:
        WorseVersion: it is worse, and is not to be published anyway.
    """
    from training.publish.gate import pass_gate

    def test_images(picture: Input) -> Split:
        if picture == dataset.picture:
            return dataset.test
        return sources.load(options.data, options.validation_images, dataset.name == "made-up", picture, reading).test

    anyway, digest = options.publish_anyway, trained.state.settings["data"]
    pass_gate(options.models, name, evaluation, digest, test_images, publish_anyway=anyway)


def _publish(
    trained: Trained,
    dataset: Dataset,
    models: Path,
    name: str,
    interruption: Interruption,
    *,
    int8: bool,
    configuration: str,
    gate: Callable[[Evaluation], None],
) -> Path:
    from training.publish import export

    picture = dataset.picture
    model = in_float32(trained.model)
    state = trained.state
    trust = _learn_trust(model, dataset, state.settings)
    with artifact.draft(models, name) as draft:
        export.save(model, picture, draft.path, trust.correction)
        gap = export.check(model, draft.path, dataset.train.images[:_CHECKED_IMAGES], trust.correction)
        print(f"The SavedModel answers as the network does, within {gap:.1e}, under TensorFlow and OpenVINO.")
        predict = openvino_predict(draft.path)
        evaluation = evaluate(predict, dataset.labels, dataset.test, f"{dataset.name} test")
        print(report.table(evaluation))
        gate(evaluation)
        strangers = measure(openvino_score(draft.path), dataset.test.images, trust.threshold)
        uncalibrated = Correction().probabilities(logits_of(model, dataset.test.images)) if trust.calibration else None
        plots = save_plots(evaluation, state.history, draft.extra, uncalibrated)
        quantized = _try_int8(draft.path, dataset, held_out(state.settings)) if int8 else None
        metadata = Metadata(
            name=name,
            version=1 + (artifact.latest(models, name) or 0),
            labels=dataset.labels,
            input=picture,
            metrics=dataclasses.replace(evaluation.metrics(), out_of_distribution=strangers),
            parameters=model.count_params(),
            megaflops=round(megaflops(model), 1),
            created=_now(),
            training={**state.settings, **state.environment},
            dataset=_describe(dataset, state.settings["data"]),
            revision=_revision(),
            libraries=_libraries(),
            hardware=state.environment["hardware"],
            training_seconds=round(state.seconds, 1),
            int8=quantized,
            calibration=trust.calibration,
            familiarity=trust.familiarity,
        )
        (draft.path / MODEL_CARD).write_text(model_card(metadata, plots), encoding="utf-8")
        (draft.extra / config.FILE).write_text(configuration, encoding="utf-8")
        interruption.check()
        path = draft.publish(metadata)
    print(f"Trained in {duration(state.seconds)}. Published {path}.")
    return path


def _learn_trust(model: keras.Model, dataset: Dataset, settings: dict[str, Any]) -> Trust:
    """Fit correction and threshold to what the training with ``settings`` held out, and say what came of it."""
    trust = learn_trust(model, dataset, held_out(settings), smoothing(settings))
    if trust.calibration and trust.familiarity:
        print(f"Calibrated: {calibration_in_words(trust.calibration)}.")
        print(f"A picture is familiar {familiarity_in_words(trust.familiarity)}.")
    else:
        print(
            "Not calibrated, and no threshold for familiar pictures: there are no held-out images, since the network, "
            "or the version that it started from, saw them all; the temperature is 1. See --validation-images."
        )
    return trust


def _try_int8(version: Path, dataset: Dataset, images: int) -> Int8 | None:
    """Add the int8 network to the draft of a version, or say that it is published without."""
    from training.publish.quantization import add_int8

    try:
        int8 = add_int8(version, dataset, images)
    except AccuracyLost as lost:
        print(f"Publishing without int8, since {lost}.")
        return None
    print(f"accuracy in int8 {int8_accuracy(int8)}")
    return int8


def _now() -> str:
    return datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")


def _describe(dataset: Dataset, digest: str) -> dict[str, object]:
    return {
        "name": dataset.name,
        "sha256": digest,
        "train": len(dataset.train),
        "validation": len(dataset.validation),
        "test": len(dataset.test),
    }


def _revision() -> str:
    """Return the revision of the code, with ``-dirty`` where it was changed; ``unknown`` outside a checkout."""
    if stamped := os.environ.get("DARKROOM_REVISION"):
        return stamped
    try:
        described = subprocess.run(
            ["git", "describe", "--always", "--dirty", "--abbrev=12"],
            cwd=Path(__file__).parent,
            capture_output=True,
            text=True,
            check=True,
        )
    except (OSError, subprocess.CalledProcessError):
        return "unknown"
    return described.stdout.strip()


def _libraries() -> dict[str, str]:
    loaded = ((name, sys.modules.get(name)) for name in _LIBRARIES)
    return {name: module.__version__ for name, module in loaded if module}
