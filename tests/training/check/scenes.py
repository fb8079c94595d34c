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


def joint_scene(labels: tuple[str, ...], seed: int, side: int = 160) -> Image.Image:
    """Return a picture with any of the labels: grey, with a strip in the colour of each at a random place."""
    rng = np.random.default_rng([seed, 7])
    picture = scene("blue", seed + 1000, side).convert("L").convert("RGB")
    wide = side // len(COLOURS)
    for label, place in zip(labels, rng.permutation(len(COLOURS)).tolist(), strict=False):
        picture.paste(scene(label, seed, side).crop((0, 0, wide, side)), (place * wide, 0))
    return picture


def write_joint_scenes(folder: Path, count: int) -> dict[str, set[str]]:
    """Write ``count`` of them as JPEG files and return the labels of each by its name; the first has none."""
    rng = np.random.default_rng(3)
    folder.mkdir(parents=True)
    has = {}
    for number in range(count):
        labels = tuple(label for label in COLOURS if number and rng.random() < 0.5)
        joint_scene(labels, number).save(folder / f"{number}.jpg", quality=92)
        has[f"{number}.jpg"] = set(labels)
    return has


def write_table(file: Path, has: dict[str, set[str]], splits: dict[str, str]) -> Path:
    """Write the table of the labels and return it; pictures whose split is not in ``splits`` are for the training."""
    rows = [f"{name},{';'.join(sorted(labels))},{splits.get(name, 'train')}" for name, labels in has.items()]
    file.write_text("\n".join(["path,labels,split", *rows]) + "\n", encoding="utf-8")
    return file


def write_scenes(folder: Path, count: int, labels: tuple[str, ...] = tuple(COLOURS), first: int = 0) -> Path:
    """Write ``count`` pictures of each class as JPEG files, in folders of the classes' names."""
    for label in labels:
        (folder / label).mkdir(parents=True, exist_ok=True)
        for number in range(first, first + count):
            scene(label, number).save(folder / label / f"{number}.jpg", quality=92)
    return folder
