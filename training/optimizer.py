"""Nesterov SGD with a triangular learning rate, as arXiv 2404.00498 sets it."""

from typing import Any

import keras
from keras import ops

from training.presets import Recipe


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


def optimizer(recipe: Recipe, steps_per_epoch: int) -> keras.optimizers.Optimizer:
    """Return the optimizer of ``recipe``; it also keeps an exponential moving average of the weights."""
    return ScaledBiasSGD(
        bias_scale=recipe.bias_scale,
        learning_rate=Triangle(recipe.scaled_learning_rate(), recipe.epochs * steps_per_epoch, recipe.warmup),
        momentum=recipe.momentum,
        nesterov=True,
        weight_decay=recipe.weight_decay,
        use_ema=True,
        ema_momentum=1 - 1 / max(recipe.average_epochs * steps_per_epoch, 2.0),
    )
