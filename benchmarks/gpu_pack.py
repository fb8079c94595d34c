"""Carry CIFAR-10 in parts to a machine that is lent for minutes, has no network, and takes 64 MiB at a time.

    python benchmarks/gpu_pack.py pack cifar-10-python.tar.gz parts       # here: parts/cifar10-1-of-3.npz and so on
    python benchmarks/gpu_pack.py join parts cifar10.npz                  # there, once all parts have come

The pixels are kept to the last bit, as lossless WebP of 10,000 pictures side by side: a third less than gzip makes of
them. Each part has the sha256 of all of them, which is compared once they are together. ``stem.npz`` beside the parts
has what the network's first layers take from the pictures, so that it can be compiled before these have come.
"""

import argparse
import hashlib
import io
import sys
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from training.data import cifar10
from training.data.dataset import Split

VALIDATION_IMAGES = 2500
_ROW, _SHEET = 100, 10_000  # pictures side by side, and of one file of WebP
_PARTS = 3


def main() -> int:
    """Pack or join, as the command line says."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(dest="command", required=True)
    packing = commands.add_parser("pack", help="write the parts of CIFAR-10, and what the stem takes from them")
    packing.add_argument("data", type=Path, help="the archive or its folder")
    packing.add_argument("folder", type=Path, help="where the parts go")
    joining = commands.add_parser("join", help="put the parts together")
    joining.add_argument("folder", type=Path, help="where the parts are")
    joining.add_argument("file", type=Path, help="the file to write, .npz")
    options = parser.parse_args()
    if options.command == "pack":
        labels, train, test = cifar10.load(options.data)
        pack(labels, train, test, options.folder)
        write_stem(train[: len(train) - VALIDATION_IMAGES], options.folder / "stem.npz")
    else:
        join(options.folder, options.file)
    return 0


def pack(labels: tuple[str, ...], train: Split, test: Split, folder: Path, parts: int = _PARTS) -> list[Path]:
    """Write the pictures in ``parts`` files of about the same size, and return these."""
    folder.mkdir(parents=True, exist_ok=True)
    images, classes = np.concatenate([train.images, test.images]), np.concatenate([train.classes, test.classes])
    files = []
    for number, places in enumerate(np.array_split(np.arange(len(images)), parts), 1):
        sheets = {
            f"sheet{begin}": _sheet(images[places[begin : begin + _SHEET]]) for begin in range(0, len(places), _SHEET)
        }
        file = folder / f"cifar10-{number}-of-{parts}.npz"
        arrays: dict[str, Any] = {
            "labels": np.array(labels),
            "classes": classes[places].astype(np.uint8),
            "test": len(test),
            "sha256": _digest(images, classes),
            **sheets,
        }
        np.savez(file, **arrays)
        print(f"{file}: {len(places):,} pictures, {file.stat().st_size / 2**20:.1f} MiB", flush=True)
        files.append(file)
    return files


def join(folder: Path, target: Path) -> None:
    """Write what the parts in ``folder`` hold to ``target``: ``labels``, and ``images`` and ``classes`` of both splits.

    Raises:
        SystemExit: a part is missing or damaged.
    """
    files = sorted(folder.glob("cifar10-*-of-*.npz"))
    wanted = int(files[0].stem.rpartition("-")[2]) if files else _PARTS
    if len(files) != wanted:
        raise SystemExit(f"{folder} holds {len(files)} of {wanted} parts of CIFAR-10; carry the others there too")
    parts = [dict(np.load(file)) for file in files]
    classes = np.concatenate([part["classes"] for part in parts]).astype(np.int64)
    images = np.concatenate([_pictures(part) for part in parts])
    if any(part["sha256"] != _digest(images, classes) for part in parts):
        raise SystemExit("the parts do not make the pictures that were packed; pack and carry them again")
    test = int(parts[0]["test"])
    np.savez(
        target,
        labels=parts[0]["labels"],
        train_images=images[:-test],
        train_classes=classes[:-test],
        test_images=images[-test:],
        test_classes=classes[-test:],
    )
    print(f"{target}: {len(images):,} pictures, as they were packed")


def write_stem(train: Split, file: Path) -> None:
    """Write the weights of the layers that are fitted to the pictures of ``train`` alone."""
    from training.fit.device import load_keras

    load_keras({})
    from training.network.model import build, fit_to_pixels

    model = build(train.images.shape[1:], 10, (8, 8, 8), seed=0)
    fit_to_pixels(model, train.images)
    mean, variance, count = model.get_layer("normalize").get_weights()
    np.savez(file, mean=mean, variance=variance, count=count, filters=model.get_layer("whiten").get_weights()[0])


def _sheet(images: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Return ``images`` [N, 32, 32, 3] as one file of WebP; a last row that is not full ends in black."""
    count, height, width, channels = images.shape
    rows = -(-count // _ROW)
    whole = np.zeros((rows * _ROW, height, width, channels), np.uint8)
    whole[:count] = images
    sheet = whole.reshape(rows, _ROW, height, width, channels).swapaxes(1, 2).reshape(rows * height, _ROW * width, -1)
    file = io.BytesIO()
    Image.fromarray(sheet).save(file, "WEBP", lossless=True, quality=75, method=4)
    return np.frombuffer(file.getvalue(), np.uint8)


def _pictures(part: dict[str, Any]) -> NDArray[np.uint8]:
    """Return the pictures of a part, uint8 [N, 32, 32, 3]."""
    side = cifar10.SIDE
    sheets = []
    for name in sorted((name for name in part if name.startswith("sheet")), key=lambda name: int(name[5:])):
        sheet = np.asarray(Image.open(io.BytesIO(part[name].tobytes())).convert("RGB"))
        tiles = sheet.reshape(-1, side, _ROW, side, 3).swapaxes(1, 2).reshape(-1, side, side, 3)
        sheets.append(tiles)
    return np.concatenate(sheets)[: len(part["classes"])]


def _digest(images: NDArray[np.uint8], classes: NDArray[np.int64]) -> str:
    sha = hashlib.sha256(np.ascontiguousarray(images).data)
    sha.update(classes.astype(np.uint8).data)
    return sha.hexdigest()


if __name__ == "__main__":
    sys.exit(main())
