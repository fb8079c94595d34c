"""What the study compares. A configuration names only what differs from the network of three blocks."""

from dataclasses import dataclass, replace
from typing import Literal

Scaling = Literal["to 0..1", "centred", "normalised"]


@dataclass(frozen=True)
class Configuration:
    """A network and how it is regularised; ``original`` is the original study's figure, as it was told.

    ``l2`` is the weight of the squared kernels in the loss, ``dropout`` the share that is dropped after each block and
    after the dense layer. ``augment`` turns by up to 10 degrees, shifts by up to a tenth of the side and mirrors.
    ``scaling`` is what happens to the pixels: divided by 255; the training images' mean subtracted before that
    (centred); or that mean subtracted and divided by their standard deviation (normalised). ``long`` takes the
    schedule's other number of epochs.
    """

    name: str
    what: str
    original: str = ""
    blocks: int = 3
    batch_normalization: bool = False
    l2: float = 0.0
    dropout: float = 0.0
    augment: bool = False
    scaling: Scaling = "to 0..1"
    long: bool = False


@dataclass(frozen=True)
class Schedule:
    """How long and how fast all configurations are trained: SGD with momentum.

    The learning rate is constant, or rises to ``learning_rate`` and falls to zero (``one_cycle``). ``train_images`` is
    how many training images are used, evenly spread over all of them, and ``curve_images`` how many test images the
    curves are measured on after every epoch; None is all.
    """

    name: str
    epochs: int
    long_epochs: int
    learning_rate: float
    one_cycle: bool = False
    batch_size: int = 64
    momentum: float = 0.9
    train_images: int | None = None
    curve_images: int | None = None

    def epochs_of(self, configuration: Configuration) -> int:
        """Return the number of epochs that ``configuration`` is trained."""
        return self.long_epochs if configuration.long else self.epochs


BASELINE = "vgg3"

_TOGETHER = Configuration(
    "together", "all four together", "86.25", batch_normalization=True, l2=0.001, dropout=0.2, augment=True
)

CONFIGURATIONS = {
    configuration.name: configuration
    for configuration in (
        Configuration("vgg1", "one block", blocks=1),
        Configuration("vgg2", "two blocks", blocks=2),
        Configuration(BASELINE, "three blocks, the baseline", "about 70"),
        Configuration("batchnorm", "batch normalisation", "+12", batch_normalization=True),
        Configuration("l2", "L2 of 0.001", "+5", l2=0.001),
        Configuration("dropout", "dropout of 0.2", "+9", dropout=0.2),
        Configuration("augmentation", "turned, shifted, mirrored", "84", augment=True),
        _TOGETHER,
        replace(_TOGETHER, name="centred", what="together, pixels centred", original="", scaling="centred"),
        replace(
            _TOGETHER, name="normalised", what="together, pixels normalised", original="87.33", scaling="normalised"
        ),
        replace(_TOGETHER, name="long", what="normalised, longer", original="90.14", scaling="normalised", long=True),
    )
}

# The original's 275 epochs; the rest is what VGG tutorials for CIFAR-10 train with, e.g. Brownlee's "How to Develop a
# CNN From Scratch for CIFAR-10 Photo Classification".
FULL = Schedule("full", epochs=100, long_epochs=275, learning_rate=0.001)
QUICK = Schedule(
    "quick",
    epochs=16,
    long_epochs=32,
    learning_rate=0.02,
    one_cycle=True,
    train_images=5_000,
    curve_images=1_000,
)
