"""A training whose pictures lie in the device's memory: an epoch is one compiled function. JAX only.

Keras's ``fit`` asks for each step and copies each batch, and a core augments hundreds of small pictures in the time in
which a large GPU trains thousands. Here chance decides on the host (``Batches.plans``), once an epoch; a scan over the
steps gathers, augments and trains. Recipe, seeds and pictures are those of ``Batches``, and the step is Keras's own.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import chain, count, islice
from typing import Any

import jax
import keras
import numpy as np
from jax import numpy as jnp
from keras import ops
from numpy.typing import NDArray

from training.data.augmentation import Batch, Batches, Plan
from training.data.dataset import Pixels
from training.data.device_augmentation import augment
from training.evaluation.calibration import KEPT, LEAST_SURPLUS, Correction
from training.network.model import every_layer

_SHARE_OF_MEMORY = 0.25  # that pictures may take; the rest is for weights and maps
_RATE = "learning_rate"  # the variable of an optimizer without a schedule
_AT_ONCE = 500  # pictures that are answered at a time
_LEAST = 1e-7  # of a probability, before its logarithm is taken

Array = Any
"""An array in the device's memory."""
State = tuple[list[Array], ...]
"""The values of the weights that learn, of the others, of the optimizer's variables, and of the metrics'."""


def room() -> int:
    """Return how many bytes of pictures the device's memory has room for, beside a training."""
    return int(_SHARE_OF_MEMORY * (jax.devices()[0].memory_stats() or {}).get("bytes_limit", 0))


@dataclass(frozen=True)
class DeviceTeacher:
    """Networks to learn from, and what is made of their answers: see ``training.fit.distillation.Teacher``.

    Each network has the correction that makes probabilities of its logits.
    """

    networks: Sequence[tuple[keras.Model, Correction]]
    share: float
    temperature: float

    def weights(self) -> list[tuple[list[Array], list[Array], NDArray[np.float32]]]:
        """Return weights and correction of each network; a compiled function is given them, so that they may change."""
        return [
            (
                [variable.value for variable in network.trainable_variables],
                [variable.value for variable in network.non_trainable_variables],
                np.array(correction, np.float32),
            )
            for network, correction in self.networks
        ]

    def predict(self, images: Pixels) -> NDArray[np.float32]:
        """Return the mean of the networks' probabilities, float32 [N, classes], for ``images`` uint8 [N, H, W, 3]."""
        answer, weights = jax.jit(self._answer), self.weights()
        parts = [answer(weights, images[begin : begin + _AT_ONCE]) for begin in range(0, len(images), _AT_ONCE)]
        return np.concatenate([np.asarray(part) for part in parts])

    def targets(self, weights: Any, images: Array, one_hot: Array) -> Array:
        """Return what is to be learned of ``images`` [B, H, W, 3], float32 [B, classes], given ``weights``."""
        softened = ops.softmax(ops.log(ops.maximum(self._answer(weights, images), _LEAST)) / self.temperature)
        return self.share * softened + (1 - self.share) * one_hot

    def _answer(self, weights: Any, images: Array) -> Array:
        answers = [
            _probabilities(network.stateless_call(learning, others, images, training=False)[0], correction)
            for (network, _), (learning, others, correction) in zip(self.networks, weights, strict=True)
        ]
        return ops.mean(ops.stack(answers), axis=0)


def _probabilities(logits: Array, correction: Array) -> Array:
    """Return what ``correction`` [temperature, label smoothing] makes of logits [B, classes]."""
    probabilities = ops.softmax(logits)
    left = ops.maximum(probabilities - correction[1] / logits.shape[1], KEPT * probabilities)
    return ops.softmax(ops.log(ops.maximum(left, LEAST_SURPLUS)) / correction[0])


class DeviceEpochs:
    """Trains ``model``, which is compiled and its optimizer built, on ``batches``, whose pictures are on the device.

    ``batches`` may be replaced by others of the same pictures and sizes, of another seed: nothing is compiled anew.
    """

    def __init__(
        self,
        model: keras.Model,
        batches: Batches,
        validation: Batch | None = None,
        teacher: DeviceTeacher | None = None,
    ) -> None:
        self.batches = batches
        self._model = model
        self.teacher = teacher
        self._pictures = jax.device_put(np.ascontiguousarray(batches.images))  # uint8 [N, H, W, 3]
        self._targets = jax.device_put(batches.targets)  # float32 [N, classes]
        self._colour = jax.device_put(batches.colour.astype(np.float32))
        self._validation = jax.device_put(validation) if validation else None
        self._train = jax.jit(self._epoch, donate_argnums=0)
        self._test = jax.jit(self._tested, donate_argnums=0)
        self._measure = jax.jit(self._measured)
        self._answer = jax.jit(self._answered)
        sample = jax.ShapeDtypeStruct((1, *self._pictures.shape[1:]), np.uint8)
        model._symbolic_build(data_batch=(sample, jax.ShapeDtypeStruct((1, self._targets.shape[1]), np.float32)))

    def epoch(self, number: int, rates: NDArray[np.float32] | None = None) -> dict[str, Array]:
        """Train epoch ``number``, counted from 0, and return the loss and metrics of its pictures.

        ``rates`` [steps] are the learning rates of its steps, for an optimizer that has no schedule of its own. The
        device may still compute when this returns: who reads a figure waits for it.
        """
        self._model.reset_metrics()
        plan = _stacked(self.batches.plans(number))
        teacher = self.teacher.weights() if self.teacher else None
        logs, state = self._train(self._state(), self._pictures, self._targets, self._colour, teacher, plan, rates)
        self._assign(state)
        return {name: values[-1] for name, values in logs.items()}  # metrics are means over the steps so far

    def validate(self) -> dict[str, float]:
        """Return loss and metrics of the validation pictures, by names that begin with ``val_``; none without any."""
        if self._validation is None:
            return {}
        self._model.reset_metrics()
        learning, others, _, metrics = self._state()
        measured = self._test(metrics, learning, others, *self._validation)
        for variable, value in zip(self._model.metrics_variables, measured, strict=True):
            variable.assign(value)
        return {f"val_{name}": float(value) for name, value in self._model.get_metrics_result().items()}

    def recalibrate(self, number: int, batches: int) -> None:
        """Measure the statistics of batch normalisation anew, as ``training.fit.train.recalibrate`` does.

        That is on the first ``batches`` of epoch ``number`` and of those that follow.
        """
        norms = [layer for layer in every_layer(self._model) if isinstance(layer, keras.layers.BatchNormalization)]
        statistics = [value for norm in norms for value in (norm.moving_mean, norm.moving_variance)]
        places = [
            place
            for place, variable in enumerate(self._model.non_trainable_variables)
            if any(variable is each for each in statistics)
        ]
        momenta = [norm.momentum for norm in norms]
        for norm in norms:
            norm.momentum = 0.0  # what is kept is a batch's own
        plan = _stacked(islice(chain.from_iterable(map(self.batches.plans, count(number))), batches))
        learning, others, _, _ = self._state()
        found = self._measure(learning, others, self._pictures, self._colour, plan)
        for norm, momentum in zip(norms, momenta, strict=True):
            norm.momentum = momentum
        for place in places:
            self._model.non_trainable_variables[place].assign(found[place])

    def logits(self, images: Pixels) -> NDArray[np.float32]:
        """Return the logits float32 [N, classes] for ``images`` uint8 [N, H, W, 3]."""
        learning, others, _, _ = self._state()
        return np.asarray(self._answer(learning, others, images), np.float32)

    def fit(self, epochs: range, callbacks: Sequence[keras.callbacks.Callback]) -> None:
        """Train for ``epochs``, with Keras's callbacks around each: an epoch is one step for them.

        The step ends after the epoch, so that what a signal or a deadline breaks off is saved by then.
        """
        listeners = keras.callbacks.CallbackList(callbacks, model=self._model, epochs=epochs.stop, steps=1)
        listeners.on_train_begin()
        for epoch in epochs:
            listeners.on_epoch_begin(epoch)
            listeners.on_train_batch_begin(0)
            logs = {name: float(value) for name, value in self.epoch(epoch).items()}
            listeners.on_epoch_end(epoch, logs | self.validate())
            listeners.on_train_batch_end(0, logs)
            if self._model.stop_training:
                break
        listeners.on_train_end()

    def _epoch(
        self, state: State, pictures: Array, targets: Array, colour: Array, teacher: Any, plan: Plan, rates: Array
    ) -> tuple[dict[str, Array], State]:
        """Take the steps of ``plan``, arrays of [steps, B, ...]; return the figures after each, and the state."""
        names = [variable.name for variable in self._model.optimizer.variables]

        def step(state: State, drawn: tuple[Plan, Array]) -> tuple[State, dict[str, Array]]:
            drawn_plan, rate = drawn
            images = self._augmented(pictures, colour, drawn_plan)
            wanted = jnp.take(targets, drawn_plan.chosen, axis=0)
            if self.teacher:
                wanted = self.teacher.targets(teacher, images, wanted)
            if rate is not None:
                learning, others, optimizer, metrics = state
                optimizer = [rate if name == _RATE else value for name, value in zip(names, optimizer, strict=True)]
                state = (learning, others, optimizer, metrics)
            logs, state = self._model.train_step(state, (images, wanted))
            return state, logs

        state, logs = jax.lax.scan(step, state, (plan, rates))
        return logs, state

    def _augmented(self, pictures: Array, colour: Array, plan: Plan) -> Array:
        images = jnp.take(pictures, plan.chosen, axis=0)
        return augment(images, plan, self.batches.translation, self.batches.cutout, colour)

    def _tested(
        self, metrics: list[Array], learning: list[Array], others: list[Array], images: Array, targets: Array
    ) -> list[Array]:
        """Return the values of the metrics' variables after all of ``images``, a batch at a time."""

        def step(metrics: list[Array], batch: tuple[Array, Array]) -> tuple[list[Array], None]:
            _, state = self._model.test_step((learning, others, metrics), batch)
            return state[2], None

        whole = len(images) // _AT_ONCE * _AT_ONCE
        parts = tuple(array[:whole].reshape(-1, _AT_ONCE, *array.shape[1:]) for array in (images, targets))
        metrics, _ = jax.lax.scan(step, metrics, parts)
        if whole < len(images):
            metrics, _ = step(metrics, (images[whole:], targets[whole:]))
        return metrics

    def _measured(
        self, learning: list[Array], others: list[Array], pictures: Array, colour: Array, plan: Plan
    ) -> list[Array]:
        """Return the mean over the batches of ``plan`` of what a training step makes of the weights that do not learn.

        Those that a step leaves alone stay as they are.
        """

        def step(_: None, drawn: Plan) -> tuple[None, list[Array]]:
            images = self._augmented(pictures, colour, drawn)
            return None, self._model.stateless_call(learning, others, images, training=True)[1]

        _, found = jax.lax.scan(step, None, plan)
        return [jnp.mean(values, axis=0) for values in found]

    def _answered(self, learning: list[Array], others: list[Array], images: Array) -> Array:
        """Return the logits [N, classes] for ``images``, a batch at a time."""

        def step(_: None, batch: Array) -> tuple[None, Array]:
            return None, self._model.stateless_call(learning, others, batch, training=False)[0]

        whole = len(images) // _AT_ONCE * _AT_ONCE
        _, found = jax.lax.scan(step, None, images[:whole].reshape(-1, _AT_ONCE, *images.shape[1:]))
        logits = found.reshape(whole, found.shape[2])
        return jnp.concatenate([logits, step(None, images[whole:])[1]]) if whole < len(images) else logits

    def _variables(self) -> tuple[list[keras.Variable], ...]:
        model = self._model
        return (
            model.trainable_variables,
            model.non_trainable_variables,
            model.optimizer.variables,
            model.metrics_variables,
        )

    def _state(self) -> State:
        return tuple([variable.value for variable in variables] for variables in self._variables())

    def _assign(self, state: State) -> None:
        for variables, values in zip(self._variables(), state, strict=True):
            for variable, value in zip(variables, values, strict=True):
                variable.assign(value)


def _stacked(plans: Iterable[Plan]) -> Plan:
    """Return the plans of several batches as one, whose arrays have an axis more in front."""
    fields = zip(*plans, strict=True)
    stacked: Any = [None if parts[0] is None else np.stack(parts) for parts in fields]
    return Plan(*stacked)
