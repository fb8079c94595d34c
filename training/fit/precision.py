"""How fast a network trains here, in which arithmetic: measured over a few steps, since no flag of a processor tells.

A processor may have instructions for bfloat16 and still train some networks faster without: on one with AVX-512 BF16,
the depthwise convolutions of EfficientNet-Lite and MobileNet take twice as long in it.
"""

import gc
import time
from collections.abc import Callable
from typing import NamedTuple

import keras
import numpy as np

from training.fit.hardware import has_gpu, may_compute_bfloat16, set_policy
from training.fit.settings import Precision

_WARM_STEPS, _STEPS = 2, 3

MakeNetwork = Callable[[], keras.Model]
"""Builds the network under the precision that is set: pixels -> logits."""


class Pace(NamedTuple):
    """An arithmetic, ``float32`` or ``bfloat16``, and the pictures a second that the network trains in it."""

    precision: Precision
    pictures: float


def choose_precision(asked: Precision, make: MakeNetwork, batch_size: int) -> Pace:
    """Set the precision that was asked for, or with ``auto`` the faster one, and return it with its pace.

    A GPU trains in bfloat16 without a comparison.
    """
    if asked != "auto":
        candidates: tuple[Precision, ...] = (asked,)
    elif has_gpu():
        candidates = ("bfloat16",)
    else:
        candidates = ("float32", "bfloat16") if may_compute_bfloat16() else ("float32",)
    paces = [Pace(precision, _measure(precision, make, batch_size)) for precision in candidates]
    fastest = max(paces, key=lambda pace: pace.pictures)
    if len(paces) > 1:
        measured = ", ".join(f"{pace.pictures:.3g} pictures a second in {pace.precision}" for pace in paces)
        print(f"Training takes {measured}: {fastest.precision} it is.", flush=True)
    set_policy(fastest.precision)
    return fastest


def _measure(precision: Precision, make: MakeNetwork, batch_size: int) -> float:
    set_policy(precision)
    model = make()
    model.compile(keras.optimizers.AdamW(0.0), keras.losses.CategoricalCrossentropy(from_logits=True))
    images = np.random.default_rng(0).integers(256, size=(batch_size, *model.input_shape[1:])).astype(np.uint8)
    targets = np.eye(model.output_shape[1], dtype=np.float32)[np.arange(batch_size) % model.output_shape[1]]
    seconds = []
    for _ in range(_WARM_STEPS + _STEPS):
        begun = time.monotonic()
        model.train_on_batch(images, targets)
        seconds.append(time.monotonic() - begun)
    del model
    gc.collect()
    return batch_size / float(np.median(seconds[_WARM_STEPS:]))
