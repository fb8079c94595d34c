"""Train a network on a data set, resumably."""

from dataclasses import asdict, dataclass

import keras
import numpy as np
from numpy.typing import NDArray

from training.augment import Batches, one_hot
from training.dataset import Dataset, Pixels
from training.errors import TrainingError
from training.model import build, fit_to_pixels
from training.optimizer import optimizer
from training.presets import Recipe
from training.progress import Checkpoints, Progress, StopOnSignal
from training.run_folder import RunFolder, RunState

_RECALIBRATION_BATCHES = 20


@dataclass(frozen=True)
class Trained:
    """A trained network and the run that made it."""

    model: keras.Model
    state: RunState


@dataclass(frozen=True)
class Start:
    """The weights of a published version to begin with, in the order of the network's, and what that version was."""

    weights: list[NDArray[np.float32]]
    origin: dict[str, object]


def train(
    dataset: Dataset, recipe: Recipe, folder: RunFolder, environment: dict[str, str], start: Start | None = None
) -> Trained:
    """Train on ``dataset.train``, beginning at the last checkpoint of ``folder``, and return the averaged network.

    ``environment`` says in words where it runs, for the run's record. Where there is no checkpoint, training begins
    with the weights of ``start``, else at random.

    Raises:
        Interrupted: SIGTERM or SIGINT came; the epochs done are saved in ``folder``.
        TrainingError: ``folder`` holds another run, or ``start`` is of another network.
        OSError: ``folder`` cannot be written.
    """
    classes = len(dataset.labels)
    model = build(dataset.input_shape, classes, recipe.widths, recipe.seed)
    if start is None:
        fit_to_pixels(model, dataset.train.images)
    else:
        _set_weights(model, start)
    batches = Batches(
        dataset.train,
        classes,
        recipe.batch_size,
        recipe.translation,
        cutout=recipe.cutout,
        flip=recipe.flip,
        seed=recipe.seed,
    )
    model.compile(
        optimizer=optimizer(recipe, len(batches)),
        loss=keras.losses.CategoricalCrossentropy(from_logits=True, label_smoothing=recipe.label_smoothing),
        metrics=[keras.metrics.CategoricalAccuracy(name="accuracy")],
    )
    model.optimizer.build(model.trainable_variables)
    state = folder.resume(model, settings(dataset, recipe, start), environment)
    if state.epoch:
        print(f"Resuming {folder.path} after epoch {state.epoch} of {recipe.epochs}.", flush=True)
    state = _fit(model, batches, dataset, recipe, folder, state)
    model.optimizer.finalize_variable_values(model.trainable_variables)
    recalibrate(model, dataset.train.images, recipe.batch_size)
    return Trained(model, state)


def settings(dataset: Dataset, recipe: Recipe, start: Start | None) -> dict[str, object]:
    """Return what makes two runs the same: resuming one with another would give neither."""
    return {
        **asdict(recipe),
        "widths": list(recipe.widths),
        "data": dataset.digest(),
        "validation_images": len(dataset.validation),
        "start_from": start.origin if start else None,
    }


def _set_weights(model: keras.Model, start: Start) -> None:
    expected = [tuple(weight.shape) for weight in model.weights]
    if [weight.shape for weight in start.weights] != expected:
        raise TrainingError(
            "the version to start from is of another network; choose the preset that it was trained with"
        )
    model.set_weights(start.weights)
    model.get_layer("normalize").finalize_state()


def recalibrate(model: keras.Model, images: Pixels, batch_size: int) -> None:
    """Measure the statistics of batch normalisation anew, on ``images`` uint8 [N, H, W, 3] as they are.

    Those of the training were taken with weights that averaging has replaced, and on augmented pictures, which differ
    from those that will be classified.
    """
    norms = [layer for layer in model.layers if isinstance(layer, keras.layers.BatchNormalization)]
    momenta = [norm.momentum for norm in norms]
    for index, begin in enumerate(range(0, min(len(images), _RECALIBRATION_BATCHES * batch_size), batch_size)):
        for norm in norms:
            norm.momentum = index / (index + 1)  # the plain mean over the batches seen so far
        model(images[begin : begin + batch_size], training=True)
    for norm, momentum in zip(norms, momenta, strict=True):
        norm.momentum = momentum


def _fit(
    model: keras.Model, batches: Batches, dataset: Dataset, recipe: Recipe, folder: RunFolder, state: RunState
) -> RunState:
    if state.epoch >= recipe.epochs:
        return state
    classes = len(dataset.labels)
    stop = StopOnSignal()
    progress = Progress(recipe.epochs, len(batches))
    checkpoints = Checkpoints(folder, state)
    try:
        with stop.listening():
            model.fit(
                batches.from_epoch(state.epoch),
                steps_per_epoch=len(batches),
                shuffle=False,  # an epoch is shuffled already
                epochs=recipe.epochs,
                initial_epoch=state.epoch,
                validation_data=one_hot(dataset.validation, classes) if len(dataset.validation) else None,
                validation_batch_size=recipe.batch_size,
                callbacks=[checkpoints, progress, keras.callbacks.TensorBoard(folder.logs), stop],
                verbose=0,
            )
    finally:
        progress.close()
    return checkpoints.state
