"""CIFAR-10 is read in every layout, and never by running what a file says."""

import pickle
from pathlib import Path

import numpy as np
import pytest

from tests.training.conftest import LABELS, PER_BATCH, binary_layout, picture_bytes, python_layout
from tests.training.conftest import write_archive as archive
from tests.training.conftest import write_folder as folder
from training.data import cifar10
from training.data.dataset import hold_out
from training.errors import TrainingError


@pytest.mark.parametrize("layout", ["archive", "folder", "folder in a folder", "archive in a folder", "binary"])
def test_every_layout_gives_the_same_pictures(tmp_path: Path, layout: str) -> None:
    """An archive, a folder, a folder around either and the binary layout hold the same data."""
    path = {
        "archive": lambda: archive(tmp_path / "a.tar.gz", python_layout()),
        "folder": lambda: folder(tmp_path / "f", python_layout()),
        "folder in a folder": lambda: folder(tmp_path / "f" / "cifar-10-batches-py", python_layout()).parent,
        "archive in a folder": lambda: archive(tmp_path / "cifar-10-python.tar.gz", python_layout()).parent,
        "binary": lambda: folder(tmp_path / "b", binary_layout()),
    }[layout]()
    labels, train, test = cifar10.load(path)
    planes, classes = picture_bytes("data_batch_2")
    assert labels == LABELS
    assert len(train) == 5 * PER_BATCH
    assert len(test) == PER_BATCH
    assert train.classes[PER_BATCH : 2 * PER_BATCH].tolist() == classes
    # Planes of red, green and blue become pixels of three channels.
    np.testing.assert_array_equal(train.images[PER_BATCH, :, :, 1], planes[0, 1024:2048].reshape(32, 32))


class _Evil:
    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[object, tuple[str]]:
        return exec, (f"open({str(self.path)!r}, 'w')",)


def test_a_pickle_that_would_run_code_is_refused(tmp_path: Path) -> None:
    """A global other than NumPy's arrays ends in an error that names it, before anything ran."""
    trace = tmp_path / "ran"
    files = {**python_layout(), "data_batch_3": pickle.dumps({b"data": _Evil(trace), b"labels": []})}
    with pytest.raises(TrainingError, match=r"data_batch_3.*builtins\.exec"):
        cifar10.load(folder(tmp_path / "f", files))
    assert not trace.exists()


def test_an_archive_cut_short_is_an_error_that_says_so(tmp_path: Path) -> None:
    """Half of an archive is reported as such, not as a stack trace."""
    path = archive(tmp_path / "a.tar.gz", python_layout())
    content = path.read_bytes()
    for size in (0, 100, len(content) // 2):
        path.write_bytes(content[:size])
        with pytest.raises(TrainingError, match="cut short"):
            cifar10.load(path)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"data_batch_4": None}, "data_batch_4 is missing"),
        ({"batches.meta": None}, "batches.meta is missing"),
        ({"data_batch_1": None, "data_batch_2": None}, "holds no CIFAR-10|data_batch_1, data_batch_2 is missing"),
        ({"test_batch": b"\x80\x02broken"}, "test_batch cannot be read"),
        ({"test_batch": pickle.dumps([1])}, "holds a list"),
        ({"test_batch": pickle.dumps({b"data": np.zeros((2, 5), np.uint8), b"labels": [1, 2]})}, "3072 bytes"),
        ({"batches.meta": pickle.dumps({b"label_names": [b"only"]})}, "1 labels, but a picture's class is beyond"),
    ],
)
def test_what_is_wrong_in_a_folder_is_named(tmp_path: Path, changes: dict[str, bytes | None], message: str) -> None:
    """A missing or damaged file is named in the error."""
    files = {name: content for name, content in {**python_layout(), **changes}.items() if content is not None}
    with pytest.raises(TrainingError, match=message):
        cifar10.load(folder(tmp_path / "f", files))


def test_a_binary_batch_cut_short_is_named(tmp_path: Path) -> None:
    """A binary batch that ends inside a picture is an error."""
    files = binary_layout()
    files["data_batch_5.bin"] = files["data_batch_5.bin"][:-1]
    with pytest.raises(TrainingError, match=r"data_batch_5\.bin is cut short"):
        cifar10.load(folder(tmp_path / "f", files))


def test_a_path_without_data_is_an_error(tmp_path: Path) -> None:
    """A folder of something else and a path that does not exist are told apart."""
    with pytest.raises(TrainingError, match="does not exist"):
        cifar10.load(tmp_path / "nowhere")
    with pytest.raises(TrainingError, match="holds no CIFAR-10"):
        cifar10.load(tmp_path)


@pytest.mark.slow
def test_the_real_archive_is_complete(cifar10_archive: Path) -> None:
    """The real data has 50,000 and 10,000 pictures, every class a tenth of each."""
    dataset = hold_out("CIFAR-10", *cifar10.load(cifar10_archive), 5000)
    assert dataset.labels == LABELS
    assert (len(dataset.train), len(dataset.validation), len(dataset.test)) == (45_000, 5_000, 10_000)
    assert dataset.input_shape == (32, 32, 3)
    np.testing.assert_array_equal(np.bincount(dataset.test.classes), np.full(10, 1000))
