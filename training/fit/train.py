"""Train a network on a data set, resumably."""

import gc
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, replace
from itertools import islice
from typing import Any

import keras
import numpy as np
from numpy.typing import NDArray

from training.data.augmentation import Batches, InOrder
from training.data.dataset import Dataset, Pixels
from training.errors import TrainingError
from training.fit.checkpoints import RunFolder, RunState
from training.fit.distillation import Teacher
from training.fit.divergence import StopWhenDiverged
from training.fit.optimizer import optimizer
from training.fit.out_of_memory import OutOfMemory, smaller_batch, watched
from training.fit.progress import Checkpoints, Progress, StopOnSignal
from training.fit.recipe import Recipe
from training.fit.strategy import ONE_DEVICE, Spread, synchronize_normalisation
from training.network.backbone import build_on_backbone, describe_weights
from training.network.model import build, every_layer, fit_to_pixels, set_weights
from training.network.registry import NO_WEIGHTS

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
    dataset: Dataset,
    recipe: Recipe,
    folder: RunFolder,
    environment: dict[str, str],
    start: Start | None = None,
    spread: Spread = ONE_DEVICE,
    watchers: Sequence[keras.callbacks.Callback] = (),
    teacher: Teacher | None = None,
) -> Trained:
    """Train on ``dataset.train``, beginning at the last checkpoint of ``folder``, and return the averaged network.

    ``environment`` says in words where it runs, for the run's record. Where there is no checkpoint, training begins
    with the weights of ``start``, else at random. The answers of ``teacher`` are learned beside the labels. Where a
    batch does not fit into memory, the epoch begins again with half of it. ``spread`` has the devices, among which a
    batch has to be shared equally (``Spread.shared``); of several machines only the chief keeps checkpoints and logs,
    tells ``watchers`` of the training, and returns a network whose batch normalisation was measured anew.

    Raises:
        Interrupted: SIGTERM or SIGINT came; the epochs done are saved in ``folder``.
        TrainingError: ``folder`` holds another run, ``start`` is of another network, the training diverged, memory
            does not hold a single picture, or another machine failed.
        OSError: ``folder`` cannot be written.
    """
    wanted = settings(dataset, recipe, start, teacher)
    batch_size: int | None = None
    while True:
        try:
            with spread.watched():
                state = _begin(folder, wanted, environment, spread, batch_size)
                fitting = replace(recipe, batch_size=state.batch_size or recipe.batch_size)
                return _train(dataset, fitting, folder, state, start, spread, watchers, teacher)
        except OutOfMemory as full:
            batch_size = smaller_batch(full, spread.replicas, spread.workers)
        gc.collect()  # what is left of the network that did not fit


def _begin(
    folder: RunFolder, wanted: dict[str, Any], environment: dict[str, str], spread: Spread, batch_size: int | None
) -> RunState:
    """Return the state to go on from, the chief's on every machine; ``batch_size`` is what memory leaves of a batch."""
    spread.require_agreement(wanted)
    state = folder.state(wanted, environment) if spread.is_chief else RunState(wanted, environment)
    [progress] = spread.from_chief([np.array([state.epoch, state.batch_size or 0])])
    epoch, saved = progress.tolist()
    state = replace(state, epoch=epoch, batch_size=saved or None)
    if batch_size and batch_size != saved:
        before = saved or wanted["batch_size"]
        state = replace(state, batch_size=batch_size).changed(
            f"batch size {before} -> {batch_size}, for want of memory"
        )
    return state


def _train(
    dataset: Dataset,
    recipe: Recipe,
    folder: RunFolder,
    state: RunState,
    start: Start | None,
    spread: Spread,
    watchers: Sequence[keras.callbacks.Callback],
    teacher: Teacher | None,
) -> Trained:
    classes = len(dataset.labels)
    model = network = _network(dataset, recipe)
    _prepare(network, dataset, recipe, start)
    batches = Batches(
        dataset.train,
        classes,
        recipe.batch_size,
        recipe.translation,
        cutout=recipe.cutout,
        crop=recipe.crop,
        change=recipe.change,
        balance=recipe.balance,
        flip=recipe.flip,
        seed=recipe.seed,
        teach=teacher.targets(recipe.teacher_share, recipe.teacher_temperature) if teacher else None,
    )
    with spread.scope():
        if spread.strategy:
            model = _network(dataset, recipe)
            synchronize_normalisation(model)
            set_weights(model, network.get_weights())
        model.compile(
            optimizer=optimizer(recipe, len(batches)),
            loss=keras.losses.CategoricalCrossentropy(from_logits=True, label_smoothing=recipe.label_smoothing),
            metrics=[keras.metrics.CategoricalAccuracy(name="accuracy")],
        )
        model.optimizer.build(model.trainable_variables)
    _load(model, folder, state, spread)
    model.optimizer.iterations.assign(state.epoch * len(batches))  # other than saved where the batch is another
    if state.epoch:
        print(f"Resuming {folder.path} after epoch {state.epoch} of {recipe.epochs}.", flush=True)
    state = _fit(model, batches, dataset, recipe, folder, state, spread, watchers)
    model.optimizer.finalize_variable_values(model.trainable_variables)
    if model is not network:
        set_weights(network, model.get_weights())
    if spread.is_chief and not recipe.pretrained:  # a pretrained backbone keeps the batch statistics that it came with
        recalibrate(network, islice(batches.images_from_epoch(recipe.epochs), _RECALIBRATION_BATCHES))
    return Trained(network, state)


def _load(model: keras.Model, folder: RunFolder, state: RunState, spread: Spread) -> None:
    """Load the last checkpoint, which only the chief has, and give every machine the chief's weights to begin with."""
    if state.epoch and spread.is_chief:
        folder.load(model)
    if spread.workers > 1:
        variables = [*model.weights, *model.optimizer.variables]
        values = spread.from_chief([keras.ops.convert_to_numpy(variable) for variable in variables])
        for variable, value in zip(variables, values, strict=True):
            variable.assign(value)
        set_weights(model, model.get_weights())  # normalisation works out its constants anew


def _network(dataset: Dataset, recipe: Recipe) -> keras.Model:
    """Return the network that ``recipe`` asks for, with the weights of its backbone, if it has one."""
    classes = len(dataset.labels)
    if recipe.backbone:
        weights = recipe.backbone_weights or NO_WEIGHTS
        return build_on_backbone(dataset.input_shape, classes, recipe.backbone, weights, recipe.seed)
    return build(dataset.input_shape, classes, recipe.widths, recipe.seed, recipe.convolutions)


def _prepare(model: keras.Model, dataset: Dataset, recipe: Recipe, start: Start | None) -> None:
    """Give a network the weights that it has before its first step, or what of them follows from the pictures."""
    if start is not None:
        _begin_with(model, start)
    elif not recipe.backbone:
        fit_to_pixels(model, dataset.train.images)


def settings(dataset: Dataset, recipe: Recipe, start: Start | None, teacher: Teacher | None) -> dict[str, Any]:
    """Return what makes two runs the same: resuming one with another would give neither."""
    return {
        **asdict(recipe),
        "widths": list(recipe.widths),
        "backbone_weights": describe_weights(recipe.backbone_weights) if recipe.backbone_weights else None,
        "data": dataset.digest(),
        "validation_images": len(dataset.validation),
        "start_from": start.origin if start else None,
        "teachers": list(teacher.origins) if teacher else None,
    }


def held_out(settings: dict[str, Any]) -> int:
    """Return how many images, counted from the end, the training with ``settings`` and all that it built on left out.

    ``settings`` are also in a version's metadata, under ``training``; 0 where they are of another trainer.
    """
    number: int = settings.get("validation_images", 0)
    origins = filter(None, [settings.get("start_from"), *_teachers(settings)])
    return min([number, *(held_out(origin["training"]) for origin in origins)])


def smoothing(settings: dict[str, Any]) -> float | None:
    """Return the label smoothing of the training with ``settings``, None where a teacher's answers took its place."""
    share: float = settings["label_smoothing"]
    return None if _teachers(settings) else share


def _teachers(settings: dict[str, Any]) -> list[dict[str, Any]]:
    """Return what the teachers of the training with ``settings`` were; older versions have but one, by another name."""
    older = settings.get("teacher")
    return settings.get("teachers") or ([older] if older else [])


def _begin_with(model: keras.Model, start: Start) -> None:
    expected = [tuple(weight.shape) for weight in model.weights]
    if [weight.shape for weight in start.weights] != expected:
        raise TrainingError(
            "the version to start from is of another network; choose the preset that it was trained with"
        )
    set_weights(model, start.weights)


def recalibrate(model: keras.Model, batches: Iterable[Pixels]) -> None:
    """Measure the statistics of batch normalisation anew: the plain mean over ``batches``, uint8 [B, H, W, 3] each.

    Those of the training were taken with weights that averaging has replaced. The pictures have to be augmented as in
    the training: what follows a normalisation has learned from such statistics, and blanked squares shift them. With
    those of pictures as they are, a network trained with cutout has 0.7 points fewer of CIFAR-10 right.
    """
    norms = [layer for layer in every_layer(model) if isinstance(layer, keras.layers.BatchNormalization)]
    momenta = [norm.momentum for norm in norms]
    for index, images in enumerate(batches):
        for norm in norms:
            norm.momentum = index / (index + 1)  # the plain mean over the batches seen so far
        model(images, training=True)
    for norm, momentum in zip(norms, momenta, strict=True):
        norm.momentum = momentum


def _fit(
    model: keras.Model,
    batches: Batches,
    dataset: Dataset,
    recipe: Recipe,
    folder: RunFolder,
    state: RunState,
    spread: Spread,
    watchers: Sequence[keras.callbacks.Callback],
) -> RunState:
    if state.epoch >= recipe.epochs:
        return state
    stop = StopOnSignal()
    progress = Progress(recipe.epochs, len(batches))
    validation = (
        InOrder(dataset.validation, len(dataset.labels), recipe.batch_size) if len(dataset.validation) else None
    )
    checkpoints = Checkpoints(folder, state)
    callbacks = [StopWhenDiverged(recipe.learning_rate, folder.last)]
    if spread.is_chief:
        callbacks += [checkpoints, progress, keras.callbacks.TensorBoard(folder.logs), *watchers]
    callbacks += [stop]
    try:
        with stop.listening(), watched(recipe.batch_size):
            if spread.strategy:
                from training.fit import replicas

                epochs = range(state.epoch, recipe.epochs)
                replicas.fit(model, spread, batches, validation.whole() if validation else None, epochs, callbacks)
                return checkpoints.state
            model.fit(
                batches.from_epoch(state.epoch),
                steps_per_epoch=len(batches),
                shuffle=False,  # an epoch is shuffled already
                epochs=recipe.epochs,
                initial_epoch=state.epoch,
                validation_data=validation,
                callbacks=callbacks,
                verbose=0,
            )
    finally:
        progress.close()
    return checkpoints.state
