"""The training loop for several devices.

Under a strategy, Keras 3's own ``fit`` loses the first batches of a generator, and it fails with several machines. So
this loop runs the network's training step on every device itself, with Keras's callbacks around it. TensorFlow only.
"""

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from training.data.augmentation import Batch, Batches
from training.errors import TrainingError
from training.fit.strategy import Spread

Step = Callable[[Any], dict[str, Any]]


def fit(
    model: keras.Model,
    spread: Spread,
    batches: Batches,
    validation: Batch | None,
    epochs: range,
    callbacks: Sequence[keras.callbacks.Callback],
) -> None:
    """Train ``model``, made and compiled in the scope of ``spread``, for ``epochs``, as ``model.fit`` does.

    ``batches`` are those of all devices together, and each device gets an equal share. At the end of an epoch callbacks
    see the figures of all devices; at the end of a step those of the first, or none with several machines.

    Raises:
        TrainingError: there are fewer validation pictures than devices.
    """
    sample = next(batches.epoch(epochs.start))
    parts = validation_shares(validation, spread, len(sample[0])) if validation else []
    with spread.scope():
        _make_metrics(model, spread, sample)
        training = iter(_dataset(spread, lambda: shares(batches.from_epoch(epochs.start), spread), sample))
        validating = _dataset(spread, lambda: iter(parts), sample)
    train, test = _on_all_devices(spread, model.train_step), _on_all_devices(spread, model.test_step)
    # Callbacks run outside the scope: what they make, like TensorBoard's variables, is this machine's alone.
    listeners = keras.callbacks.CallbackList(callbacks, model=model, epochs=epochs.stop, steps=len(batches))
    listeners.on_train_begin()
    for epoch in epochs:
        _reset(model, spread)
        listeners.on_epoch_begin(epoch)
        for step in range(len(batches)):
            listeners.on_train_batch_begin(step)
            listeners.on_train_batch_end(step, _of_first_device(spread, train(training)))
        logs = _figures(model, spread)
        if parts:
            _reset(model, spread)
            iterator = iter(validating)
            for _ in range(len(parts) // len(_own_devices(spread))):
                test(iterator)
            logs |= {f"val_{name}": value for name, value in _figures(model, spread).items()}
        listeners.on_epoch_end(epoch, logs)
    listeners.on_train_end()


def shares(batches: Iterator[Batch], spread: Spread) -> Iterator[Batch]:
    """Yield the shares of each batch that fall to this machine, one for each of its devices in turn.

    Every machine makes the whole batch, so that chance gives the same pictures however many devices there are.
    """
    for images, targets in batches:
        size = len(images) // spread.replicas
        for device in _own_devices(spread):
            yield images[device * size : (device + 1) * size], targets[device * size : (device + 1) * size]


def validation_shares(validation: Batch, spread: Spread, batch_size: int) -> list[Batch]:
    """Return this machine's shares of ``validation``, whose steps have about ``batch_size`` pictures on all devices.

    Shares differ by at most one picture in size, and none is empty, which TensorFlow's convolutions would refuse.

    Raises:
        TrainingError: there are fewer pictures than devices.
    """
    images, targets = validation
    if len(images) < spread.replicas:
        raise TrainingError(
            f"{len(images)} validation images cannot be shared among {spread.replicas} devices; "
            "hold out more with --validation-images, or none with 0"
        )
    steps = min(-(-len(images) // batch_size), len(images) // spread.replicas)
    cuts = np.array_split(np.arange(len(images)), steps * spread.replicas)
    mine = [cuts[step * spread.replicas + device] for step in range(steps) for device in _own_devices(spread)]
    return [(images[cut], targets[cut]) for cut in mine]


def _own_devices(spread: Spread) -> range:
    local = spread.replicas // spread.workers
    return range(spread.worker * local, (spread.worker + 1) * local)


def _make_metrics(model: keras.Model, spread: Spread, sample: Batch) -> None:
    """Let Keras make the variables of loss and metrics, which it could not do inside a compiled step."""
    images, targets = (array[:1] for array in sample)
    spread.strategy.run(model.test_step, args=((images, targets),))


def _on_all_devices(spread: Spread, step: Step) -> Step:
    @tf.function(reduce_retracing=True)  # type: ignore[untyped-decorator]
    def run(iterator: Any) -> Any:
        return spread.strategy.run(step, args=(next(iterator),))

    def run_in_scope(iterator: Any) -> dict[str, Any]:
        with spread.scope():
            figures: dict[str, Any] = run(iterator)
            return figures

    return run_in_scope


def _dataset(spread: Spread, own_shares: Callable[[], Iterator[Batch]], sample: Batch) -> Any:
    """Return a data set that gives each device of this machine its next share."""
    signature = tuple(tf.TensorSpec((None, *array.shape[1:]), array.dtype) for array in sample)

    def make(_context: Any) -> Any:
        return tf.data.Dataset.from_generator(own_shares, output_signature=signature).prefetch(tf.data.AUTOTUNE)

    return spread.strategy.distribute_datasets_from_function(make)


def _of_first_device(spread: Spread, logs: dict[str, Any]) -> dict[str, Any]:
    """Return the figures of the first device; of none with several machines, which see other ones but decide alike."""
    if spread.workers > 1:
        return {}
    return {name: spread.strategy.experimental_local_results(value)[0] for name, value in logs.items()}


def _reset(model: keras.Model, spread: Spread) -> None:
    with spread.scope():
        model.reset_metrics()


def _figures(model: keras.Model, spread: Spread) -> dict[str, float]:
    """Return loss and metrics over all devices; every machine has to ask."""
    with spread.scope():
        return {name: float(value) for name, value in model.get_metrics_result().items()}
