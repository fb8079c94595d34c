"""Find the data that the command line names, and split it."""

from pathlib import Path

import keras

from artifact import Input
from training.data import cifar10, pictures, synthetic
from training.data.dataset import Dataset, hold_out
from training.data.pictures import Reading
from training.errors import TrainingError

_ORIGIN = "https://www.cs.toronto.edu/~kriz/cifar-10-python.tar.gz"
_SHA256 = "6d958be074577803d12ecdefd02955f39262c83c16fe9348329d7fe0b5c001ce"
_SMOKE_IMAGES = 2000

MADE_UP = "made-up"
"""The name of the data set of a smoke test."""


def load(
    path: Path | None,
    validation_images: int | None,
    smoke: bool,
    picture: Input | None = None,
    reading: Reading | None = None,
) -> Dataset:
    """Read the data at ``path`` and split it; without a path, download CIFAR-10, or draw pictures for a smoke test.

    ``validation_images`` is how many training images to hold out, None for the default. Where the data is for a
    published version, ``picture`` is the input that its metadata asks for; otherwise ``reading`` says what becomes of
    the pictures of a folder.

    Raises:
        TrainingError: there is no such data, it cannot be read or downloaded, or too little would be left to train on.
    """
    reading = reading or Reading()
    if path is not None and is_pictures(path):
        return pictures.load(path, validation_images, picture, reading)
    if reading.labels:
        raise TrainingError(f"{path} is no folder of pictures, and --labels is for those; give the folder with --data")
    if smoke and path is None:
        labels, training, test = synthetic.load(_SMOKE_IMAGES, _SMOKE_IMAGES // 4, seed=0)
        dataset = hold_out(MADE_UP, labels, training, test, _or_default(validation_images, _SMOKE_IMAGES // 10))
    else:
        if path is not None and path.is_file():
            _require_archive(path)
        labels, training, test = cifar10.load(path or _download())
        dataset = hold_out(
            "CIFAR-10", labels, training, test, _or_default(validation_images, cifar10.VALIDATION_IMAGES)
        )
    _require_size(dataset, picture, reading)
    return dataset


def model_name(path: Path | None, smoke: bool) -> str:
    """Return the name that a model of the data at ``path`` has unless another is given."""
    if path is not None and is_pictures(path):
        return pictures.model_name(path)
    return "smoke" if smoke else "cifar10"


def middle_side(path: Path, reading: Reading) -> int | None:
    """Return the pixels of the shorter side of the middle one in size of the pictures in the folder at ``path``."""
    return pictures.middle_side(path, reading)


def is_pictures(path: Path) -> bool:
    """Say whether ``path`` is a folder of pictures, and not of CIFAR-10's batches."""
    return path.is_dir() and not cifar10.is_in(path)


def _or_default(number: int | None, default: int) -> int:
    return default if number is None else number


def _require_archive(file: Path) -> None:
    """Find out that a picture, or anything else that is no archive, is given; one that is cut short has its suffix."""
    if file.suffix not in (".gz", ".tgz", ".tar") and not cifar10.is_archive(file):
        raise TrainingError(
            f"{file} is a file, and not an archive of CIFAR-10; --data takes a folder with a subfolder of pictures for "
            "each class, so unpack it where it is an archive"
        )


def _require_size(dataset: Dataset, picture: Input | None, reading: Reading) -> None:
    """Find out that pictures of another size are asked for than the data set has, which are its own pixels."""
    size = dataset.input_shape[:2]
    wanted = (picture.height, picture.width) if picture else reading.size
    if wanted not in (None, size):
        raise TrainingError(
            "{} has pictures of {}x{} pixels, and {}x{} are wanted; only folders of pictures are scaled".format(
                dataset.name, *size, *wanted
            )
        )


def _download() -> Path:
    print("Downloading CIFAR-10 (170 MB); --data takes an archive or folder instead.", flush=True)
    try:
        return Path(keras.utils.get_file("cifar-10-python.tar.gz", _ORIGIN, file_hash=_SHA256, extract=False))
    except Exception as error:  # Keras raises a bare Exception for every network fault
        raise TrainingError(
            f"CIFAR-10 could not be downloaded ({error}); fetch {_ORIGIN} yourself and give its path with --data"
        ) from error
