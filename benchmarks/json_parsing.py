"""Compare the time to parse a batch of 64 images in JSON, as numbers, with the time that the engine needs for them.

    python benchmarks/json_parsing.py

Rounds alternate between the two, and medians are printed.
"""

import argparse
import json
import sys
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median

import numpy as np

ROOT = Path(__file__).resolve().parents[1]
if str(ROOT) not in sys.path:  # run as a file, the folder of the packages is not on the path
    sys.path.insert(0, str(ROOT))

from artifact import read_metadata  # noqa: E402
from machine import usable_cores  # noqa: E402
from service.inference.engine import load  # noqa: E402
from service.protocols.tensors import flat_images, nested_images  # noqa: E402

_IMAGES = 64


def main() -> int:
    """Measure and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("version", nargs="?", default=ROOT / "models/cifar10/5", type=Path, help="a model version")
    parser.add_argument("--rounds", type=int, default=20, help="(default: %(default)s)")
    options = parser.parse_args()
    size = read_metadata(options.version).input
    engine = load("openvino", options.version, "float32", usable_cores())
    images = np.random.default_rng(0).integers(256, size=(_IMAGES, size.height, size.width, 3), dtype=np.uint8)
    nested, flat = json.dumps(images.tolist()).encode(), json.dumps(images.ravel().tolist()).encode()
    work: dict[str, Callable[[], object]] = {
        "engine": lambda: engine.predict(images),
        "nested lists": lambda: nested_images(nested, size, _IMAGES, "$"),
        "one flat list": lambda: flat_images(flat, size, _IMAGES, "$"),
    }
    times: dict[str, list[float]] = {name: [] for name in work}
    for _ in range(options.rounds):
        for name, action in work.items():
            times[name].append(_seconds(action))
    for name, seconds in times.items():
        ratio = median(seconds) / median(times["engine"])
        print(f"{name:14} {median(seconds) * 1000:6.1f} ms   {ratio:.2f} x the engine")
    return 0


def _seconds(action: Callable[[], object]) -> float:
    started = time.perf_counter()
    action()
    return time.perf_counter() - started


if __name__ == "__main__":
    sys.exit(main())
