"""Many pictures are read, each into its place, and those that cannot be are listed with the reason."""

import hashlib
import threading
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from artifact import Input
from training.data import reading
from training.data.dataset import Digests, Pixels
from training.data.decoding import decode, read
from training.data.folders import File
from training.data.hashes import WORDS, Hashes
from training.data.reading import read_all
from training.errors import TrainingError

PICTURE = Input(height=8, width=8)


def pictures(folder: Path, count: int, damaged: tuple[int, ...] = ()) -> list[File]:
    """Write random pictures of differing sizes, some of them damaged, and return their files."""
    rng = np.random.default_rng(0)
    files = []
    for number in range(count):
        path = folder / f"{number}.png"
        Image.fromarray(rng.integers(256, size=(8 + number % 5, 9, 3), dtype=np.uint8)).save(path)
        if number in damaged:
            path.write_bytes(path.read_bytes()[:60])
        files.append(File(path, path.name, "any"))
    return files


def empty_digests(files: list[File]) -> Digests:
    """Return room for the digests of files."""
    return np.zeros((len(files), 32), np.uint8)


def empty_hashes(files: list[File]) -> Hashes:
    """Return room for the hashes of files."""
    return np.zeros((len(files), 2, WORDS), np.uint64)


def test_each_picture_is_in_its_place(tmp_path: Path) -> None:
    """However many threads read, row n is file n, decoded as it is alone."""
    files = pictures(tmp_path, 70)
    images = np.zeros((70, 8, 8, 3), np.uint8)
    digests = empty_digests(files)
    assert read_all(files, PICTURE, images, digests, empty_hashes(files), max_unreadable=0) == {}
    for image, digest, file in zip(images, digests, files, strict=True):
        np.testing.assert_array_equal(image, read(file.path, PICTURE))
        assert digest.tobytes() == hashlib.sha256(file.path.read_bytes()).digest()


def test_unreadable_pictures_are_told_by_their_place(tmp_path: Path) -> None:
    """Up to the share allowed, damaged and missing files are no error, and the others are read."""
    files = pictures(tmp_path, 50, damaged=(3, 40))
    files[7].path.unlink()
    images = np.zeros((50, 8, 8, 3), np.uint8)
    faults = read_all(files, PICTURE, images, empty_digests(files), empty_hashes(files), max_unreadable=0.06)
    assert sorted(faults) == [3, 7, 40]
    assert faults[7] == "No such file or directory"
    assert faults[3].startswith("damaged or cut short (")
    assert [index for index, image in enumerate(images) if not image.any()] == [3, 7, 40]


def test_too_many_unreadable_pictures_end_the_reading(tmp_path: Path) -> None:
    """Above the share the error names the first of them, and how to go on all the same."""
    files = pictures(tmp_path, 20, damaged=(2, 5, 6))
    with pytest.raises(TrainingError, match=r"more than 10% of the 20 pictures .*/2\.png: damaged.*--max-unreadable"):
        read_all(
            files,
            PICTURE,
            np.zeros((20, 8, 8, 3), np.uint8),
            empty_digests(files),
            empty_hashes(files),
            max_unreadable=0.1,
        )


def test_several_threads_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """With two cores, two pictures are being read at the same time: each waits for the other here."""
    both = threading.Barrier(2, timeout=30)

    def decode_together(content: bytes, picture: Input) -> Pixels:
        both.wait()
        return decode(content, picture)

    monkeypatch.setattr(reading, "usable_cores", lambda: 2)
    monkeypatch.setattr(reading, "decode", decode_together)
    files = pictures(tmp_path, 2 * reading.CHUNK)
    images = np.zeros((len(files), 8, 8, 3), np.uint8)
    assert read_all(files, PICTURE, images, empty_digests(files), empty_hashes(files), max_unreadable=0) == {}
    assert images.any(axis=(1, 2, 3)).all()


def test_a_signal_ends_the_reading(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What is raised in the main thread, as by a signal's handler, comes out at once: the rest is not read."""
    files = pictures(tmp_path, 500)
    count = 0

    def interrupt(*_: object) -> None:
        nonlocal count
        count += 1
        raise KeyboardInterrupt

    monkeypatch.setattr(reading, "require_readable", interrupt)
    images = np.zeros((len(files), 8, 8, 3), np.uint8)
    with pytest.raises(KeyboardInterrupt):
        read_all(files, PICTURE, images, empty_digests(files), empty_hashes(files), max_unreadable=0)
    assert count == 1
    assert not images[-1].any()
