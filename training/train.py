"""Train a network on a data set, resumably."""

from dataclasses import asdict, dataclass
from itertools import islice

import keras

from training.augment import Batches, one_hot
from training.dataset import Dataset
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


def train(dataset: Dataset, recipe: Recipe, folder: RunFolder, environment: dict[str, str]) -> Trained:
    """Train on ``dataset.train``, beginning at the last checkpoint of ``folder``, and return the averaged network.

    ``environment`` says in words where it runs, for the run's record.

    Raises:
        Interrupted: SIGTERM or SIGINT came; the epochs done are saved in ``folder``.
        TrainingError: ``folder`` holds another run.
        OSError: ``folder`` cannot be written.
    """
    classes = len(dataset.labels)
    model = build(dataset.input_shape, classes, recipe.widths, recipe.seed)
    fit_to_pixels(model, dataset.train.images)
    batches = Batches(dataset.train, classes, recipe.batch_size, recipe.translation, flip=recipe.flip, seed=recipe.seed)
    model.compile(
        optimizer=optimizer(recipe, len(batches)),
        loss=keras.losses.CategoricalCrossentropy(from_logits=True, label_smoothing=recipe.label_smoothing),
        metrics=[keras.metrics.CategoricalAccuracy(name="accuracy")],
    )
    model.optimizer.build(model.trainable_variables)
    state = folder.resume(model, settings(dataset, recipe), environment)
    if state.epoch:
        print(f"Resuming {folder.path} after epoch {state.epoch} of {recipe.epochs}.", flush=True)
    state = _fit(model, batches, dataset, recipe, folder, state)
    model.optimizer.finalize_variable_values(model.trainable_variables)
    recalibrate(model, batches)
    return Trained(model, state)


def settings(dataset: Dataset, recipe: Recipe) -> dict[str, object]:
    """Return what makes two runs the same: resuming one with another would give neither."""
    held_out = len(dataset.validation)
    return {**asdict(recipe), "widths": list(recipe.widths), "data": dataset.digest(), "validation_images": held_out}


def recalibrate(model: keras.Model, batches: Batches) -> None:
    """Measure the statistics of batch normalisation anew: they were taken with weights that averaging has replaced."""
    norms = [layer for layer in model.layers if isinstance(layer, keras.layers.BatchNormalization)]
    momenta = [norm.momentum for norm in norms]
    for index, (images, _) in enumerate(islice(batches.epoch(0), _RECALIBRATION_BATCHES)):
        for norm in norms:
            norm.momentum = index / (index + 1)  # the plain mean over the batches seen so far
        model(images, training=True)
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
