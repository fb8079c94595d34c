"""AdamW for transfer learning: the new head learns alone at first, then the backbone as well, slowly.

The two phases of Keras's guide (https://keras.io/guides/transfer_learning/) in one optimizer, so that a run has one
state and resumes like any other. A backbone below a head that still says nothing would only be led astray,
and later needs steps that are small enough to keep what it knows.
"""

from typing import Any

import keras
from keras import ops

from training.network.backbone import HEAD


@keras.saving.register_keras_serializable("darkroom")
class FineTuning(keras.optimizers.AdamW):  # type: ignore[misc]
    """AdamW in which all but the head rests for ``head_steps`` and then learns ``backbone_rate`` times as fast.

    Weights decay in the head alone: the backbone's are wanted near where they were, not near zero.
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
