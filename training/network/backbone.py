"""Transfer learning: a network of keras.applications, with weights from ImageNet, below a new linear layer.

As in Keras's guide (https://keras.io/guides/transfer_learning/) the batch statistics stay those that the backbone was
trained with, also while its weights are tuned: its layers of batch normalisation are frozen, by which they run in
inference mode. (The guide's ``training=False`` would not outlast ``fit``, which hands ``training=True`` to all layers.)
"""

import hashlib
import warnings
from pathlib import Path

import keras
from keras import layers

from training.errors import TrainingError
from training.network.model import every_layer
from training.network.registry import BACKBONES, IMAGENET_WEIGHTS, NO_WEIGHTS, Preprocessing

HEAD = "head"  # the name of the layer that is new
_POOL = "pool"
_DROPOUT = 0.2
_MEAN = (0.485, 0.456, 0.406)  # of ImageNet's red, green and blue, as keras.applications.imagenet_utils has them
_DEVIATION = (0.229, 0.224, 0.225)
_MEAN_PIXEL = (103.939, 116.779, 123.68)  # blue, green, red


def build_on_backbone(
    input_shape: tuple[int, int, int], classes: int, name: str, weights: str, seed: int
) -> keras.Model:
    """Return backbone ``name`` with a new head: pictures [N, H, W, 3] in 0..255 -> logits float32 [N, classes].

    ``weights`` is ``imagenet`` (from Keras's cache, or downloaded), ``none`` (at random; then the backbone is trained
    like any network, and its batch statistics with it) or the path of a file of weights without the top.

    Raises:
        TrainingError: there is no such backbone, it does not take pictures of this size, or the weights cannot be had.
    """
    keras.utils.set_random_seed(seed)
    backbone = _backbone(input_shape, name, weights)
    if weights != NO_WEIGHTS:
        for layer in every_layer(backbone):
            layer.trainable = not isinstance(layer, layers.BatchNormalization)
    x = images = keras.Input(input_shape, name="images")
    x = preprocess(x, BACKBONES[name])
    x = backbone(x)  # [N, h, w, C]
    x = layers.GlobalAveragePooling2D(name=_POOL, dtype="float32")(x)  # [N, C]
    x = layers.Dropout(_DROPOUT, name="dropout", dtype="float32")(x)
    logits = layers.Dense(classes, name=HEAD, dtype="float32")(x)
    return keras.Model(images, logits, name="darkroom")


def embedding_of(model: keras.Model) -> keras.KerasTensor | None:
    """Return what the head of a network on a backbone works on, float32 [N, C]; None for any other network."""
    on_backbone = any(isinstance(layer, keras.Model) for layer in model.layers)
    return model.get_layer(_POOL).output if on_backbone else None


def preprocess(images: keras.KerasTensor, mode: Preprocessing) -> keras.KerasTensor:
    """Bring pixels in 0..255 to what a backbone was trained on, as Keras's ``preprocess_input`` of that mode does."""
    if mode == "inside":
        return images
    if mode == "tf":  # to -1..1
        return layers.Rescaling(1 / 127.5, -1.0, name="preprocess", dtype="float32")(images)
    if mode == "torch":
        scale = [1 / (255 * deviation) for deviation in _DEVIATION]
        offset = [-mean / deviation for mean, deviation in zip(_MEAN, _DEVIATION, strict=True)]
        return layers.Rescaling(scale, offset, name="preprocess", dtype="float32")(images)
    swapped = keras.ops.flip(images, axis=-1)  # blue, green, red
    return layers.Rescaling(1.0, [-mean for mean in _MEAN_PIXEL], name="preprocess", dtype="float32")(swapped)


def _backbone(input_shape: tuple[int, int, int], name: str, weights: str) -> keras.Model:
    if name not in BACKBONES:
        raise TrainingError(f"there is no backbone {name!r}; choose one of {', '.join(BACKBONES)}")
    make = getattr(keras.applications, name)
    height, width, _ = input_shape
    try:
        with warnings.catch_warnings(action="ignore"):  # that the weights were trained on pictures of 224x224
            backbone = make(
                include_top=False,
                weights=IMAGENET_WEIGHTS if weights == IMAGENET_WEIGHTS else None,
                input_shape=input_shape,
            )
    except ValueError as error:
        raise TrainingError(
            f"{name} cannot be had for pictures of {height}x{width} with the weights {weights}: {error}"
        ) from error
    except Exception as error:  # Keras raises a bare Exception for every network fault
        raise TrainingError(
            f"the weights of {name} could not be downloaded ({error}); fetch the file yourself, or another one without "
            "the top, and give its path with --backbone-weights"
        ) from error
    if weights not in (IMAGENET_WEIGHTS, NO_WEIGHTS):
        _load(backbone, name, Path(weights))
    return backbone


def _load(backbone: keras.Model, name: str, path: Path) -> None:
    try:
        with warnings.catch_warnings(action="ignore"):  # what is missing in the file is an error below
            backbone.load_weights(path)
    except (OSError, ValueError, KeyError) as error:
        raise TrainingError(
            f"{path} does not hold the weights of {name} without its top ({error}); keras.applications names "
            "such files *_notop.h5 or *_no_top*.h5, and save_weights() of a network with include_top=False writes one"
        ) from error


def describe_weights(weights: str) -> str:
    """Return what weights are in words that do not depend on the machine: of a file its name and its sha256.

    Raises:
        TrainingError: the file cannot be read.
    """
    if weights in (IMAGENET_WEIGHTS, NO_WEIGHTS):
        return weights
    try:
        with Path(weights).open("rb") as file:
            return f"{Path(weights).name}, sha256 {hashlib.file_digest(file, 'sha256').hexdigest()}"
    except OSError as error:
        raise TrainingError(
            f"{weights} cannot be read ({error.strerror}); --backbone-weights takes a file, 'imagenet' or 'none'"
        ) from error
