"""Real photographs, from the sample data of scikit-learn and Matplotlib."""

from importlib.util import find_spec
from pathlib import Path

import matplotlib
from PIL import Image


def paths() -> list[Path]:
    """Return the files of three photographs: 640x427 twice, and 512x600."""
    package = find_spec("sklearn")  # NNCF brings it; importing it would take a second
    assert package is not None
    assert package.origin is not None
    samples = Path(package.origin).parent / "datasets" / "images"
    return [
        samples / "china.jpg",
        samples / "flower.jpg",
        Path(matplotlib.get_data_path()) / "sample_data" / "grace_hopper.jpg",
    ]


def photographs() -> list[Image.Image]:
    """Return the photographs in mode RGB."""
    return [Image.open(path).convert("RGB") for path in paths()]
