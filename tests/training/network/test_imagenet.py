"""ImageNet's labels, and networks of keras.applications as they were trained on it."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest

from training.errors import TrainingError
from training.network.backbone import build_for_imagenet, preprocess
from training.network.imagenet import labels

NAME = "MobileNet"


def test_labels_stand_in_the_order_of_the_outputs() -> None:
    """There are 1,000 that differ, sorted by WordNet's ids: fish and birds first, plants and toilet paper last."""
    found = labels()
    assert len(found) == len(set(found)) == 1000
    known = {0: "tench", 134: "crane (bird)", 517: "crane (machine)", 698: "palace", 985: "daisy", 999: "toilet tissue"}
    assert {index: found[index] for index in known} == known
    assert all(label == label.strip() and label.isprintable() for label in found)


@pytest.mark.keras
def test_a_network_of_keras_answers_with_its_own_head(monkeypatch: pytest.MonkeyPatch) -> None:
    """Pixels are prepared as it wants them, and what comes out are the logits below its softmax."""
    made: list[keras.Model] = []
    make: Callable[..., keras.Model] = keras.applications.MobileNet

    def at_random(weights: str, **options: Any) -> keras.Model:
        assert weights == "imagenet"
        made.append(make(weights=None, **options))
        return made[0]

    monkeypatch.setattr(keras.applications, NAME, at_random)
    model = build_for_imagenet(NAME)
    pixels = np.random.default_rng(0).integers(256, size=(2, 224, 224, 3)).astype(np.float32)
    whole = make(weights=None)
    whole.set_weights(made[0].get_weights())
    expected = np.asarray(whole(preprocess(pixels, "tf"), training=False))
    found = np.asarray(keras.ops.softmax(model(pixels, training=False)))
    assert found.shape == (2, len(labels()))
    np.testing.assert_allclose(found, expected, atol=1e-6)


@pytest.mark.keras
def test_a_network_that_cannot_be_had_is_an_error(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """A wrong name lists the right ones, and without a network the error names those that need none."""
    with pytest.raises(TrainingError, match="there is no backbone 'MobileNetV9'"):
        build_for_imagenet("MobileNetV9")
    monkeypatch.setattr("keras.src.utils.file_utils.config.keras_home", lambda: str(tmp_path))
    monkeypatch.setenv("https_proxy", "http://127.0.0.1:9")
    with pytest.raises(TrainingError, match=r"not be downloaded .*; those of EfficientNetLite2, .* need no download"):
        build_for_imagenet(NAME)
