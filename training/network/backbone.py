"""Transfer learning: a network for photographs, with weights from ImageNet, below a new linear layer.

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
from training.network import efficientnet_lite, imagenet
from training.network.model import every_layer
from training.network.registry import BACKBONES, IMAGENET_WEIGHTS, NO_WEIGHTS, Backbone, Preprocessing, bundled

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

    ``weights`` is ``imagenet`` (from the package that they come with, from Keras's cache, or downloaded), ``none`` (at
    random; then the backbone is trained like any network, and its batch statistics with it) or the path of a file of
    weights without the top.

    Raises:
        TrainingError: there is no such backbone, it does not take pictures of this size, or the weights cannot be had.
    """
    keras.utils.set_random_seed(seed)
    preprocessing = _known(name).preprocessing
    backbone = _backbone(input_shape, name, weights)
    if weights != NO_WEIGHTS:
        for layer in every_layer(backbone):
            layer.trainable = not isinstance(layer, layers.BatchNormalization)
    x = images = keras.Input(input_shape, name="images")
    x = preprocess(x, preprocessing)
    x = backbone(x)  # [N, h, w, C]
    x = layers.GlobalAveragePooling2D(name=_POOL, dtype="float32")(x)  # [N, C]
    x = layers.Dropout(_DROPOUT, name="dropout", dtype="float32")(x)
    logits = layers.Dense(classes, name=HEAD, dtype="float32")(x)
    return keras.Model(images, logits, name="darkroom")


def embedding_of(model: keras.Model) -> keras.KerasTensor | None:
    """Return what the head of a network on a backbone works on, float32 [N, C]; None for any other network."""
    on_backbone = any(isinstance(layer, keras.Model) for layer in model.layers)
    return model.get_layer(_POOL).output if on_backbone else None


def build_for_imagenet(name: str) -> keras.Model:
    """Return network ``name`` as it was trained: pictures [N, side, side, 3] in 0..255 -> logits float32 [N, 1000].

    Raises:
        TrainingError: there is no such network, or its weights cannot be had.
    """
    known = _known(name)
    shape = (known.side, known.side, 3)
    if name in efficientnet_lite.NAMES:
        model = build_on_backbone(shape, len(imagenet.labels()), name, IMAGENET_WEIGHTS, seed=0)
        model.get_layer(HEAD).set_weights(efficientnet_lite.imagenet_head(name))
        return model
    images = keras.Input(shape, name="images")
    whole = _of_keras(shape, name, IMAGENET_WEIGHTS, top=True)
    return keras.Model(images, whole(preprocess(images, known.preprocessing)), name="darkroom")


def preprocess(images: keras.KerasTensor, mode: Preprocessing) -> keras.KerasTensor:
    """Bring pixels in 0..255 to what a backbone was trained on, as the functions that go with it do."""
    if mode == "inside":
        return images
    if mode == "lite":
        return layers.Rescaling(1 / 128, -127 / 128, name="preprocess", dtype="float32")(images)
    if mode == "tf":  # to -1..1
        return layers.Rescaling(1 / 127.5, -1.0, name="preprocess", dtype="float32")(images)
    if mode == "torch":
        scale = [1 / (255 * deviation) for deviation in _DEVIATION]
        offset = [-mean / deviation for mean, deviation in zip(_MEAN, _DEVIATION, strict=True)]
        return layers.Rescaling(scale, offset, name="preprocess", dtype="float32")(images)
    swapped = keras.ops.flip(images, axis=-1)  # blue, green, red
    return layers.Rescaling(1.0, [-mean for mean in _MEAN_PIXEL], name="preprocess", dtype="float32")(swapped)


def _known(name: str) -> Backbone:
    if name not in BACKBONES:
        raise TrainingError(f"there is no backbone {name!r}; choose one of {', '.join(BACKBONES)}")
    return BACKBONES[name]


def _backbone(input_shape: tuple[int, int, int], name: str, weights: str) -> keras.Model:
    if name in efficientnet_lite.NAMES:
        backbone = efficientnet_lite.build(name, input_shape)
        if weights == IMAGENET_WEIGHTS:
            efficientnet_lite.load_pretrained(backbone)
    else:
        backbone = _of_keras(input_shape, name, weights)
    if weights not in (IMAGENET_WEIGHTS, NO_WEIGHTS):
        _load(backbone, name, Path(weights))
    return backbone


def _of_keras(input_shape: tuple[int, int, int], name: str, weights: str, *, top: bool = False) -> keras.Model:
    """Return a network of keras.applications: its maps or, with its ``top``, the logits of ImageNet's labels."""
    make = getattr(keras.applications, name)
    height, width, _ = input_shape
    try:
        with warnings.catch_warnings(action="ignore"):  # that the weights were trained on pictures of 224x224
            return make(
                include_top=top,
                weights=IMAGENET_WEIGHTS if weights == IMAGENET_WEIGHTS else None,
                input_shape=input_shape,
                classifier_activation=None,
            )
    except ValueError as error:
        raise TrainingError(
            f"{name} cannot be built for pictures of {height}x{width} with the weights {weights}: {error}"
        ) from error
    except Exception as error:  # Keras raises a bare Exception for every network fault
        file = "fetch the file yourself, or another one without the top, and give its path with --backbone-weights; "
        raise TrainingError(
            f"the weights of {name} could not be downloaded ({error}); {'' if top else file}those of "
            f"{', '.join(bundled())} need no download"
        ) from error


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
