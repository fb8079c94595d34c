"""What the two commands do: wire data, training, evaluation and publishing together."""

import argparse
import datetime
import os
import subprocess
import sys
import tempfile
from pathlib import Path

import keras

import artifact
from artifact import Input, Metadata
from artifact.layout import MODEL_CARD
from training import cifar10, synthetic
from training.card import model_card
from training.cli import VALIDATION_IMAGES
from training.dataset import Dataset, hold_out
from training.errors import Interruption, TrainingError
from training.evaluate import Evaluation, evaluate
from training.hardware import describe, has_gpu, set_precision
from training.model import in_float32, megaflops
from training.plots import save_plots
from training.presets import Recipe, recipe
from training.progress import duration
from training.run_folder import RunFolder
from training.train import Start, Trained, train

_ORIGIN = "https://www.cs.toronto.edu/~kriz/cifar-10-python.tar.gz"
_SHA256 = "6d958be074577803d12ecdefd02955f39262c83c16fe9348329d7fe0b5c001ce"
_SMOKE_IMAGES = 2000
_CHECKED_IMAGES = 100
_LIBRARIES = ("keras", "numpy", "openvino", "tensorflow", "jax", "torch")


def train_and_publish(options: argparse.Namespace) -> int:
    """Train as the command line says and publish the result; return the exit code."""
    smoke = options.preset == "smoke"
    name = options.name or ("smoke" if smoke else "cifar10")
    run = RunFolder(options.run or Path(os.environ.get("RUN_DIR") or "runs") / name)
    _require_writable(options.models)
    _require_writable(run.path)
    chosen = recipe(options.preset, epochs=options.epochs, batch_size=options.batch_size, seed=options.seed)
    dataset = _load(options.data, options.validation_images, smoke)
    if options.fresh:
        run.clear()
    precision = set_precision(options.precision)
    environment = {"backend": keras.backend.backend(), "precision": precision, "hardware": describe()}
    _announce(dataset, chosen, environment)
    start = _start(options.start_from, dataset) if options.start_from else None
    trained = train(dataset, chosen, run, environment, start)
    if keras.backend.backend() != "tensorflow":
        return _publish_with_tensorflow()
    _publish(trained, dataset, options.models, name, options.interruption)
    run.clear()
    return 0


def evaluate_version(options: argparse.Namespace) -> int:
    """Measure a published version and print the figures; return the exit code."""
    from training.export import openvino_predict

    metadata = artifact.validate(options.version)
    dataset = _load(options.data, None, smoke=metadata.dataset["name"] == "made-up")
    _require_same_labels(options.version, metadata, dataset)
    split = dataset.test if options.split == "test" else dataset.validation
    evaluation = evaluate(openvino_predict(options.version), dataset.labels, split, f"{dataset.name} {options.split}")
    _print_evaluation(evaluation)
    if options.plots:
        options.plots.mkdir(parents=True, exist_ok=True)
        print(f"Wrote {', '.join(save_plots(evaluation, [], options.plots))} to {options.plots}.")
    return 0


def _start(version: Path, dataset: Dataset) -> Start:
    from training.export import read_weights

    metadata = artifact.validate(version)
    _require_same_labels(version, metadata, dataset)
    origin = {
        "name": metadata.name,
        "version": metadata.version,
        "accuracy": metadata.metrics.accuracy,
        "training_seconds": metadata.training_seconds,
        "training": metadata.training,
    }
    return Start(read_weights(version), origin)


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


def _load(path: Path | None, validation_images: int | None, smoke: bool) -> Dataset:
    if smoke and path is None:
        labels, training, test = synthetic.load(_SMOKE_IMAGES, _SMOKE_IMAGES // 4, seed=0)
        return hold_out("made-up", labels, training, test, _or_default(validation_images, _SMOKE_IMAGES // 10))
    labels, training, test = cifar10.load(path or _download())
    return hold_out("CIFAR-10", labels, training, test, _or_default(validation_images, VALIDATION_IMAGES))


def _or_default(number: int | None, default: int) -> int:
    return default if number is None else number


def _download() -> Path:
    print("Downloading CIFAR-10 (170 MB); --data takes an archive or folder instead.", flush=True)
    try:
        return Path(keras.utils.get_file("cifar-10-python.tar.gz", _ORIGIN, file_hash=_SHA256, extract=False))
    except Exception as error:  # Keras raises a bare Exception for every network fault
        raise TrainingError(
            f"CIFAR-10 could not be downloaded ({error}); fetch {_ORIGIN} yourself and give its path with --data"
        ) from error


def _announce(dataset: Dataset, chosen: Recipe, environment: dict[str, str]) -> None:
    held_out = f"{len(dataset.validation):,} for validation" if len(dataset.validation) else "none held out"
    print(f"{dataset.name}: {len(dataset.train):,} training images, {held_out}, {len(dataset.test):,} for the test.")
    if not has_gpu():
        print("No GPU was found: training on the CPU.")
    print(
        "Training {epochs} epochs with {backend} in {precision} on {hardware}.".format(
            epochs=chosen.epochs, **environment
        )
    )
    sys.stdout.flush()


def _publish_with_tensorflow() -> int:
    """Publish in a process of its own, since Keras keeps the backend that it started with.

    The run is done, so the same command under TensorFlow goes on from its last checkpoint straight to publishing.
    """
    arguments = [argument for argument in sys.argv[1:] if argument != "--fresh"]
    environment = {**os.environ, "KERAS_BACKEND": "tensorflow"}
    return subprocess.run([sys.executable, "-m", "training", *arguments], env=environment, check=False).returncode


def _publish(trained: Trained, dataset: Dataset, models: Path, name: str, interruption: Interruption) -> None:
    from training import export

    height, width, _ = dataset.input_shape
    picture = Input(height=height, width=width)
    model = in_float32(trained.model)
    state = trained.state
    with artifact.draft(models, name) as draft:
        export.save(model, picture, draft.path)
        gap = export.check(model, draft.path, dataset.train.images[:_CHECKED_IMAGES])
        print(f"The SavedModel answers as the network does, within {gap:.1e}, under TensorFlow and OpenVINO.")
        predict = export.openvino_predict(draft.path)
        evaluation = evaluate(predict, dataset.labels, dataset.test, f"{dataset.name} test")
        plots = save_plots(evaluation, state.history, draft.extra)
        metadata = Metadata(
            name=name,
            version=1 + (artifact.latest(models, name) or 0),
            labels=dataset.labels,
            input=picture,
            metrics=evaluation.metrics(),
            parameters=model.count_params(),
            megaflops=round(megaflops(model), 1),
            created=datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
            training={**state.settings, **state.environment},
            dataset=_describe(dataset),
            revision=_revision(),
            libraries=_libraries(),
            hardware=state.environment["hardware"],
            training_seconds=round(state.seconds, 1),
        )
        (draft.path / MODEL_CARD).write_text(model_card(metadata, plots), encoding="utf-8")
        interruption.check()
        path = draft.publish(metadata)
    _print_evaluation(evaluation)
    print(f"Trained in {duration(state.seconds)}. Published {path}.")


def _describe(dataset: Dataset) -> dict[str, object]:
    return {
        "name": dataset.name,
        "sha256": dataset.digest(),
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


def _print_evaluation(evaluation: Evaluation) -> None:
    metrics = evaluation.metrics()
    width = max(map(len, metrics.per_class))
    print(f"{'':{width}}  precision  recall")
    for label, figures in metrics.per_class.items():
        print(f"{label:{width}}  {figures['precision']:9.2%}  {figures['recall']:6.2%}")
    print(
        f"accuracy {metrics.accuracy:.2%} of {metrics.images:,} images ({metrics.measured_on}), "
        f"expected calibration error {metrics.expected_calibration_error:.4f}"
    )
