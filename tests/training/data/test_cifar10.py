"""CIFAR-10 is read in every layout, and never by running what a file says."""

import gzip
import os
import pickle
import resource
import tarfile
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


class _Array:
    """Is written as an array of 384 times 8 bytes, of a dtype with this state."""

    def __init__(self, state: tuple[object, ...]) -> None:
        self.state = state

    def __reduce__(self) -> tuple[object, ...]:
        array = np.zeros((1, 3072), np.uint8).__reduce__()
        return (*array[:2], (1, (1, 384), _Dtype(self.state), False, b"A" * 3072))


class _Dtype:
    def __init__(self, state: tuple[object, ...]) -> None:
        self.state = state

    def __reduce__(self) -> tuple[object, ...]:
        return np.dtype, ("V8", False, True), self.state


@pytest.mark.parametrize(
    "state",
    [
        (3, ">", None, ("f",), {"f": (np.dtype(">u8"), 2**30)}, 8, 1, 0),
        (3, "|", None, ("f",), {"f": (np.dtype("O"), 0)}, 8, 1, 0),
        (3, "|", None, None, None, 8, 1, 63),
    ],
    ids=["a field a gigabyte away", "a field of objects", "flags of objects"],
)
@pytest.mark.parametrize("protocol", [2, 4, 5])
def test_no_state_of_a_dtype_is_set(tmp_path: Path, state: tuple[object, ...], protocol: int) -> None:
    """Such an array would be swapped in place, far outside of its bytes, or have these for pointers: it is refused."""
    batch = pickle.dumps({b"data": _Array(state), b"labels": [0]}, protocol)
    with pytest.raises(TrainingError, match="data_batch_3"):
        cifar10.load(folder(tmp_path / "f", {**python_layout(), "data_batch_3": batch}))


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
        ({"batches.meta": pickle.dumps({b"label_names": [b"\xff"] * 10})}, "labels that are no text"),
        ({"batches.meta": pickle.dumps({b"label_names": [1] * 10})}, "labels that are no text"),
        ({"batches.meta": pickle.dumps({b"label_names": 10})}, "has no list of labels"),
        (
            {"test_batch": pickle.dumps({b"data": np.zeros((2, 3072), np.uint8), b"labels": [1, -1]})},
            "no numbers from 0",
        ),
        ({"test_batch": pickle.dumps({b"data": np.zeros((2, 3072), np.uint8), b"labels": [1, [2]]})}, "no numbers"),
        ({"test_batch": pickle.dumps({b"data": np.zeros((2, 3072), np.uint8), b"labels": None})}, "no numbers"),
        ({"test_batch": pickle.dumps({b"data": np.zeros((2, 3072), np.int8), b"labels": [1, 2]})}, "3072 bytes"),
        ({"test_batch": pickle.dumps({b"data": np.zeros((2, 3072), ">u2"), b"labels": [1, 2]})}, "3072 bytes"),
        ({"test_batch": pickle.dumps({b"data": bytes(6144), b"labels": [1, 2]})}, "3072 bytes"),
        ({"test_batch": pickle.dumps({b"labels": [1, 2]})}, "3072 bytes"),
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


def write_members(path: Path, *members: tuple[tarfile.TarInfo, int]) -> Path:
    """Write an archive whose members hold so many zeros, and return its path."""
    with gzip.open(path, "wb", compresslevel=1) as stream:
        for member, count in members:
            stream.write(member.tobuf(tarfile.GNU_FORMAT))
            for _ in range(-(-count // 2**20)):
                stream.write(bytes(2**20))
        stream.write(bytes(1024))
    return path


def member(name: str, size: int, kind: bytes = tarfile.REGTYPE, target: str = "") -> tarfile.TarInfo:
    """Return the header of a member."""
    info = tarfile.TarInfo(name)
    info.size, info.type, info.linkname = size, kind, target
    return info


@pytest.mark.slow
@pytest.mark.parametrize(
    "announced",
    [
        pytest.param((member("data_batch_1", 2**40), 0), id="a batch of a terabyte"),
        pytest.param((member("data_batch_1", 2**27), 2**27), id="a batch of 128 MiB"),
        pytest.param((member("other", 2**30), 2**30), id="a gigabyte of something else"),
        pytest.param((member("long", 2**30, tarfile.GNUTYPE_LONGNAME), 2**30), id="a name of a gigabyte"),
        pytest.param((member("pax", 2**30, tarfile.XHDTYPE), 2**30), id="a header of a gigabyte"),
    ],
)
def test_an_archive_that_unpacks_to_far_more_costs_little(
    tmp_path: Path, announced: tuple[tarfile.TarInfo, int]
) -> None:
    """Some megabytes that say that they hold gigabytes are refused before those are in memory."""
    path = write_members(tmp_path / "bomb.tar.gz", announced)
    assert path.stat().st_size < 10e6
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with pytest.raises(TrainingError, match=r"bomb\.tar\.gz|data_batch_1 has .* bytes"):
        cifar10.load(path)
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 800e3  # kB


def test_links_in_an_archive_are_no_batches(tmp_path: Path) -> None:
    """Neither one to a file outside nor one to another member is followed: such a batch is missing."""
    (tmp_path / "outside").write_bytes(python_layout()["data_batch_2"])
    for kind, target in ((tarfile.SYMTYPE, str(tmp_path / "outside")), (tarfile.LNKTYPE, "data_batch_1")):
        path = archive(tmp_path / "a.tar", {k: v for k, v in python_layout().items() if k != "data_batch_2"})
        plain = gzip.decompress(path.read_bytes()).rstrip(b"\0")
        plain += bytes(-len(plain) % 512) + member("data_batch_2", 0, kind, target).tobuf() + bytes(1024)
        path.write_bytes(plain)
        with pytest.raises(TrainingError, match="data_batch_2 is missing"):
            cifar10.load(path)


def test_a_pipe_is_not_waited_for(tmp_path: Path) -> None:
    """What is neither a file nor a folder is told as such."""
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(TrainingError, match="neither a file nor a folder"):
        cifar10.load(tmp_path / "pipe")


@pytest.mark.slow
def test_the_real_archive_is_complete(cifar10_archive: Path) -> None:
    """The real data has 50,000 and 10,000 pictures, every class a tenth of each."""
    dataset = hold_out("CIFAR-10", *cifar10.load(cifar10_archive), 5000)
    assert dataset.labels == LABELS
    assert (len(dataset.train), len(dataset.validation), len(dataset.test)) == (45_000, 5_000, 10_000)
    assert dataset.input_shape == (32, 32, 3)
    np.testing.assert_array_equal(np.bincount(dataset.test.classes), np.full(10, 1000))
