"""The network: a VGG descendant that takes raw pixels and gives logits.

It is the network of arXiv 2404.00498: a fixed convolution whitens the patches (``training/network/stem.py``; 2x2 in
small pictures, larger in large ones), then come three groups of two or three 3x3 convolutions, each followed by batch
normalisation, the first of a group by 2x2 max pooling before it; a global maximum and a linear layer give the logits.
SiLU stands for GELU, which it equals in accuracy and which TensorFlow computes at a third less speed on a CPU. Only
Keras's backend-independent API is used.
"""

from collections.abc import Iterator
from string import ascii_lowercase

import keras
import numpy as np
from keras import layers
from numpy.typing import NDArray

from training.network.normalization import BatchNormalization
from training.network.stem import fit_to_pixels as fit_to_pixels
from training.network.stem import require_size, stem

_LOGIT_SCALE = 1 / 9  # arXiv 2404.00498, section 3.1
_NORM_MOMENTUM = 0.6


def build(
    input_shape: tuple[int, int, int], classes: int, widths: tuple[int, ...], seed: int, convolutions: int = 2
) -> keras.Model:
    """Return the untrained network: pictures [N, H, W, 3] in 0..255 -> logits float32 [N, classes].

    ``widths`` has the number of channels of each group, ``convolutions`` says how many each has. Call ``fit_to_pixels``
    before training.
    """
    keras.utils.set_random_seed(seed)
    require_size(*input_shape[:2], groups=len(widths))
    images = keras.Input(input_shape, name="images")
    x = stem(images)
    for number, width in enumerate(widths, 1):
        x = _group(x, width, convolutions, f"group{number}")  # halves height and width
    x = layers.GlobalMaxPooling2D(name="pool")(x)  # [N, widths[-1]]
    x = layers.Dense(classes, use_bias=False, kernel_initializer=_uniform(), name="head", dtype="float32")(x)
    logits = layers.Rescaling(_LOGIT_SCALE, name="logits", dtype="float32")(x)
    return keras.Model(images, logits, name="darkroom")


def _group(x: keras.KerasTensor, width: int, convolutions: int, name: str) -> keras.KerasTensor:
    """Add a group; more than two convolutions get a shortcut around all but the first, as in airbench96."""
    first, *others = (f"{name}_{letter}" for letter in ascii_lowercase[:convolutions])
    x = shortcut = layers.Activation("silu", name=f"{first}_activation")(_convolution(x, width, first, pool=True))
    for part in others:
        x = _convolution(x, width, part, pool=False)
        if len(others) > 1 and part == others[-1]:
            x = layers.Add(name=f"{name}_shortcut")([x, shortcut])
        x = layers.Activation("silu", name=f"{part}_activation")(x)
    return x


def _convolution(x: keras.KerasTensor, width: int, name: str, pool: bool) -> keras.KerasTensor:
    x = layers.Conv2D(
        width, 3, padding="same", use_bias=False, kernel_initializer=PartialIdentity(), name=f"{name}_convolution"
    )(x)
    if pool:
        x = layers.MaxPooling2D(2, name=f"{name}_pool")(x)
    return BatchNormalization(momentum=_NORM_MOMENTUM, epsilon=1e-5, scale=False, name=f"{name}_norm")(x)


def _uniform() -> keras.initializers.Initializer:
    """Return PyTorch's default for convolutions, for which the learning rate was found: a variance of 1 / (3 fan_in).

    Each call gives another stream of numbers, all set by Keras's global seed.
    """
    return keras.initializers.VarianceScaling(scale=1 / 3, mode="fan_in", distribution="uniform")


@keras.saving.register_keras_serializable("darkroom")
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


def in_float32(model: keras.Model) -> keras.Model:
    """Return a copy of a network that computes in float32 throughout, whatever it was trained in."""
    uncompiled = keras.Model(model.input, model.output, name=model.name)
    policy = keras.mixed_precision.dtype_policy()
    keras.mixed_precision.set_global_policy("float32")
    try:
        copy = keras.models.clone_model(uncompiled, clone_function=_clone_in_float32, recursive=True)
    finally:
        keras.mixed_precision.set_global_policy(policy)
    set_weights(copy, model.get_weights())
    return copy


def _clone_in_float32(layer: keras.Layer) -> keras.Layer:
    config = layer.get_config()
    if "dtype" in config:
        config["dtype"] = "float32"
    return type(layer).from_config(config)


def set_weights(model: keras.Model, weights: list[NDArray[np.float32]]) -> None:
    """Set all weights, in their order, and what the layers of normalisation have worked out from theirs."""
    model.set_weights(weights)
    for layer in every_layer(model):
        if isinstance(layer, layers.Normalization):
            layer.finalize_state()


def every_layer(model: keras.Model) -> Iterator[keras.Layer]:
    """Yield the layers of a network and of the networks inside it."""
    for layer in model.layers:
        if isinstance(layer, keras.Model):
            yield from every_layer(layer)
        else:
            yield layer


def megaflops(model: keras.Model) -> float:
    """Return the cost of one picture's forward pass in 10^6 operations, a multiply-add being two.

    Convolutions and linear layers count; the rest is below one percent.
    """
    operations = 0
    for layer in every_layer(model):
        positions = int(np.prod(layer.output.shape[1:-1], dtype=np.int64))
        operations += 2 * positions * sum(int(np.prod(kernel.shape)) for kernel in _kernels(layer))
    return operations / 1e6


def _kernels(layer: keras.Layer) -> list[keras.Variable]:
    """Return what a layer multiplies with at every position of its output; a depthwise kernel works on each channel."""
    if isinstance(layer, layers.SeparableConv2D):
        return [layer.depthwise_kernel, layer.pointwise_kernel]
    if isinstance(layer, layers.Conv2D | layers.DepthwiseConv2D | layers.Dense):
        return [layer.kernel]
    return []
