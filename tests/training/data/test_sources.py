"""What --data names is recognised, and what cannot be data says what to give instead."""

from pathlib import Path

import pytest
from PIL import Image

from artifact import Input
from tests.training.conftest import PER_BATCH, binary_layout, python_layout, write_archive, write_folder
from tests.training.data.test_pictures import write
from training.data import sources
from training.data.pictures import Reading
from training.errors import TrainingError

pytestmark = pytest.mark.keras


def test_a_folder_of_pictures(tmp_path: Path) -> None:
    """It is read as such, in the size asked for, and names the model."""
    folder = write(tmp_path / "pets", cat=20, dog=20)
    dataset = sources.load(folder, 6, smoke=False, reading=Reading(size=(8, 8)))
    assert (dataset.name, len(dataset.validation)) == ("pets", 6)
    assert sources.model_name(folder, smoke=False) == "pets"
    assert sources.model_name(folder, smoke=True) == "pets"


def test_a_folder_of_cifar10_is_still_that(tmp_path: Path) -> None:
    """In each of its layouts, also one folder deeper or as an archive, CIFAR-10 is recognised by its files."""
    folders = [
        write_folder(tmp_path / "python", python_layout()),
        write_folder(tmp_path / "binary", binary_layout()),
        write_folder(tmp_path / "above" / "cifar-10-batches-py", python_layout()).parent,
    ]
    (tmp_path / "archive").mkdir()
    write_archive(tmp_path / "archive" / "cifar-10-python.tar.gz", python_layout())
    for folder in (*folders, tmp_path / "archive"):
        dataset = sources.load(folder, 0, smoke=False)
        assert (dataset.name, len(dataset.test)) == ("CIFAR-10", PER_BATCH)
        assert sources.model_name(folder, smoke=False) == "cifar10"
        assert dataset.picture == Input(height=32, width=32)


def test_names_without_a_folder_of_pictures() -> None:
    """Without data, the model is called after what it is trained on."""
    assert sources.model_name(None, smoke=False) == "cifar10"
    assert sources.model_name(None, smoke=True) == "smoke"


def test_pixels_that_are_data_are_not_scaled(tmp_path: Path) -> None:
    """CIFAR-10 in another size, for a version or by an option, is an error; in its own it is not."""
    archive = write_archive(tmp_path / "cifar.tar.gz", python_layout())
    assert sources.load(
        archive, 0, smoke=False, picture=Input(32, 32), reading=Reading(size=(64, 64))
    ).test.images.any()
    with pytest.raises(TrainingError, match=r"CIFAR-10 has pictures of 32x32 pixels, and 64x48 are wanted"):
        sources.load(archive, 0, smoke=False, reading=Reading(size=(64, 48)))
    with pytest.raises(TrainingError, match=r"and 16x16 are wanted; only folders of pictures are scaled"):
        sources.load(archive, 0, smoke=False, picture=Input(16, 16))


def test_a_single_picture_is_no_data(tmp_path: Path) -> None:
    """A file that is no archive says that a folder is wanted."""
    Image.new("RGB", (9, 9)).save(tmp_path / "cat.jpg")
    with pytest.raises(TrainingError, match=r"cat\.jpg is a file, and not an archive of CIFAR-10; .* folder"):
        sources.load(tmp_path / "cat.jpg", None, smoke=False)


def test_a_path_that_does_not_exist(tmp_path: Path) -> None:
    """It is named, with what may be given."""
    with pytest.raises(TrainingError, match=r"none does not exist; --data takes a folder of pictures, or CIFAR-10"):
        sources.load(tmp_path / "none", None, smoke=False)
