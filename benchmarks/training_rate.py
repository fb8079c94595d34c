"""Measure how many images a second the network of a preset trains on, in each precision.

The backend is Keras's own setting: KERAS_BACKEND=jax python benchmarks/training_rate.py
"""

import argparse
import sys
import time
from itertools import count
from pathlib import Path
from typing import Literal

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from machine import keep_freed_memory
from training.fit.recipe import PRESETS

_PRECISIONS = ("float32", "bfloat16")
_STEPS = 6


def main() -> int:
    """Print a line for each precision."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--batch-size", type=int, default=500, help="images a step (default: %(default)s)")
    parser.add_argument("--preset", choices=sorted(PRESETS), default="standard", help="default: %(default)s")
    parser.add_argument(
        "--precision",
        nargs="+",
        choices=_PRECISIONS,
        default=_PRECISIONS,
        help="default: both; what a CPU lacks is slow",
    )
    parser.add_argument(
        "--return-memory", action="store_true", help="let the C library return freed memory, unlike the trainer"
    )
    options = parser.parse_args()
    if not options.return_memory:
        keep_freed_memory()
    import keras  # after that, since it starts threads

    from training.fit.hardware import describe

    backend = f"{keras.backend.backend()} {keras.version()}"
    print(f"{backend} on {describe()}, preset {options.preset}, batches of {options.batch_size}")
    for precision in options.precision:
        print(f"{precision}: {_rate(precision, options.preset, options.batch_size):,.0f} images/s", flush=True)
    return 0


def _rate(precision: Literal["float32", "bfloat16"], preset: str, batch_size: int) -> float:
    import keras
    import numpy as np

    from training.fit.hardware import set_precision
    from training.fit.optimizer import optimizer
    from training.network.model import build

    set_precision(precision)
    recipe = PRESETS[preset]
    model = build((32, 32, 3), 10, recipe.widths, seed=0, convolutions=recipe.convolutions)
    model.compile(optimizer=optimizer(recipe, 100), loss=keras.losses.CategoricalCrossentropy(from_logits=True))
    rng = np.random.default_rng(0)
    images = rng.integers(256, size=(batch_size, 32, 32, 3), dtype=np.uint8)
    classes = np.eye(10, dtype=np.float32)[rng.integers(10, size=batch_size)]
    batches = ((images, classes) for _ in count())  # as the trainer has them, in a thread of TensorFlow's

    def train(steps: int) -> None:
        model.fit(batches, steps_per_epoch=steps, shuffle=False, verbose=0)

    train(2)  # the first step compiles, the second still warms up
    started = time.perf_counter()
    train(_STEPS)
    return _STEPS * batch_size / (time.perf_counter() - started)


if __name__ == "__main__":
    sys.exit(main())
