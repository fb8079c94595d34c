"""Measure what the processor can do without HTTP: the engine alone, and decoding with the engine, in one process.

    python benchmarks/ceiling.py --seconds 3

It prints JSON; compare.py starts it.
"""

import argparse
import json
import sys
import threading
import time
from pathlib import Path
from statistics import median

import numpy as np

ROOT = Path(__file__).resolve().parents[1]
if str(ROOT) not in sys.path:  # run as a file, the folder of the packages is not on the path
    sys.path.insert(0, str(ROOT))

from artifact import Input, read_metadata  # noqa: E402
from benchmarks.measuring import drawings, jpeg, times  # noqa: E402
from service.cores import usable_cores  # noqa: E402
from service.decoding import Decoder  # noqa: E402
from service.engine import Engine, load  # noqa: E402

_BATCH = 64
_SIZES = (8, 16, 32, 64, 128)  # images a call; the best one counts
_SINGLES = 200


def main() -> int:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("version", nargs="?", default=ROOT / "models/cifar10/1", type=Path, help="a model version")
    parser.add_argument("--precision", default="auto", help="of the engine (default: %(default)s)")
    parser.add_argument("--seconds", type=float, default=3.0, help="of each measurement (default: %(default)s)")
    options = parser.parse_args()
    size = read_metadata(options.version).input
    engine = load("openvino", options.version, options.precision, usable_cores())
    pictures = drawings(size.height, size.width)
    images = np.stack([pictures[index % len(pictures)] for index in range(max(_SIZES))])
    figures = {
        "engine_milliseconds": median(times(lambda: engine.predict(images[:1]), _SINGLES)) * 1000,
        "engine_images": max(_engine_rate(engine, images[:count], options.seconds) for count in _SIZES),
        "decode_and_engine_images": max(
            _whole_rate(engine, [jpeg(image) for image in images[:_BATCH]], size, threads, options.seconds)
            for threads in (1, usable_cores(), 2 * usable_cores())
        ),
    }
    print(json.dumps(figures))
    return 0


def _engine_rate(engine: Engine, images: "np.ndarray[tuple[int, ...], np.dtype[np.uint8]]", seconds: float) -> float:
    """Return the images a second of the engine in calls of ``images``."""
    engine.predict(images)
    done, started = 0, time.perf_counter()
    while time.perf_counter() - started < seconds / len(_SIZES):
        engine.predict(images)
        done += len(images)
    return done / (time.perf_counter() - started)


def _whole_rate(engine: Engine, files: list[bytes], size: Input, threads: int, seconds: float) -> float:
    """Return the images a second that ``threads`` threads decode, each a batch at a time, and that the engine runs."""
    decoder = Decoder(max_pixels=50_000_000, large_at_once=threads)
    one_at_a_time = threading.Lock()
    stop = time.perf_counter() + seconds / 3
    done = []

    def work() -> None:
        while time.perf_counter() < stop:
            batch = np.stack([decoder.decode(file, size, time.monotonic() + 60) for file in files])
            with one_at_a_time:
                engine.predict(batch)
            done.append(len(files))

    started = time.perf_counter()
    workers = [threading.Thread(target=work) for _ in range(threads)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    return sum(done) / (time.perf_counter() - started)


if __name__ == "__main__":
    sys.exit(main())
