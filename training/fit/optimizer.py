"""Nesterov SGD with a triangular learning rate, as arXiv 2404.00498 sets it; AdamW for backbones."""

import math
from typing import Any

import keras
from keras import ops

from training.fit.recipe import Recipe
from training.network.backbone import HEAD

_KERNEL_MOMENTUM = 0.6


class Triangle(keras.optimizers.schedules.LearningRateSchedule):  # type: ignore[misc]
    """Rise linearly from a fifth of the peak over the first part of the steps, then fall linearly to zero."""

    def __init__(self, peak: float, steps: int, warmup: float) -> None:
        self._peak = peak
        self._steps = steps
        self._rise = max(warmup * steps, 1.0)

    def __call__(self, step: Any) -> Any:
        """Return the learning rate at ``step``, counted from 0."""
        step = ops.cast(step, "float32")
        rising = 0.2 + 0.8 * step / self._rise
        falling = (self._steps - step) / max(self._steps - self._rise, 1.0)
        return self._peak * ops.maximum(ops.minimum(rising, falling), 0.0)

    def get_config(self) -> dict[str, Any]:
        """Return the arguments, as Keras asks of a schedule."""
        return {"peak": self._peak, "steps": self._steps, "warmup": self._rise / self._steps}


class ScaledBiasSGD(keras.optimizers.SGD):  # type: ignore[misc]
    """Nesterov SGD in which the offsets of batch normalisation learn ``bias_scale`` times as fast.

    They are few and their gradients small beside the weights' (arXiv 2404.00498, section 3.3).
    """

    def __init__(self, bias_scale: float = 64.0, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.bias_scale = bias_scale

    def build(self, variables: list[keras.Variable]) -> None:
        """Note which variables are offsets; Keras calls this once."""
        super().build(variables)
        # By index, since a backend may hand update_step a variable of its own, under another name.
        self._scales = [self.bias_scale if variable.name == "beta" else 1.0 for variable in variables]

    def update_step(self, gradient: Any, variable: Any, learning_rate: Any) -> None:
        """Update one variable; Keras calls this."""
        scale = self._scales[self._get_variable_index(variable)]
        super().update_step(gradient, variable, learning_rate * scale)

    def get_config(self) -> dict[str, Any]:
        """Return the arguments, as Keras asks of an optimizer."""
        return {**super().get_config(), "bias_scale": self.bias_scale}


class Muon(ScaledBiasSGD):
    """SGD in which the step of a convolution's kernel is made orthogonal, and its norm is kept.

    From Jordan et al., "Muon: An optimizer for hidden layers in neural networks" (2024), as airbench94_muon sets it:
    the kernel is a matrix of [inputs, outputs], whose update has all singular values near 1, so that no direction is
    starved; batch normalisation makes its norm free, which is set to the root of the outputs after each step. Keras's
    own Muon leaves kernels with more than two axes to AdamW.
    """

    def __init__(self, kernel_scale: float, **kwargs: Any) -> None:
        """Take the rate of the kernels as a multiple of ``learning_rate``, and the arguments of ScaledBiasSGD."""
        super().__init__(**kwargs)
        self.kernel_scale = kernel_scale

    def update_step(self, gradient: Any, variable: Any, learning_rate: Any) -> None:
        """Update one variable; Keras calls this."""
        if len(variable.shape) != 4:
            super().update_step(gradient, variable, learning_rate)
            return
        average = self.momentums[self._get_variable_index(variable)]
        self.assign(average, average * _KERNEL_MOMENTUM + gradient)
        outputs = variable.shape[-1]
        nesterov = ops.reshape(gradient + _KERNEL_MOMENTUM * average, (-1, outputs))
        step = ops.reshape(orthogonal(nesterov), variable.shape)
        scale = max(1.0, outputs / math.prod(variable.shape[:-1])) ** 0.5
        kernel = ops.convert_to_tensor(variable)
        kernel = kernel * (outputs**0.5 / ops.sqrt(ops.sum(ops.square(kernel))))
        self.assign(variable, kernel - self.kernel_scale * scale * ops.cast(learning_rate, "float32") * step)

    def get_config(self) -> dict[str, Any]:
        """Return the arguments, as Keras asks of an optimizer."""
        return {**super().get_config(), "kernel_scale": self.kernel_scale}


def orthogonal(matrix: Any, steps: int = 3) -> Any:
    """Return ``matrix`` float32 [N, M] with its singular values moved towards 1, roughly into 0.5..1.2.

    That many steps of the Newton-Schulz iteration with Jordan's coefficients, in bfloat16, which is exact enough.
    """
    x = ops.cast(matrix / (ops.sqrt(ops.sum(ops.square(matrix))) + 1e-7), "bfloat16")
    tall = matrix.shape[0] > matrix.shape[1]
    x = ops.transpose(x) if tall else x
    for _ in range(steps):
        gram = ops.matmul(x, ops.transpose(x))
        x = 3.4445 * x + ops.matmul(-4.7750 * gram + 2.0315 * ops.matmul(gram, gram), x)
    return ops.cast(ops.transpose(x) if tall else x, "float32")


@keras.saving.register_keras_serializable("darkroom")
class FineTuning(keras.optimizers.AdamW):  # type: ignore[misc]
    """AdamW in which all but the head rests for ``head_steps`` and then learns ``backbone_rate`` times as fast.

    The two phases of Keras's guide (https://keras.io/guides/transfer_learning/) in one optimizer, so that a run has one
    state and resumes like any other. A backbone below a head that still says nothing would only be led astray, and
    later needs steps that are small enough to keep what it knows. Weights decay in the head alone: the backbone's are
    wanted near where they were, not near zero.
    """

    def __init__(self, head_steps: int, backbone_rate: float, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.head_steps = head_steps
        self.backbone_rate = backbone_rate

    def build(self, variables: list[keras.Variable]) -> None:
        """Note which variables are the backbone's; Keras calls this once."""
        backbone = [variable for variable in variables if not _of_head(variable)]
        self.exclude_from_weight_decay(var_list=backbone)
        super().build(variables)
        # By index, since a backend may hand update_step a variable of its own, under another name.
        self._of_backbone = [not _of_head(variable) for variable in variables]

    def update_step(self, gradient: Any, variable: Any, learning_rate: Any) -> None:
        """Update one variable; Keras calls this."""
        if self._of_backbone[self._get_variable_index(variable)]:
            begun = ops.cast(self.iterations >= self.head_steps, "float32")
            learning_rate = learning_rate * self.backbone_rate * begun
        super().update_step(gradient, variable, learning_rate)

    def get_config(self) -> dict[str, Any]:
        """Return the arguments, as Keras asks of an optimizer."""
        return {**super().get_config(), "head_steps": self.head_steps, "backbone_rate": self.backbone_rate}


def _of_head(variable: keras.Variable) -> bool:
    return HEAD in variable.path.split("/")


def schedule(recipe: Recipe, steps_per_epoch: int) -> Triangle:
    """Return the learning rate of each step of ``recipe``."""
    return Triangle(recipe.scaled_learning_rate(), recipe.epochs * steps_per_epoch, recipe.warmup)


def optimizer(recipe: Recipe, steps_per_epoch: int, *, scheduled: bool = True) -> keras.optimizers.Optimizer:
    """Return the optimizer of ``recipe``; it also keeps an exponential moving average of the weights.

    Our own network learns by Nesterov SGD, a backbone by AdamW, as such networks are tuned. Unless it is ``scheduled``,
    whoever takes the steps sets the learning rate of each.
    """
    steps = recipe.epochs * steps_per_epoch
    shared = {
        "learning_rate": schedule(recipe, steps_per_epoch) if scheduled else recipe.scaled_learning_rate(),
        "weight_decay": recipe.weight_decay,
        "use_ema": True,
        "ema_momentum": 1 - 1 / max(recipe.average_epochs * steps_per_epoch, 2.0),
    }
    if recipe.pretrained:
        return FineTuning(round(recipe.head_share * steps), recipe.backbone_rate, **shared)
    if recipe.backbone:
        return keras.optimizers.AdamW(**shared)
    if recipe.kernel_scale:
        return Muon(
            recipe.kernel_scale, bias_scale=recipe.bias_scale, momentum=recipe.momentum, nesterov=True, **shared
        )
    return ScaledBiasSGD(bias_scale=recipe.bias_scale, momentum=recipe.momentum, nesterov=True, **shared)
