"""Recipes: everything that decides what is learned, apart from the data. A preset names only what differs."""

import dataclasses
from dataclasses import dataclass


@dataclass(frozen=True)
class Recipe:
    """How to build the network and train it.

    The network and the recipe are those of Jordan's "94% on CIFAR-10 in 3.29 Seconds on a Single GPU"
    (arXiv 2404.00498), which descend from Page's "How to Train Your ResNet", for a longer schedule; see
    ``training/model.py`` and ``training/optimizer.py`` for what each part does.

    ``learning_rate`` is the peak, for the mean loss over a batch of 500 pictures; it follows the batch size in
    proportion. ``weight_decay`` is decoupled and multiplied by the learning rate. ``translation`` is the largest
    shift in pixels, ``cutout`` the side of the square that is blanked, 0 for none. ``average_epochs`` is the length,
    in epochs, over which the weights are averaged.
    """

    preset: str = "standard"
    widths: tuple[int, ...] = (64, 256, 256)
    epochs: int = 28
    batch_size: int = 500
    learning_rate: float = 0.64
    momentum: float = 0.85
    weight_decay: float = 0.008
    bias_scale: float = 64.0
    warmup: float = 0.2
    label_smoothing: float = 0.2
    translation: int = 2
    cutout: int = 0
    flip: bool = True
    average_epochs: float = 1.0
    seed: int = 0

    def scaled_learning_rate(self) -> float:
        """Return the peak learning rate for this batch size: in proportion, from the one found for 500 pictures."""
        return self.learning_rate * self.batch_size / 500


PRESETS = {
    "standard": Recipe(),
    # A second, shorter cycle from the weights of a version (--start-from): a warm restart (Loshchilov and Hutter, arXiv
    # 1608.03983) at half the rate, with the shifts and the cutout of Page's "How to Train Your ResNet", since what the
    # first cycle leaves is a network that knows its training images nearly by heart.
    "polish": Recipe(preset="polish", epochs=14, learning_rate=0.32, translation=4, cutout=8),
    "smoke": Recipe(
        preset="smoke", widths=(8, 16, 16), epochs=3, batch_size=64, learning_rate=1.5, flip=False, average_epochs=0.2
    ),
}


def recipe(preset: str, **changes: int | None) -> Recipe:
    """Return a preset with the changes that are not None.

    Raises:
        KeyError: there is no such preset.
    """
    given = {name: value for name, value in changes.items() if value is not None}
    return dataclasses.replace(PRESETS[preset], **given)  # type: ignore[arg-type]
