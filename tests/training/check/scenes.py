"""Folders of made-up photographs for the checks: textures of a colour for each class, all of them different."""

from pathlib import Path

import numpy as np
from PIL import Image, ImageFilter

COLOURS = {"amber": (230, 160, 30), "blue": (40, 80, 220), "green": (40, 170, 70)}


def scene(label: str, seed: int, side: int = 160) -> Image.Image:
    """Return a picture of the class ``label``: blots at random places in its colour, with grain."""
    rng = np.random.default_rng([seed, *label.encode()])
    coarse = Image.fromarray(rng.integers(256, size=(12, 12), dtype=np.uint8)).resize(
        (side, side), Image.Resampling.BICUBIC
    )
    blots = np.asarray(coarse, np.float32)[..., None] / 255 - 0.5  # [S, S, 1]
    grain = rng.normal(0, 12, (side, side, 1))
    pixels = np.array(COLOURS[label]) + 120 * blots + grain
    return Image.fromarray(np.clip(pixels, 0, 255).astype(np.uint8)).filter(ImageFilter.GaussianBlur(0.6))


def write_scenes(folder: Path, count: int, labels: tuple[str, ...] = tuple(COLOURS), first: int = 0) -> Path:
    """Write ``count`` pictures of each class as JPEG files, in folders of the classes' names."""
    for label in labels:
        (folder / label).mkdir(parents=True, exist_ok=True)
        for number in range(first, first + count):
            scene(label, number).save(folder / label / f"{number}.jpg", quality=92)
    return folder
