"""Recipes: everything that decides what is learned, apart from the data. A preset names only what differs."""

import dataclasses
from dataclasses import dataclass

from training.network.registry import NO_WEIGHTS


@dataclass(frozen=True)
class Recipe:
    """How to build the network and train it.

    The network and the recipe are those of Jordan's "94% on CIFAR-10 in 3.29 Seconds on a Single GPU"
    (arXiv 2404.00498), which descend from Page's "How to Train Your ResNet", for a longer schedule; see
    ``training/network/model.py`` and ``training/fit/optimizer.py`` for what each part does.

    ``learning_rate`` is the peak, for the mean loss over a batch of 500 pictures; it follows the batch size in
    proportion. ``kernel_scale`` times it is the rate of the convolutions' kernels where they learn by Muon, 0 for SGD
    alone.
    ``weight_decay`` is decoupled and multiplied by the learning rate. ``translation`` is the largest
    shift in pixels, ``cutout`` the side of the square that is blanked, 0 for none. ``crop`` is the least share of a
    picture's area that a random crop keeps, 1 for no crop. ``change`` is the share of pictures that TrivialAugment
    changes. ``balance`` shows the pictures of rare classes more often.
    ``average_epochs`` is the length, in epochs, over which the weights are averaged.

    With a ``backbone`` from keras.applications in place of the network above, ``learning_rate`` follows the square root
    of the batch size. Where it is pretrained, its new head learns alone for the share ``head_share`` of the steps, and
    the backbone after that at ``backbone_rate`` times the rate.

    With a teacher, a published version, its answers at ``teacher_temperature`` are ``teacher_share`` of what is learned
    of a picture, in place of smoothed labels.
    """

    preset: str = "standard"
    widths: tuple[int, ...] = (64, 256, 256)
    convolutions: int = 2
    epochs: int = 28
    batch_size: int = 500
    learning_rate: float = 0.64
    kernel_scale: float = 0.0
    momentum: float = 0.85
    weight_decay: float = 0.008
    bias_scale: float = 64.0
    warmup: float = 0.2
    label_smoothing: float = 0.2
    translation: int = 2
    cutout: int = 0
    flip: bool = True
    crop: float = 1.0
    change: float = 0.0
    balance: bool = False
    average_epochs: float = 1.0
    backbone: str | None = None
    backbone_weights: str | None = None
    head_share: float = 0.3
    backbone_rate: float = 0.05
    teacher_share: float = 0.9
    teacher_temperature: float = 2.0
    seed: int = 0

    def scaled_learning_rate(self) -> float:
        """Return the peak learning rate for this batch size, from the one found for 500 pictures.

        It follows in proportion for SGD, and with the square root for AdamW (Malladi et al., arXiv 2205.10287).
        """
        times: float = (self.batch_size / 500) ** (0.5 if self.backbone else 1.0)
        return self.learning_rate * times

    @property
    def pretrained(self) -> bool:
        """Whether the network begins with what another training has learned."""
        return self.backbone is not None and self.backbone_weights not in (None, NO_WEIGHTS)


_FAMILY = Recipe(convolutions=3, kernel_scale=0.15625, translation=4, cutout=8)
"""What the presets for CIFAR-10 share: Muon for the kernels, and airbench96's shortcuts, shifts and cutout."""

_LONG = dataclasses.replace(_FAMILY, epochs=90, learning_rate=0.45, cutout=12, change=0.5, label_smoothing=0.1)
"""What those add that are trained long: pictures changed more, and a lower peak of the learning rate."""

_STANDARD_WIDTHS = (48, 208, 320)

PRESETS = {
    "fast": dataclasses.replace(_LONG, preset="fast", widths=(32, 96, 192), epochs=85, cutout=8),
    "standard": dataclasses.replace(_LONG, preset="standard", widths=_STANDARD_WIDTHS),
    "quick": dataclasses.replace(_FAMILY, preset="quick", widths=_STANDARD_WIDTHS, epochs=25, label_smoothing=0.1),
    # Widths by measured steps on two cores: 384 and 512 take 1.2 times as long, for 1.1 times the operations. The
    # labels count for more than elsewhere, since the teachers at hand are smaller than this network.
    "best": dataclasses.replace(_LONG, preset="best", widths=(128, 352, 480), teacher_share=0.7),
    "smoke": Recipe(
        preset="smoke", widths=(8, 16, 16), epochs=3, batch_size=64, learning_rate=1.5, flip=False, average_epochs=0.2
    ),
}


def recipe(preset: str, **changes: float | None) -> Recipe:
    """Return a preset with the changes that are not None.

    Raises:
        KeyError: there is no such preset.
    """
    given = {name: value for name, value in changes.items() if value is not None}
    return dataclasses.replace(PRESETS[preset], **given)  # type: ignore[arg-type]
