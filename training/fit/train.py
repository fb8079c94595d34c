"""Train a network on a data set, resumably."""

import gc
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import islice
from typing import TYPE_CHECKING, Any

import keras
import numpy as np
from numpy.typing import NDArray

from training.data.augmentation import Batches, InOrder
from training.data.dataset import Dataset, Pixels, size_in_words
from training.errors import TrainingError
from training.fit.checkpoints import RunFolder, RunState
from training.fit.distillation import Teacher
from training.fit.divergence import StopWhenDiverged
from training.fit.hardware import has_gpu
from training.fit.lineage import Origin, Record, RunSettings
from training.fit.optimizer import optimizer
from training.fit.out_of_memory import OutOfMemory, smaller_batch, watched
from training.fit.progress import Checkpoints, Progress, StopOnSignal
from training.fit.recipe import Recipe
from training.fit.strategy import ONE_DEVICE, Strategy, synchronize_normalisation
from training.network.backbone import build_on_backbone, describe_weights
from training.network.model import build, every_layer, fit_to_pixels, set_weights
from training.network.registry import NO_WEIGHTS

if TYPE_CHECKING:
    from training.fit.device_epoch import DeviceEpochs

_RECALIBRATION_BATCHES = 20
_TABLE = "results.csv"


@dataclass(frozen=True)
class Start:
    """The weights to begin with, in the order of the network's, and the published version that they are of, if any."""

    weights: list[NDArray[np.float32]]
    origin: Origin | None


@dataclass(frozen=True)
class Job:
    """What is trained, on what, and where: checkpoints and logs go to ``folder``.

    Where that has no checkpoint, training begins with the weights of ``start``, else at random. The answers of
    ``teacher`` are learned beside the labels. ``strategy`` has the devices, among which the recipe's batch has to be
    shared equally (``Strategy.shared``).
    """

    dataset: Dataset
    recipe: Recipe
    folder: RunFolder
    start: Start | None = None
    teacher: Teacher | None = None
    strategy: Strategy = ONE_DEVICE

    @cached_property
    def settings(self) -> RunSettings:
        """What makes two runs the same; the data's digest takes a while, and is taken once."""
        weights = self.recipe.backbone_weights
        return RunSettings(
            recipe=self.recipe,
            backbone_weights=describe_weights(weights) if weights else None,
            data=self.dataset.digest(),
            pictures=size_in_words(self.dataset.picture),
            validation_images=len(self.dataset.validation),
            start_from=self.start.origin if self.start else None,
            teachers=self.teacher.origins if self.teacher else (),
        )


@dataclass(frozen=True)
class Trained:
    """A trained network and the run that made it."""

    model: keras.Model
    state: RunState


def train(job: Job, environment: dict[str, str], watchers: Sequence[keras.callbacks.Callback] = ()) -> Trained:
    """Train as ``job`` says, beginning at the last checkpoint of its folder, and return the averaged network.

    ``environment`` says in words where it runs, for the run's record. Where a batch does not fit into memory, the epoch
    begins again with half of it. Of several machines only the chief keeps checkpoints and logs, tells ``watchers`` of
    the training, and returns a network whose batch normalisation was measured anew.

    Raises:
        Interrupted: SIGTERM or SIGINT came; the epochs done are saved in the folder.
        TrainingError: the folder holds another run, the version to start from is of another network, the training
            diverged, memory does not hold a single picture, or another machine failed.
        OSError: the folder cannot be written.
    """
    strategy, settings = job.strategy, job.settings.record()
    batch_size: int | None = None
    while True:
        try:
            with strategy.watched():
                state = _state_to_go_on_from(job, settings, environment, batch_size)
                return _train(job, state, watchers)
        except OutOfMemory as full:
            batch_size = smaller_batch(full, strategy.replicas, strategy.workers)
        gc.collect()  # what is left of the network that did not fit


def _state_to_go_on_from(job: Job, settings: Record, environment: dict[str, str], batch_size: int | None) -> RunState:
    """Return the chief's state on every machine; ``batch_size`` is what memory leaves of a batch."""
    strategy = job.strategy
    strategy.require_agreement(settings)
    state = job.folder.state(settings, environment) if strategy.is_chief else RunState(settings, environment)
    [progress] = strategy.from_chief([np.array([state.epoch, state.batch_size or 0])])
    epoch, saved = progress.tolist()
    state = replace(state, epoch=epoch, batch_size=saved or None)
    if batch_size and batch_size != saved:
        before = saved or settings["batch_size"]
        state = replace(state, batch_size=batch_size).changed(
            f"batch size {before} -> {batch_size}, for want of memory"
        )
    return state


def _train(job: Job, state: RunState, watchers: Sequence[keras.callbacks.Callback]) -> Trained:
    """Build the network, train it from ``state`` on, and return it averaged and recalibrated."""
    strategy = job.strategy
    recipe = replace(job.recipe, batch_size=state.batch_size or job.recipe.batch_size)
    job = replace(job, recipe=recipe)
    # pixels [N, H, W, 3] in 0..255 -> logits float32 [N, classes]
    model = network = network_of(job.dataset, recipe)
    if job.start is not None:
        _begin_with(network, job.start)
    elif not recipe.backbone:
        fit_to_pixels(network, job.dataset.train.images)
    batches = _batches(job)  # pictures uint8 [B, H, W, 3] and targets float32 [B, classes]
    with strategy.scope():
        if strategy.tensorflow:  # a replica on every device
            model = network_of(job.dataset, recipe)
            synchronize_normalisation(model)
            set_weights(model, network.get_weights())
        model.compile(
            optimizer=optimizer(recipe, len(batches)),
            loss=_loss(job.dataset, recipe),
            metrics=[_accuracy(job.dataset)],
        )
        model.optimizer.build(model.trainable_variables)  # a checkpoint has its state too
    _load_checkpoint(model, job, state)
    model.optimizer.iterations.assign(state.epoch * len(batches))  # other than saved where the batch is another
    if state.epoch:
        print(f"Resuming {job.folder.path} after epoch {state.epoch} of {recipe.epochs}.", flush=True)
    on_device = _on_device(model, batches, job)
    if state.epoch < recipe.epochs:
        state = _fit(model, batches, on_device, job, state, watchers)
    model.optimizer.finalize_variable_values(model.trainable_variables)  # the weights' moving average
    if model is not network:
        set_weights(network, model.get_weights())
    if strategy.is_chief and not recipe.pretrained:  # whose backbone keeps the batch statistics it came with
        if on_device:
            on_device.recalibrate(recipe.epochs, _RECALIBRATION_BATCHES)
        else:
            recalibrate(network, islice(batches.images_from_epoch(recipe.epochs), _RECALIBRATION_BATCHES))
    return Trained(network, state)


def _loss(dataset: Dataset, recipe: Recipe) -> Any:
    """Return the loss of targets and logits: the cross-entropy of the class, or the sum of those of all labels."""
    if not dataset.multi_label:
        return keras.losses.CategoricalCrossentropy(from_logits=True, label_smoothing=recipe.label_smoothing)
    labels = len(dataset.labels)

    def summed(targets: Any, logits: Any) -> Any:
        return labels * keras.losses.binary_crossentropy(targets, logits, from_logits=True)

    return summed


def _accuracy(dataset: Dataset) -> keras.metrics.Metric:
    """Return the share of right answers for the progress, of several labels with those above even odds.

    What a teacher gives as targets is neither 0 nor 1, and is right where both are on the same side.
    """
    if not dataset.multi_label:
        return keras.metrics.CategoricalAccuracy(name="accuracy")

    def same_side(targets: Any, logits: Any) -> Any:
        return keras.ops.mean(keras.ops.cast((targets > 0.5) == (logits > 0), "float32"), axis=-1)

    return keras.metrics.MeanMetricWrapper(same_side, name="accuracy")


def network_of(dataset: Dataset, recipe: Recipe) -> keras.Model:
    """Return the network that ``recipe`` asks for, with the weights of its backbone, if it has one."""
    classes = len(dataset.labels)
    if recipe.backbone:
        weights = recipe.backbone_weights or NO_WEIGHTS
        return build_on_backbone(dataset.input_shape, classes, recipe.backbone, weights, recipe.seed)
    return build(dataset.input_shape, classes, recipe.widths, recipe.seed, recipe.convolutions)


def _begin_with(model: keras.Model, start: Start) -> None:
    expected = [tuple(weight.shape) for weight in model.weights]
    if [weight.shape for weight in start.weights] != expected:
        raise TrainingError(
            "the version to start from is of another network; choose the preset that it was trained with"
        )
    set_weights(model, start.weights)


def _batches(job: Job) -> Batches:
    recipe, teacher = job.recipe, job.teacher
    return Batches(
        job.dataset.train,
        len(job.dataset.labels),
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


def _on_device(model: keras.Model, batches: Batches, job: Job) -> "DeviceEpochs | None":
    """Return what trains on pictures in the GPU's memory, an epoch as one compiled function; None where nothing does.

    That takes JAX, a GPU that has room for the pictures, and no teacher, since OpenVINO answers on the host.
    """
    if keras.backend.backend() != "jax" or not has_gpu() or job.teacher:
        return None
    from training.fit import device_epoch

    dataset, room = job.dataset, device_epoch.room()
    needed = dataset.train.images.nbytes + dataset.validation.images.nbytes
    if needed > room:
        sizes = f"they take {needed / 1e6:,.0f} MB, and a quarter of its memory is {room / 1e6:,.0f}"
        print(f"Pictures go to the GPU batch by batch: {sizes}.")
        return None
    print(f"The pictures lie in the GPU's memory ({needed / 1e6:,.0f} MB), and an epoch is one compiled function.")
    validation = _validation(job)
    return device_epoch.DeviceEpochs(model, batches, validation.whole() if validation else None)


def _validation(job: Job) -> InOrder | None:
    split = job.dataset.validation
    return InOrder(split, len(job.dataset.labels), job.recipe.batch_size) if len(split) else None


def _load_checkpoint(model: keras.Model, job: Job, state: RunState) -> None:
    """Load the last checkpoint, which only the chief has, and give every machine the chief's weights to begin with."""
    strategy = job.strategy
    if state.epoch and strategy.is_chief:
        job.folder.load(model)
    if strategy.workers > 1:
        variables = [*model.weights, *model.optimizer.variables]
        values = strategy.from_chief([keras.ops.convert_to_numpy(variable) for variable in variables])
        for variable, value in zip(variables, values, strict=True):
            variable.assign(value)
        set_weights(model, model.get_weights())  # normalisation works out its constants anew


def _fit(
    model: keras.Model,
    batches: Batches,
    on_device: "DeviceEpochs | None",
    job: Job,
    state: RunState,
    watchers: Sequence[keras.callbacks.Callback],
) -> RunState:
    """Train the epochs that are left, each saved at its end, and return the state after the last."""
    recipe, strategy = job.recipe, job.strategy
    validation = _validation(job)
    stop = StopOnSignal()
    progress = Progress(recipe.epochs, 1 if on_device else len(batches))
    checkpoints = Checkpoints(job.folder, state)
    table = keras.callbacks.CSVLogger(job.folder.logs / _TABLE, append=True)
    callbacks = [StopWhenDiverged(recipe.learning_rate, job.folder.last)]
    if strategy.is_chief:
        if not state.epoch:
            job.folder.begin_logs()
        job.folder.logs.mkdir(parents=True, exist_ok=True)
        callbacks += [checkpoints, progress, keras.callbacks.TensorBoard(job.folder.logs), table, *watchers]
    callbacks += [stop]
    try:
        with stop.listening(), watched(recipe.batch_size, job.folder.path):
            epochs = range(state.epoch, recipe.epochs)
            if on_device:
                on_device.fit(epochs, callbacks)
                return checkpoints.state
            if strategy.tensorflow:
                from training.fit import replicas

                replicas.fit(model, strategy, batches, validation.whole() if validation else None, epochs, callbacks)
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
        table.on_train_end()  # its file stays open where the training is stopped by an exception
    return checkpoints.state


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
