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
from training.fit.strategy import Strategy

Step = Callable[[Any], dict[str, Any]]


def fit(
    model: keras.Model,
    strategy: Strategy,
    batches: Batches,
    validation: Batch | None,
    epochs: range,
    callbacks: Sequence[keras.callbacks.Callback],
) -> None:
    """Train ``model``, made and compiled in the scope of ``strategy``, for ``epochs``, as ``model.fit`` does.

    ``batches`` are those of all devices together, and each device gets an equal share. At the end of an epoch callbacks
    see the figures of all devices; at the end of a step those of the first, or none with several machines.

    Raises:
        TrainingError: there are fewer validation pictures than devices.
    """
    sample = next(batches.epoch(epochs.start))
    parts = validation_shares(validation, strategy, len(sample[0])) if validation else []
    with strategy.scope():
        _make_metrics(model, strategy, sample)
        training = iter(_dataset(strategy, lambda: shares(batches.from_epoch(epochs.start), strategy), sample))
        validating = _dataset(strategy, lambda: iter(parts), sample)
    train, test = _on_all_devices(strategy, model.train_step), _on_all_devices(strategy, model.test_step)
    # Callbacks run outside the scope: what they make, like TensorBoard's variables, is this machine's alone.
    listeners = keras.callbacks.CallbackList(callbacks, model=model, epochs=epochs.stop, steps=len(batches))
    listeners.on_train_begin()
    for epoch in epochs:
        _reset(model, strategy)
        listeners.on_epoch_begin(epoch)
        for step in range(len(batches)):
            listeners.on_train_batch_begin(step)
            listeners.on_train_batch_end(step, _of_first_device(strategy, train(training)))
            if model.stop_training:
                break
        logs = _figures(model, strategy)
        if parts:
            _reset(model, strategy)
            iterator = iter(validating)
            for _ in range(len(parts) // len(_own_devices(strategy))):
                test(iterator)
            logs |= {f"val_{name}": value for name, value in _figures(model, strategy).items()}
        listeners.on_epoch_end(epoch, logs)
        if model.stop_training:
            break
    listeners.on_train_end()


def shares(batches: Iterator[Batch], strategy: Strategy) -> Iterator[Batch]:
    """Yield the shares of each batch that fall to this machine, one for each of its devices in turn.

    Every machine makes the whole batch, so that chance gives the same pictures however many devices there are.
    """
    for images, targets in batches:
        size = len(images) // strategy.replicas
        for device in _own_devices(strategy):
            yield images[device * size : (device + 1) * size], targets[device * size : (device + 1) * size]


def validation_shares(validation: Batch, strategy: Strategy, batch_size: int) -> list[Batch]:
    """Return this machine's shares of ``validation``, whose steps have about ``batch_size`` pictures on all devices.

    Shares differ by at most one picture in size, and none is empty, which TensorFlow's convolutions would refuse.

    Raises:
        TrainingError: there are fewer pictures than devices.
    """
    images, targets = validation
    if len(images) < strategy.replicas:
        raise TrainingError(
            f"{len(images)} validation images cannot be shared among {strategy.replicas} devices; "
            "hold out more with --validation-images, or none with 0"
        )
    steps = min(-(-len(images) // batch_size), len(images) // strategy.replicas)
    cuts = np.array_split(np.arange(len(images)), steps * strategy.replicas)
    mine = [cuts[step * strategy.replicas + device] for step in range(steps) for device in _own_devices(strategy)]
    return [(images[cut], targets[cut]) for cut in mine]


def _own_devices(strategy: Strategy) -> range:
    local = strategy.replicas // strategy.workers
    return range(strategy.worker * local, (strategy.worker + 1) * local)


def _make_metrics(model: keras.Model, strategy: Strategy, sample: Batch) -> None:
    """Let Keras make the variables of loss and metrics, which it could not do inside a compiled step."""
    images, targets = (array[:1] for array in sample)
    strategy.tensorflow.run(model.test_step, args=((images, targets),))


def _on_all_devices(strategy: Strategy, step: Step) -> Step:
    @tf.function(reduce_retracing=True)  # type: ignore[untyped-decorator]
    def run(iterator: Any) -> Any:
        return strategy.tensorflow.run(step, args=(next(iterator),))

    def run_in_scope(iterator: Any) -> dict[str, Any]:
        with strategy.scope():
            figures: dict[str, Any] = run(iterator)
            return figures

    return run_in_scope


def _dataset(strategy: Strategy, own_shares: Callable[[], Iterator[Batch]], sample: Batch) -> Any:
    """Return a data set that gives each device of this machine its next share."""
    signature = tuple(tf.TensorSpec((None, *array.shape[1:]), array.dtype) for array in sample)

    def make(_context: Any) -> Any:
        return tf.data.Dataset.from_generator(own_shares, output_signature=signature).prefetch(tf.data.AUTOTUNE)

    return strategy.tensorflow.distribute_datasets_from_function(make)


def _of_first_device(strategy: Strategy, logs: dict[str, Any]) -> dict[str, Any]:
    """Return the figures of the first device; of none with several machines, which see other ones but decide alike."""
    if strategy.workers > 1:
        return {}
    return {name: strategy.tensorflow.experimental_local_results(value)[0] for name, value in logs.items()}


def _reset(model: keras.Model, strategy: Strategy) -> None:
    with strategy.scope():
        model.reset_metrics()


def _figures(model: keras.Model, strategy: Strategy) -> dict[str, float]:
    """Return loss and metrics over all devices; every machine has to ask."""
    with strategy.scope():
        return {name: float(value) for name, value in model.get_metrics_result().items()}
