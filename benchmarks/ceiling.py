"""Measure what the processor can do without HTTP: the engine alone, and decoding with the engine, in one process.

    python benchmarks/ceiling.py --seconds 3
    python benchmarks/ceiling.py VERSION --photographs 375x500 3024x4032

Of photographs, HEIGHTxWIDTH each, decoding, scaling and the engine are measured alone as well. It prints JSON;
compare.py starts it.
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
from benchmarks.measuring import drawings, jpeg, photograph, times  # noqa: E402
from imaging import open_picture  # noqa: E402
from machine import usable_cores, usable_memory  # noqa: E402
from service.inference.decoding import Decoder  # noqa: E402
from service.inference.engine import Engine, Images, load  # noqa: E402

_BATCH = 64
_SIZES = (8, 16, 32, 64, 128)  # images a call; the best one counts
_SINGLES = 200
_FEW = 20
_PHOTOGRAPHS = 16  # of a batch
_MOST_PIXELS = 50_000_000
_PATIENCE = 60.0  # seconds that a large picture may wait for others


def main() -> int:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("version", nargs="?", default=ROOT / "models/cifar10/5", type=Path, help="a model version")
    parser.add_argument("--precision", default="auto", help="of the engine (default: %(default)s)")
    parser.add_argument("--seconds", type=float, default=3.0, help="of each measurement (default: %(default)s)")
    parser.add_argument(
        "--photographs",
        nargs="+",
        metavar="HxW",
        default=[],
        help="measure with photographs of these heights and widths",
    )
    options = parser.parse_args()
    size = read_metadata(options.version).input
    engine = load("openvino", options.version, options.precision, usable_cores())
    pictures = drawings(size.height, size.width)
    images = np.stack([pictures[index % len(pictures)] for index in range(max(_SIZES))])
    engine_milliseconds = median(times(lambda: engine.predict(images[:1]), _SINGLES)) * 1000
    figures: dict[str, object] = {"engine_milliseconds": engine_milliseconds}
    if options.photographs:
        figures |= {name: _photographs(engine, size, name, options.seconds / 2) for name in options.photographs}
    else:
        files = [jpeg(image) for image in images[:_BATCH]]
        figures |= {
            "engine_images": max(
                _engine_rate(engine, images[:count], options.seconds / len(_SIZES)) for count in _SIZES
            ),
            "decode_and_engine_images": _whole_rate(engine, files, size, options.seconds / 2),
        }
    print(json.dumps(figures))
    return 0


def _photographs(engine: Engine, size: Input, name: str, seconds: float) -> dict[str, float]:
    """Return what a photograph takes: milliseconds on one core to decode and to scale it, and images a second.

    The last are of decoding and scaling, of the engine, and of all of them, each with all cores.
    """
    height, width = map(int, name.split("x"))
    file = jpeg(photograph(height, width))
    decoder = Decoder(max_pixels=_MOST_PIXELS, memory=usable_memory() // 4)

    def decode() -> Images:
        return decoder.decode(file, size, time.monotonic() + _PATIENCE)

    decoded = median(times(lambda: _decode(file, size), _FEW, warm_up=2)) * 1000
    whole = median(times(decode, _FEW, warm_up=2)) * 1000
    images = np.stack([decode()] * _PHOTOGRAPHS)
    return {
        "decode_milliseconds": decoded,
        "scale_milliseconds": whole - decoded,
        "decode_and_scale_images": _rate([decode] * usable_cores(), 1, seconds),
        "engine_images": _engine_rate(engine, images, seconds),
        "decode_and_engine_images": _whole_rate(engine, [file] * _PHOTOGRAPHS, size, seconds),
    }


def _decode(file: bytes, size: Input) -> None:
    """Decode as ``imaging.to_input`` does, without scaling what the decoder gives to the network's size."""
    image = open_picture(file)
    image.draft(None, (2 * max(size.height, size.width),) * 2)
    image.load()


def _engine_rate(engine: Engine, images: Images, seconds: float) -> float:
    """Return the images a second of the engine in calls of ``images``: all cores for each, or a stream."""
    whole = [functools.partial(engine.predict, images)]
    streams = [functools.partial(engine.predict, images, stream) for stream in range(engine.streams)]
    return max(_rate(calls, len(images), seconds) for calls in (whole, streams))


def _whole_rate(engine: Engine, files: list[bytes], size: Input, seconds: float) -> float:
    """Return the images a second that are decoded, ``files`` at a time, and run by the engine."""
    decoder = Decoder(max_pixels=_MOST_PIXELS, memory=usable_memory() // 4)

    def work(stream: int | None) -> None:
        engine.predict(np.stack([decoder.decode(file, size, time.monotonic() + _PATIENCE) for file in files]), stream)

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
