"""A training from what its user asks for to a published version: load, fit, export, evaluate, publish."""

import dataclasses
import os
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import keras

import artifact
from artifact import Draft, Input, Int8, Metadata, Metrics
from artifact.layout import INT8_MODEL, MODEL_CARD
from training.data import sources
from training.data.dataset import Dataset, Split, size_in_words
from training.data.pictures import Reading
from training.errors import AccuracyLost, Interruption, TrainingError, WorseVersion
from training.evaluation import accuracy, report
from training.evaluation.accuracy import Evaluation
from training.evaluation.calibration import Correction
from training.evaluation.familiarity import measure
from training.evaluation.few_images import why_not_calibrated
from training.evaluation.inference import openvino_predict, openvino_score
from training.evaluation.plots import save_plots
from training.evaluation.post_hoc import PostHoc, fit_post_hoc, logits_of
from training.fit import device, hardware
from training.fit.checkpoints import RunFolder, require_writable
from training.fit.choice import choose
from training.fit.distillation import Teacher, ensemble
from training.fit.lineage import Lineage, Origin
from training.progress import duration
from training.fit.settings import TrainSettings
from training.fit.strategy import connect
from training.fit.tracking import MLFLOW_RUN, Tracker, tracked
from training.fit.train import Job, Start, Trained, train
from training.network.model import in_float32, megaflops
from training.publish import configuration, provenance
from training.publish.gate import pass_gate
from training.publish.model_card import calibration_in_words, familiarity_in_words, int8_accuracy, model_card
from training.publish.quantization import add_int8, require_held_out

_CHECKED_IMAGES = 100


@dataclass(frozen=True)
class Run:
    """A training that is ready to begin: what was asked for, and what followed from it and the data."""

    settings: TrainSettings
    name: str
    reading: Reading
    job: Job
    environment: dict[str, str]
    """In words, where it runs, for its record."""


def train_and_publish(settings: TrainSettings, interruption: Interruption) -> int:
    """Train and publish as ``settings`` ask for; return the exit code.

    Raises:
        Interrupted: a signal came; the epochs done are saved, and nothing is published.
        WorseVersion: the new version is worse than the one that it would replace; its training is kept.
        TrainingError: the data, the settings or the machine do not allow it; the message says why.
        OSError: a folder cannot be written.
    """
    run = load(settings)
    folder, strategy = run.job.folder, run.job.strategy
    if not strategy.is_chief:
        train(run.job, run.environment)
        print(f"Worker {strategy.worker} has trained and waits for the chief to publish.", flush=True)
        strategy.finish()
        return 0
    with tracked(run.name, run.job.settings.record(), run.environment, folder.environment()) as tracker:
        trained = fit(run, tracker)
        if keras.backend.backend() != "tensorflow":
            return _publish_with_tensorflow(settings.arguments)
        with artifact.draft(settings.models, run.name) as draft:
            exported = export(run, trained, draft)
            measured = evaluate(run, exported, draft)
            path = publish(run, draft, trained=trained, exported=exported, measured=measured, interruption=interruption)
        tracker.published(path)
    folder.clear()
    strategy.finish()
    return 0


def load(settings: TrainSettings) -> Run:
    """Read the data, choose the recipe, and find out what stands against the training before it begins."""
    smoke = settings.recipe.preset == "smoke"
    name = settings.name or sources.model_name(settings.data, smoke)
    folder = RunFolder(settings.run or Path(os.environ.get("RUN_DIR") or "runs") / name)
    if settings.deterministic:
        hardware.set_deterministic()
    strategy = connect()
    if strategy.is_chief:
        require_writable(settings.models)
        require_writable(folder.path)
    reading = _reading(settings, folder)
    dataset = sources.load(settings.data, settings.validation_images, smoke, reading=reading)
    recipe = choose(settings.recipe, dataset, taught=bool(settings.teachers))
    recipe = strategy.shared(recipe, len(dataset.train))
    if settings.fresh and strategy.is_chief:
        folder.clear()
    environment = {**hardware.environment(settings.precision), **strategy.environment()}
    start = _start(settings.start_from, dataset) if settings.start_from else None
    teacher = ensemble([_teacher(version, dataset) for version in settings.teachers]) if settings.teachers else None
    job = Job(dataset, recipe, folder, start, teacher, strategy)
    if settings.int8:
        require_held_out(job.settings.record())
    _announce(job, environment)
    return Run(settings, name, reading, job, environment)


def fit(run: Run, tracker: Tracker) -> Trained:
    """Train, beginning at the last checkpoint."""
    environment = {**run.environment, MLFLOW_RUN: tracker.run_id} if tracker.run_id else run.environment
    return train(run.job, environment, [tracker])


@dataclass(frozen=True)
class Exported:
    """The network in float32, as it lies in the draft of a version, and what was fitted to the held-out images."""

    model: keras.Model
    post_hoc: PostHoc
    held_out: int
    """How many validation images, counted from the end, no training has seen."""


def export(run: Run, trained: Trained, draft: Draft) -> Exported:
    """Calibrate the network, write it as a SavedModel, and prove that this answers as the network does."""
    from training.publish.export import check, save  # which need TensorFlow

    dataset, model = run.job.dataset, in_float32(trained.model)
    lineage = Lineage.read(trained.state.settings)
    held_out = lineage.held_out()
    post_hoc = fit_post_hoc(model, dataset, held_out, lineage.smoothing())
    if post_hoc.calibration and post_hoc.familiarity:
        print(f"Calibrated: {calibration_in_words(post_hoc.calibration)}.")
        print(f"A picture is familiar {familiarity_in_words(post_hoc.familiarity)}.")
    else:
        print(why_not_calibrated(held_out))
    save(model, dataset.picture, draft.path, post_hoc.correction)
    gap = check(model, draft.path, dataset.train.images[:_CHECKED_IMAGES], post_hoc.correction)
    print(f"The SavedModel answers as the network does, within {gap:.1e}, under TensorFlow and OpenVINO.")
    return Exported(model, post_hoc, held_out)


@dataclass(frozen=True)
class Measured:
    """What a version answers to the test images, and how well its score tells other pictures from them."""

    evaluation: Evaluation
    metrics: Metrics


def evaluate(run: Run, exported: Exported, draft: Draft) -> Measured:
    """Measure what the draft answers to the test images, and hold it against the version that it would replace."""
    dataset = run.job.dataset
    measured_on = f"{dataset.name} test"
    evaluation = accuracy.evaluate(openvino_predict(draft.path), dataset.labels, dataset.test, measured_on)
    print(report.table(evaluation))
    _pass_gate(run, evaluation)
    scores = measure(openvino_score(draft.path), dataset.test.images, exported.post_hoc.threshold)
    return Measured(evaluation, dataclasses.replace(evaluation.metrics(), out_of_distribution=scores))


def publish(
    run: Run, draft: Draft, *, trained: Trained, exported: Exported, measured: Measured, interruption: Interruption
) -> Path:
    """Write all else that a version carries into the draft, publish it, and return its folder."""
    settings, dataset, state = run.settings, run.job.dataset, trained.state
    model, post_hoc = exported.model, exported.post_hoc
    uncalibrated = Correction().probabilities(logits_of(model, dataset.test.images)) if post_hoc.calibration else None
    plots = save_plots(measured.evaluation, state.history, draft.extra, uncalibrated)
    int8 = _int8(run.job.dataset, exported.held_out, draft) if settings.int8 else None
    metadata = Metadata(
        name=run.name,
        version=1 + (artifact.latest(settings.models, run.name) or 0),
        labels=dataset.labels,
        input=dataset.picture,
        metrics=measured.metrics,
        parameters=model.count_params(),
        megaflops=round(megaflops(model), 1),
        created=provenance.now(),
        training={**state.settings, **state.environment},
        dataset={
            "name": dataset.name,
            "sha256": state.settings["data"],
            "train": len(dataset.train),
            "validation": len(dataset.validation),
            "test": len(dataset.test),
        },
        revision=provenance.revision(),
        libraries=provenance.libraries(),
        hardware=state.environment["hardware"],
        training_seconds=round(state.seconds, 1),
        int8=int8,
        calibration=post_hoc.calibration,
        familiarity=post_hoc.familiarity,
    )
    (draft.path / MODEL_CARD).write_text(model_card(metadata, plots), encoding="utf-8")
    (draft.extra / configuration.FILE).write_text(_configuration(run, trained), encoding="utf-8")
    interruption.check()
    path = draft.publish(metadata)
    print(f"Trained in {duration(state.seconds)}. Published {path}.")
    return path


def _reading(settings: TrainSettings, folder: RunFolder) -> Reading:
    """Return what becomes of pictures; unless it is asked for, what became of those to build on."""
    size, resize = settings.image_size, settings.resize
    if version := next(filter(None, [settings.start_from, *settings.teachers]), None):
        before = artifact.read_metadata(version).input
        size, resize = size or (before.height, before.width), resize or before.resize
    return Reading(size, resize or "crop", settings.max_unreadable, settings.cache or folder.path)


def _start(version: Path, dataset: Dataset) -> Start:
    from training.publish.export import read_weights  # which needs TensorFlow

    metadata = artifact.validate(version)
    _require_same_labels(version, metadata, dataset)
    return Start(read_weights(version), Origin.of(metadata))


def _teacher(version: Path, dataset: Dataset) -> Teacher:
    """Return a published version to learn from; where it has an int8 network, that one answers, since it is faster."""
    metadata = artifact.validate(version)
    _require_same_labels(version, metadata, dataset)
    if metadata.input != dataset.picture:
        takes, has = (size_in_words(picture) for picture in (metadata.input, dataset.picture))
        raise TrainingError(
            f"{version} takes pictures of {takes}, and the training has {has}; a teacher needs the same"
        )
    network = version / INT8_MODEL if metadata.int8 else version
    return Teacher(openvino_predict(network), (Origin.of(metadata),))


def _require_same_labels(version: Path, metadata: Metadata, dataset: Dataset) -> None:
    if dataset.labels != metadata.labels:
        raise TrainingError(f"{version} knows {', '.join(metadata.labels)}; the data has {', '.join(dataset.labels)}")


def _announce(job: Job, environment: dict[str, str]) -> None:
    dataset = job.dataset
    held_out = f"{len(dataset.validation):,} for validation" if len(dataset.validation) else "none held out"
    print(f"{dataset.name}: {len(dataset.train):,} training images, {held_out}, {len(dataset.test):,} for the test.")
    if not hardware.has_gpu():
        print("Training on the CPU, without a GPU.")
    print(
        "Training {epochs} epochs with {backend} in {precision} on {hardware}.".format(
            epochs=job.recipe.epochs, **environment
        )
    )
    if devices := environment.get("devices"):
        print(f"Devices that share every batch: {devices}.")
    sys.stdout.flush()


def _publish_with_tensorflow(arguments: Sequence[str]) -> int:
    """Publish in a process of its own, since Keras keeps the backend that it started with; return its exit code.

    The run is done, so the same command under TensorFlow goes on from its last checkpoint straight to publishing.
    """
    again = [argument for argument in arguments if argument != "--fresh"]
    first_gpu = os.environ.get("CUDA_VISIBLE_DEVICES", "0").partition(",")[0]  # several would ask for another batch
    environment = {**os.environ, "KERAS_BACKEND": "tensorflow", "CUDA_VISIBLE_DEVICES": first_gpu, device.VARIABLE: ""}
    return subprocess.run([sys.executable, "-m", "training", *again], env=environment, check=False).returncode


def _pass_gate(run: Run, evaluation: Evaluation) -> None:
    """Hold the new version against the one that it would replace, which gets the same pictures in the size it takes."""
    settings, dataset = run.settings, run.job.dataset

    def test_images(picture: Input) -> Split:
        if picture == dataset.picture:
            return dataset.test
        made_up = dataset.name == sources.MADE_UP
        return sources.load(settings.data, settings.validation_images, made_up, picture, run.reading).test

    digest, anyway = run.job.settings.data, settings.publish_anyway
    try:
        pass_gate(settings.models, run.name, evaluation, digest, test_images, publish_anyway=anyway)
    except WorseVersion:
        run.job.strategy.finish()  # the training of all machines is done, and nothing of it is lost
        raise


def _int8(dataset: Dataset, held_out: int, draft: Draft) -> Int8 | None:
    """Add the int8 network to the draft, or say that the version is published without."""
    try:
        int8 = add_int8(draft.path, dataset, held_out)
    except AccuracyLost as lost:
        print(f"Publishing without int8, since {lost}.")
        return None
    print(f"accuracy in int8 {int8_accuracy(int8)}")
    return int8


def _configuration(run: Run, trained: Trained) -> str:
    """Return the file that repeats the run, with what it found out in the place of what was left open."""
    dataset, environment = run.job.dataset, trained.state.environment
    height, width, _ = dataset.input_shape
    found = {
        "name": run.name,
        "precision": environment["precision"],
        "image-size": f"{height}x{width}",
        "resize": dataset.resize,
    }
    return configuration.write({**run.settings.repeatable, **found}, run.job.recipe, environment.get("changed", ""))
