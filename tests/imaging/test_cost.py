"""What is said of a picture's memory is what decoding it takes at most."""

import functools
import subprocess
import sys
from pathlib import Path

import pytest
from PIL import Image

from artifact import Input
from imaging import open_picture, prepare
from tests.heic import grid
from tests.service.pictures import encoded

pytestmark = [pytest.mark.process, pytest.mark.slow]

SIZE = Input(32, 32)
SIDE = 2048

MEASURE = """
import resource, sys
from artifact import Input
from imaging import open_picture, prepare, to_input
content = sys.stdin.buffer.read()
def peak():
    return int([line for line in open('/proc/self/status') if line.startswith('VmHWM')][0].split()[1]) * 1024
before = peak()
to_input(open_picture(content), Input(32, 32))
print(peak() - before)
"""


def measured(content: bytes, root: Path) -> int:
    """Return how many bytes of memory a process of its own takes more, at its peak, to decode ``content``."""
    run = subprocess.run([sys.executable, "-c", MEASURE], input=content, cwd=root, capture_output=True, check=True)
    return int(run.stdout)


@functools.cache
def photograph() -> Image.Image:
    """Return a picture with something in it, since some encoders write a plain one in a way of its own."""
    return Image.effect_mandelbrot((SIDE, SIDE), (-2, -1.5, 1, 1.5), 60).convert("RGB")


@pytest.mark.parametrize(
    ("kind", "mode", "options"),
    [
        ("JPEG", "RGB", {}),
        ("JPEG", "RGB", {"progressive": True, "subsampling": "4:4:4"}),
        ("JPEG", "CMYK", {"progressive": True}),
        ("PNG", "RGB", {}),
        ("PNG", "RGBA", {}),
        ("PNG", "L", {}),
        ("PNG", "P", {"transparency": 0}),
        ("PNG", "I;16", {}),
        ("WEBP", "RGB", {}),
        ("WEBP", "RGBA", {"lossless": True}),
        ("GIF", "P", {}),
        ("BMP", "RGB", {}),
        ("TIFF", "RGB", {}),
        ("TIFF", "I;16", {}),
        ("TIFF", "RGB", {"compression": "tiff_lzw"}),
        ("TIFF", "CMYK", {"compression": "tiff_deflate"}),
        ("AVIF", "RGB", {"speed": 10}),
        ("AVIF", "RGBA", {"speed": 10, "subsampling": "4:4:4"}),
        ("HEIF", "RGB", {"quality": 40}),
        ("HEIF", "RGBA", {"quality": 40, "chroma": 444}),
    ],
)
def test_decoding_takes_no_more(root: Path, kind: str, mode: str, options: dict[str, object]) -> None:
    """Four megapixels of each format and mode, decoded in a process of its own, stay below what is said."""
    image = photograph() if mode != "I;16" else photograph().convert("I").convert("I;16")
    content = encoded(image.convert(mode), kind, **options)
    said, takes = prepare(open_picture(content), SIZE), measured(content, root)
    print(f"{kind} {mode} {options}: {takes / SIDE**2:.1f} bytes a pixel, said {said / SIDE**2:.1f}")
    assert takes <= said


def test_a_photograph_of_a_telephone_takes_no_more(root: Path) -> None:
    """A HEIC in tiles, which the container turns, as iPhones write it."""
    content = grid(photograph(), 640, turns=1)
    said, takes = prepare(open_picture(content), SIZE), measured(content, root)
    print(f"HEIC in tiles: {takes / SIDE**2:.1f} bytes a pixel, said {said / SIDE**2:.1f}")
    assert takes <= said
