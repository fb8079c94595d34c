"""The study's networks: VGG blocks and two dense layers, as tutorials build them. Backend-independent Keras only."""

import keras
import numpy as np
from keras import layers

from training.data.dataset import Pixels
from training.errors import TrainingError
from training.network.normalization import BatchNormalization
from training.study.configurations import Configuration, Scaling

WIDTHS = (32, 64, 128)
_DENSE = 128


def build(configuration: Configuration, images: Pixels, classes: int, seed: int) -> keras.Model:
    """Return the untrained network: pictures [N, H, W, 3] in 0..255 -> probabilities float32 [N, classes].

    A block is two 3x3 convolutions with ReLU and 2x2 max pooling (Simonyan and Zisserman, arXiv 1409.1556); kernels
    begin He-uniform (arXiv 1502.01852). Batch normalisation follows each ReLU. Mean and deviation of the pixels come
    from the training ``images`` uint8 [N, H, W, 3].

    Raises:
        TrainingError: the pictures are too small to be halved by every block.
    """
    least = 2**configuration.blocks
    if min(images.shape[1:3]) < least:
        raise TrainingError(f"{configuration.name} takes pictures of at least {least}x{least} pixels")
    keras.utils.set_random_seed(seed)
    x = inputs = keras.Input(images.shape[1:], name="images")
    x = _scaling(configuration.scaling, images)(x)
    for block in range(configuration.blocks):
        for _ in range(2):
            x = layers.Conv2D(WIDTHS[block], 3, padding="same", **_learned(configuration))(x)  # [N, H, W, width]
            if configuration.batch_normalization:
                x = BatchNormalization()(x)
        x = layers.MaxPooling2D(2)(x)  # halves height and width
        if configuration.dropout:
            x = layers.Dropout(configuration.dropout)(x)
    x = layers.Flatten()(x)
    x = layers.Dense(_DENSE, **_learned(configuration))(x)
    if configuration.batch_normalization:
        x = layers.BatchNormalization()(x)
    if configuration.dropout:
        x = layers.Dropout(configuration.dropout)(x)
    probabilities = layers.Dense(classes, activation="softmax", dtype="float32", name="probabilities")(x)
    return keras.Model(inputs, probabilities, name=configuration.name)


def _learned(configuration: Configuration) -> dict[str, object]:
    """Return what all layers before the last have in common."""
    return {
        "activation": "relu",
        "kernel_initializer": "he_uniform",
        "kernel_regularizer": keras.regularizers.L2(configuration.l2) if configuration.l2 else None,
    }


def _scaling(scaling: Scaling, images: Pixels) -> keras.layers.Layer:
    """Return the layer that scales pixels; the statistics are of each channel, over all pictures and positions."""
    channels = images.shape[-1]
    mean = np.zeros(channels) if scaling == "to 0..1" else images.mean(axis=(0, 1, 2), dtype=np.float64)
    deviation = images.std(axis=(0, 1, 2), dtype=np.float64) if scaling == "normalised" else np.full(channels, 255.0)
    return layers.Normalization(mean=mean, variance=np.square(deviation), name="scale", dtype="float32")
