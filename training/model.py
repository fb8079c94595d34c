"""The network: a VGG descendant that takes raw pixels and gives logits.

It is the network of arXiv 2404.00498: a fixed 2x2 convolution whitens the patches, then come three groups of two 3x3
convolutions, each followed by batch normalisation, the first of a group by 2x2 max pooling before it; a global
maximum and a linear layer give the logits. SiLU stands for GELU, which it equals in accuracy and which TensorFlow
computes at a third less speed on a CPU. Only Keras's backend-independent API is used.
"""

import keras
import numpy as np
from keras import layers
from numpy.typing import NDArray

from training.dataset import Pixels

_PATCH = 2
_WHITENING_IMAGES = 5000
_WHITENING_FLOOR = 5e-4  # keeps directions that hold only noise from being blown up
_LOGIT_SCALE = 1 / 9  # arXiv 2404.00498, section 3.1
_NORM_MOMENTUM = 0.6


def build(input_shape: tuple[int, int, int], classes: int, widths: tuple[int, ...], seed: int) -> keras.Model:
    """Return the untrained network: pictures [N, H, W, 3] in 0..255 -> logits float32 [N, classes].

    ``widths`` has the number of channels of each group. Call ``fit_to_pixels`` before training.
    """
    keras.utils.set_random_seed(seed)
    x = images = keras.Input(input_shape, name="images")
    x = layers.Normalization(name="normalize", dtype="float32")(x)
    x = layers.Conv2D(2 * 3 * _PATCH**2, _PATCH, use_bias=False, trainable=False, name="whiten")(x)  # [N, H-1, W-1, 24]
    x = layers.Activation("silu", name="whiten_activation")(x)
    for number, width in enumerate(widths, 1):
        x = _convolution(x, width, f"group{number}_a", pool=True)  # halves height and width
        x = _convolution(x, width, f"group{number}_b", pool=False)
    x = layers.GlobalMaxPooling2D(name="pool")(x)  # [N, widths[-1]]
    x = layers.Dense(classes, use_bias=False, kernel_initializer=_uniform(), name="head", dtype="float32")(x)
    logits = layers.Rescaling(_LOGIT_SCALE, name="logits", dtype="float32")(x)
    return keras.Model(images, logits, name="darkroom")


def _convolution(x: keras.KerasTensor, width: int, name: str, pool: bool) -> keras.KerasTensor:
    x = layers.Conv2D(
        width, 3, padding="same", use_bias=False, kernel_initializer=PartialIdentity(), name=f"{name}_convolution"
    )(x)
    if pool:
        x = layers.MaxPooling2D(2, name=f"{name}_pool")(x)
    x = layers.BatchNormalization(momentum=_NORM_MOMENTUM, epsilon=1e-5, scale=False, name=f"{name}_norm")(x)
    return layers.Activation("silu", name=f"{name}_activation")(x)


def _uniform() -> keras.initializers.Initializer:
    """Return PyTorch's default for convolutions, for which the learning rate was found: a variance of 1 / (3 fan_in).

    Each call gives another stream of numbers, all set by Keras's global seed.
    """
    return keras.initializers.VarianceScaling(scale=1 / 3, mode="fan_in", distribution="uniform")


class PartialIdentity(keras.initializers.Initializer):  # type: ignore[misc]
    """Let the first output channels of a convolution pass the input on unchanged; the rest begins at random.

    From arXiv 2404.00498, section 3.2 ("dirac initialisation").
    """

    def __call__(self, shape: tuple[int, int, int, int], dtype: str | None = None) -> keras.KerasTensor:
        """Return a kernel [height, width, in, out]."""
        height, width, inputs, outputs = shape
        kernel = keras.ops.convert_to_numpy(_uniform()(shape, dtype="float32")).copy()
        same = min(inputs, outputs)
        kernel[..., :same] = 0
        kernel[height // 2, width // 2, range(same), range(same)] = 1
        return keras.ops.convert_to_tensor(kernel, dtype=dtype)


def fit_to_pixels(model: keras.Model, images: Pixels) -> None:
    """Set what follows from the pictures uint8 [N, H, W, 3] alone: mean and variance, and the whitening filters."""
    normalize = model.get_layer("normalize")
    normalize.adapt(images)
    normalized = keras.ops.convert_to_numpy(normalize(images[:_WHITENING_IMAGES]))
    model.get_layer("whiten").set_weights([whitening_filters(normalized)])


def whitening_filters(images: NDArray[np.float32]) -> NDArray[np.float32]:
    """Return the filters [2, 2, 3, 24] that decorrelate 2x2 patches of ``images`` [N, H, W, 3], and their negatives.

    They are the eigenvectors of the patches' covariance, scaled to unit variance (arXiv 2404.00498, section 3.2).
    """
    windows = np.lib.stride_tricks.sliding_window_view(images, (_PATCH, _PATCH), axis=(1, 2))
    patches = windows.transpose(0, 1, 2, 4, 5, 3).reshape(-1, _PATCH * _PATCH * images.shape[3])  # [M, 12]
    eigenvalues, eigenvectors = np.linalg.eigh(patches.T @ patches / len(patches))
    scaled = eigenvectors / np.sqrt(eigenvalues + _WHITENING_FLOOR)  # [12, 12], a filter a column
    return np.concatenate([scaled, -scaled], axis=1).reshape(_PATCH, _PATCH, images.shape[3], -1).astype(np.float32)


def in_float32(model: keras.Model) -> keras.Model:
    """Return a copy of a network from ``build`` that computes in float32 throughout, whatever it was trained in."""
    policy = keras.mixed_precision.dtype_policy()
    keras.mixed_precision.set_global_policy("float32")
    try:
        classes, widths = model.output_shape[-1], _widths(model)
        copy = build(model.input_shape[1:], classes, widths, seed=0)
    finally:
        keras.mixed_precision.set_global_policy(policy)
    copy.set_weights(model.get_weights())
    copy.get_layer("normalize").finalize_state()
    return copy


def _widths(model: keras.Model) -> tuple[int, ...]:
    """Read the widths that ``build`` was given off its layers."""
    last_of_group = [layer for layer in model.layers if layer.name.endswith("_b_convolution")]
    return tuple(layer.filters for layer in last_of_group)


def megaflops(model: keras.Model) -> float:
    """Return the cost of one picture's forward pass in 10^6 operations, a multiply-add being two.

    Convolutions and linear layers count; the rest is below one percent.
    """
    operations = 0
    for layer in model.layers:
        if isinstance(layer, layers.Conv2D | layers.Dense):
            positions = int(np.prod(layer.output.shape[1:-1], dtype=np.int64))
            operations += 2 * positions * int(np.prod(layer.kernel.shape))
    return operations / 1e6
