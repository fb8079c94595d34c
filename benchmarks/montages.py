"""Make pictures with several labels of real photographs: ``python benchmarks/montages.py OUT FOLDER... [--seed 0]``.

Each FOLDER has ``train/`` and ``test/`` (and perhaps ``val/``) of folders of classes, as a training takes it. A picture
in OUT is a square of four photographs: none to three of them show something that has a label, the others show classes
that have none (``--unlabelled``). Every labelled photograph is in one picture only, and a picture's photographs are all
of the training or all of the test, so that nothing is learned that is measured on. ``OUT/labels.csv`` has the labels.
"""

import argparse
import csv
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from PIL import Image, ImageOps

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from training.data.folders import File, find

_CELL = 160  # pixels
_MOST = 3  # labelled photographs in a picture
_WITHOUT = 0.1  # of the pictures
_QUALITY = 90
_UNLABELLED = ("windflower", "tigerlily", "skirt")


def main() -> None:
    """Write the pictures and their table, and say how many there are."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out", type=Path)
    parser.add_argument("folders", type=Path, nargs="+")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--unlabelled", nargs="+", default=_UNLABELLED, metavar="CLASS")
    options = parser.parse_args()
    options.out.mkdir(parents=True)
    rng = np.random.default_rng(options.seed)
    with (options.out / "labels.csv").open("w", encoding="utf-8", newline="") as stream:
        rows = csv.writer(stream, lineterminator="\n")
        rows.writerow(("path", "labels", "split"))
        for split in ("train", "test"):
            files = [file for folder in options.folders for file in _files(folder, split)]
            count = 0
            for chosen, fillers in _dealt(files, options.unlabelled, rng):
                name = f"{split}-{count:05}.jpg"
                _montage([*chosen, *fillers], rng).save(options.out / name, quality=_QUALITY)
                rows.writerow((name, ";".join(sorted({file.label for file in chosen})), split))
                count += 1
            print(f"{split}: {count:,} pictures")


def _files(folder: Path, split: str) -> list[File]:
    found = find(folder)
    return (found.test or []) if split == "test" else [*found.train, *(found.validation or [])]


def _dealt(
    files: list[File], unlabelled: list[str], rng: np.random.Generator
) -> Iterator[tuple[list[File], list[File]]]:
    """Yield the labelled photographs of each picture, and those that fill it up to four."""
    labelled = [file for file in files if file.label not in unlabelled]
    others = [file for file in files if file.label in unlabelled]
    left = [labelled[place] for place in rng.permutation(len(labelled))]
    while left:
        number = 0 if rng.random() < _WITHOUT else min(int(rng.integers(1, _MOST + 1)), len(left))
        chosen = [left.pop() for _ in range(number)]
        yield chosen, [others[int(rng.integers(len(others)))] for _ in range(4 - number)]


def _montage(files: list[File], rng: np.random.Generator) -> Image.Image:
    picture = Image.new("RGB", (2 * _CELL, 2 * _CELL))
    for cell, place in zip(rng.permutation(4).tolist(), range(4), strict=True):
        with Image.open(files[place].path) as photograph:
            upright = ImageOps.exif_transpose(photograph).convert("RGB")
        part = ImageOps.fit(upright, (_CELL, _CELL), Image.Resampling.LANCZOS)
        picture.paste(part, (cell % 2 * _CELL, cell // 2 * _CELL))
    return picture


if __name__ == "__main__":
    main()
