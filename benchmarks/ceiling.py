"""Measure what the processor can do without HTTP: the engine alone, and decoding with the engine, in one process.

    python benchmarks/ceiling.py --seconds 3

It prints JSON; compare.py starts it.
"""

import argparse
import functools
import json
import sys
import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from statistics import median

import numpy as np

ROOT = Path(__file__).resolve().parents[1]
if str(ROOT) not in sys.path:  # run as a file, the folder of the packages is not on the path
    sys.path.insert(0, str(ROOT))

from artifact import Input, read_metadata  # noqa: E402
from benchmarks.measuring import drawings, jpeg, times  # noqa: E402
from machine import usable_cores  # noqa: E402
from service.inference.decoding import Decoder  # noqa: E402
from service.inference.engine import Engine, Images, load  # noqa: E402

_BATCH = 64
_SIZES = (8, 16, 32, 64, 128)  # images a call; the best one counts
_SINGLES = 200


def main() -> int:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("version", nargs="?", default=ROOT / "models/cifar10/5", type=Path, help="a model version")
    parser.add_argument("--precision", default="auto", help="of the engine (default: %(default)s)")
    parser.add_argument("--seconds", type=float, default=3.0, help="of each measurement (default: %(default)s)")
    options = parser.parse_args()
    size = read_metadata(options.version).input
    engine = load("openvino", options.version, options.precision, usable_cores())
    pictures = drawings(size.height, size.width)
    images = np.stack([pictures[index % len(pictures)] for index in range(max(_SIZES))])
    figures = {
        "engine_milliseconds": median(times(lambda: engine.predict(images[:1]), _SINGLES)) * 1000,
        "engine_images": max(_engine_rate(engine, images[:count], options.seconds / len(_SIZES)) for count in _SIZES),
        "decode_and_engine_images": _whole_rate(
            engine, [jpeg(image) for image in images[:_BATCH]], size, options.seconds / 2
        ),
    }
    print(json.dumps(figures))
    return 0


def _engine_rate(engine: Engine, images: Images, seconds: float) -> float:
    """Return the images a second of the engine in calls of ``images``: all cores for each, or a stream."""
    whole = [functools.partial(engine.predict, images)]
    streams = [functools.partial(engine.predict, images, stream) for stream in range(engine.streams)]
    return max(_rate(calls, len(images), seconds) for calls in (whole, streams))


def _whole_rate(engine: Engine, files: list[bytes], size: Input, seconds: float) -> float:
    """Return the images a second that are decoded, ``files`` at a time, and run by the engine."""
    decoder = Decoder(max_pixels=50_000_000, large_at_once=1)

    def work(stream: int | None) -> None:
        engine.predict(np.stack([decoder.decode(file, size, time.monotonic() + 60) for file in files]), stream)

    whole = [functools.partial(work, None)]
    streams = [functools.partial(work, stream) for stream in range(engine.streams)]
    return max(_rate(calls, len(files), seconds) for calls in (whole, streams))


def _rate(calls: Sequence[Callable[[], object]], images: int, seconds: float) -> float:
    """Return the images a second of ``calls``, each of ``images`` and made again and again by a thread of its own."""
    done: list[int] = []

    def repeat(call: Callable[[], object]) -> None:
        while time.perf_counter() < stop:
            call()
            done.append(images)

    for call in calls:  # the first time is slower
        call()
    threads = [threading.Thread(target=repeat, args=(call,)) for call in calls]
    started = time.perf_counter()
    stop = started + seconds
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return sum(done) / (time.perf_counter() - started)


if __name__ == "__main__":
    sys.exit(main())
