"""Pictures with several labels, drawn: any of three shapes on a ground, and the table of their labels."""

from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw

LABELS = ("disc", "square", "stripes")


def drawing(labels: tuple[str, ...], rng: np.random.Generator, side: int = 64) -> Image.Image:
    """Return a picture of ``side`` pixels with the shapes that ``labels`` name, each in a quarter of its own."""
    ground = tuple(int(value) for value in rng.integers(20, 80, size=3))
    image = Image.new("RGB", (side, side), ground)
    draw = ImageDraw.Draw(image)
    half = side // 2
    corners = [(0, 0), (half, 0), (0, half), (half, half)]
    for label, place in zip(labels, rng.permutation(4), strict=False):
        left, top = corners[place]
        box = (left + 3, top + 3, left + half - 4, top + half - 4)
        colour = tuple(int(value) for value in rng.integers(160, 256, size=3))
        if label == "disc":
            draw.ellipse(box, fill=colour)
        elif label == "square":
            draw.rectangle(box, fill=colour)
        else:
            for row in range(box[1], box[3], 6):
                draw.rectangle((box[0], row, box[2], row + 2), fill=colour)
    return image


def write(folder: Path, count: int, *, side: int = 64, labels: tuple[str, ...] = LABELS) -> Path:
    """Write ``count`` such pictures into ``folder``, with any of ``labels`` or none, and return their table."""
    rng = np.random.default_rng(0)
    folder.mkdir(parents=True, exist_ok=True)
    rows = ["path,labels"]
    for number in range(count):
        chosen = tuple(label for label in labels if rng.random() < 0.45)
        drawing(chosen, rng, side).save(folder / f"{number}.png")
        rows.append(f"{number}.png,{'|'.join(chosen)}")
    table = folder / "labels.csv"
    table.write_text("\n".join(rows) + "\n", encoding="utf-8")
    return table
