"""What ``python -m training check`` takes for many pictures: seconds and the largest memory.

``python benchmarks/many_pictures.py [N]`` draws N pictures (10,000) of 320x240 pixels in ten classes, and checks them
in a process of its own, without features that are known already.
"""

import os
import subprocess
import sys
import tempfile
import time
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

import numpy as np
from PIL import Image

_CLASSES = 10
_SIZE = (320, 240)


def main() -> None:
    """Draw them, check them and print what that took."""
    number = int(sys.argv[1]) if len(sys.argv) > 1 else 10_000
    root = Path(__file__).resolve().parent.parent
    with tempfile.TemporaryDirectory() as beside:
        folder = Path(beside) / "many"
        with ProcessPoolExecutor() as pool:
            list(pool.map(_draw, [folder] * number, range(number), chunksize=100))
        begun = time.monotonic()
        command = [sys.executable, "-m", "training", "check", str(folder), "--run", str(Path(beside) / "run")]
        process = subprocess.Popen([*command, "--html", str(Path(beside) / "check.html")], cwd=root)
        _, status, usage = os.wait4(process.pid, 0)
        seconds, processor = time.monotonic() - begun, usage.ru_utime + usage.ru_stime
        if status:
            sys.exit("error: the check failed")
        gigabytes = usage.ru_maxrss * 1024 / 1e9  # Linux counts in KiB
        print(f"{number:,} pictures: {seconds:.0f} s, {processor:.0f} s of the processors, {gigabytes:.1f} GB at most")


def _draw(folder: Path, number: int) -> None:
    """Draw blots and lines: each class has a colour and a coarseness of its own."""
    rng = np.random.default_rng(number)
    class_ = number % _CLASSES
    cells = 4 + 2 * class_
    coarse = rng.integers(256, size=(cells, cells, 3), dtype=np.uint8)
    image = Image.fromarray(coarse).resize(_SIZE, Image.Resampling.BICUBIC)
    tint = Image.new("RGB", _SIZE, tuple(np.random.default_rng(class_).integers(256, size=3).tolist()))
    file = folder / f"class-{class_}" / f"{number}.jpg"
    file.parent.mkdir(parents=True, exist_ok=True)
    Image.blend(image, tint, 0.4).save(file, quality=90)


if __name__ == "__main__":
    main()
