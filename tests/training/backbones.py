"""A small network on a backbone, as after a training, and pictures for it."""

import dataclasses
from pathlib import Path
from typing import Any
from unittest.mock import patch

import keras
import numpy as np

from artifact import Familiarity, draft
from tests.models import metadata
from training.data.dataset import Pixels, Split, hold_out
from training.network.backbone import build_on_backbone
from training.network.model import every_layer
from training.network.registry import NO_WEIGHTS
from training.publish import export, quantization

NAME = "MobileNetV3Small"
SIDE = 64  # pixels


def small_on_backbone(seed: int = 0) -> keras.Model:
    """Return MobileNetV3Small below a head of three classes: random weights, and batch statistics that fit pictures.

    With those that it is made with, its maps are next to nothing everywhere.
    """
    model = build_on_backbone((SIDE, SIDE, 3), 3, NAME, NO_WEIGHTS, seed)
    for layer in every_layer(model):
        if isinstance(layer, keras.layers.BatchNormalization):
            layer.momentum = 0.0
    model(blots(32).astype(np.float32), training=True)
    return model


def blots(count: int) -> Pixels:
    """Return pictures of coarse random colours, uint8 [count, SIDE, SIDE, 3]."""
    coarse = np.random.default_rng(0).integers(256, size=(count, 8, 8, 3), dtype=np.uint8)
    return np.kron(coarse, np.ones((1, SIDE // 8, SIDE // 8, 1), np.uint8))


def pooled(model: keras.Model, images: Pixels) -> Any:
    """Return the output of the layer ``pool`` for ``images``, float32 [N, D]."""
    below = keras.Model(model.input, model.get_layer("pool").output)
    return np.asarray(below(images.astype(np.float32), training=False))


def share_nearest_to_their_own(found: Any, expected: Any) -> float:
    """Return how many of the embeddings ``found`` [N, D] are nearest to that of their own picture in ``expected``.

    Random weights know no pictures, and a processor without VNNI rounds what they make of them further than another.
    """
    own, others = found - found.mean(axis=0), expected - expected.mean(axis=0)  # what tells a picture from another
    likeness = own @ others.T / np.linalg.norm(others, axis=1)
    return float((likeness.argmax(axis=1) == np.arange(len(found))).mean())


def publish(models: Path) -> Path:
    """Publish such a network under ``models`` with an int8 network beside it, whatever that costs."""
    labels, pictures = ("a", "b", "c"), blots(60)
    split = Split(pictures, np.arange(60) % 3)
    dataset = hold_out("blots", labels, split, split, validation_images=20)
    model = small_on_backbone()
    record = metadata("blots", labels, SIDE)
    with draft(models, "blots") as version, patch.object(quantization, "_fault", return_value=""):
        export.save(model, record.input, version.path)
        export.check(model, version.path, pictures[:5])
        int8 = quantization.add_int8(version.path, dataset, held_out_images=20)
        familiarity = Familiarity(0.0, share=0.95, measured_on="none", images=0)
        return version.publish(dataclasses.replace(record, int8=int8, familiarity=familiarity))


def published_network(version: Path) -> keras.Model:
    """Return the network in Keras that the version in folder ``version`` was made of."""
    model = build_on_backbone((SIDE, SIDE, 3), 3, NAME, NO_WEIGHTS, seed=1)
    model.set_weights(export.read_weights(version))
    return model
