"""Compare the engines side by side on one model version: start, memory, one image, a batch.

Each engine runs in a process of its own; rounds alternate between them and medians are printed, so that a noisy
machine harms both alike.
"""

import argparse
import json
import subprocess
import sys
import time
from pathlib import Path
from statistics import median
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
if str(ROOT) not in sys.path:  # run as a file, the folder of the packages is not on the path
    sys.path.insert(0, str(ROOT))

ENGINES = (("tensorflow", "float32"), ("openvino", "float32"), ("openvino", "bfloat16"))
_BATCH = 128
_SINGLE_CALLS = 300
_BATCH_CALLS = 10

Figures = dict[str, float]


def main() -> int:
    """Measure every engine and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("version", nargs="?", default="models/cifar10/5", help="model version (default: %(default)s)")
    parser.add_argument("--rounds", type=int, default=3, help="processes per engine (default: %(default)s)")
    parser.add_argument("--one", nargs=2, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.one:
        print(json.dumps(_measure(Path(options.version), *options.one)))
        return 0
    engines = _engines(Path(options.version))
    rounds = [[_in_process(options.version, *engine) for engine in engines] for _ in range(options.rounds)]
    print("| engine | start | memory | 1 image | batch 128 |\n|---|---|---|---|---|")
    for number, (engine, precision) in enumerate(engines):
        print(_row(f"{engine}, {precision}", [figures[number] for figures in rounds]))
    return 0


def _engines(version: Path) -> list[tuple[str, str]]:
    """Return the engines with their precisions that can run ``version``."""
    import artifact

    return [*ENGINES, *([("openvino", "int8")] if artifact.read_metadata(version).int8 else [])]


def _in_process(version: str, engine: str, precision: str) -> Figures:
    command = [sys.executable, __file__, version, "--one", engine, precision]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    figures: Figures = json.loads(done.stdout.splitlines()[-1])
    return figures


def _measure(version: Path, engine_name: str, precision: str) -> Figures:
    started = time.perf_counter()
    import numpy as np

    import artifact
    from machine import usable_cores
    from service.inference.engine import load

    size = artifact.read_metadata(version).input
    engine = load(engine_name, version, precision, usable_cores())
    images = np.random.default_rng(0).integers(256, size=(_BATCH, size.height, size.width, 3), dtype=np.uint8)
    engine.predict(images[:1])
    start = time.perf_counter() - started
    single = [_seconds(engine, images[:1]) for _ in range(_SINGLE_CALLS)]
    engine.predict(images)
    batch = [_seconds(engine, images) for _ in range(_BATCH_CALLS)]
    return {
        "start_s": start,
        "memory_mb": _resident_megabytes(),
        "single_ms": median(single) * 1e3,
        "images_per_s": _BATCH / median(batch),
    }


def _seconds(engine: Any, images: Any) -> float:
    started = time.perf_counter()
    engine.predict(images)
    return time.perf_counter() - started


def _resident_megabytes() -> float:
    lines = Path("/proc/self/status").read_text(encoding="utf-8").splitlines()
    kilobytes = next(line for line in lines if line.startswith("VmRSS")).split()[1]
    return int(kilobytes) / 1000


def _row(name: str, rounds: list[Figures]) -> str:
    middle = {key: median(figures[key] for figures in rounds) for key in rounds[0]}
    return (
        f"| {name} | {middle['start_s']:.1f} s | {middle['memory_mb']:.0f} MB "
        f"| {middle['single_ms']:.2f} ms | {middle['images_per_s']:,.0f} images/s |"
    )


if __name__ == "__main__":
    sys.exit(main())
