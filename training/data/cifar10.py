"""Read CIFAR-10 from an archive or a folder, in the Python or the binary layout.

Both layouts are described at https://www.cs.toronto.edu/~kriz/cifar.html: five training batches and a test batch of
10,000 pictures each, 32x32, stored as red, green and blue planes.
"""

import bz2
import gzip
import io
import lzma
import tarfile
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import IO, Any

import numpy as np

from training.data import pickled
from training.data.dataset import Split
from training.data.pickled import Call, NoData
from training.errors import TrainingError

SIDE = 32
VALIDATION_IMAGES = 5000  # the last of the training images, held out unless another number is asked for
_PIXELS = 3 * SIDE * SIDE
_TRAIN = [f"data_batch_{number}" for number in range(1, 6)]
_TEST = "test_batch"


# What NumPy's arrays name in a pickle; none of it is called.
_ARRAY = ("numpy.core.multiarray._reconstruct", "numpy._core.multiarray._reconstruct")
_NAMES = (*_ARRAY, "numpy.ndarray", "numpy.dtype")

# The archive has 9 members and 186 MB, of which a batch takes 31; what is far beyond is made to fill memory.
_MOST_MEMBERS = 1000
_MOST_BYTES = 512 * 1024**2
_MOST_BATCH_BYTES = 64 * 1024**2

# What is raised of a file that is none, is damaged or is cut short, by tarfile or by what decompresses it.
_NO_ARCHIVE = (tarfile.TarError, EOFError, OSError, ValueError, lzma.LZMAError, zlib.error)


def load(path: Path) -> tuple[tuple[str, ...], Split, Split]:
    """Read CIFAR-10 and return its labels, its 50,000 training and its 10,000 test images in their order.

    ``path`` is a ``.tar.gz`` archive, or a folder that holds the batches, their folder, or the archive.

    Raises:
        TrainingError: there is no such path, it is not CIFAR-10, or a file is damaged or cut short.
    """
    if not path.exists():
        raise TrainingError(f"{path} does not exist; --data takes a folder of pictures, or CIFAR-10 as an archive")
    if not (path.is_dir() or path.is_file()):
        raise TrainingError(f"{path} is neither a file nor a folder")
    files = _read_folder(path) if path.is_dir() else _read_archive(path)
    names = {Path(name).name: name for name in files}
    if f"{_TRAIN[0]}.bin" in names:
        return _assemble(names, files, ".bin", "batches.meta.txt", _binary_batch, _text_labels)
    if _TRAIN[0] in names:
        return _assemble(names, files, "", "batches.meta", _python_batch, _pickled_labels)
    raise TrainingError(
        f"{path} holds no CIFAR-10: neither {_TRAIN[0]} nor {_TRAIN[0]}.bin is in it; where it holds pictures, unpack "
        "it and give the folder"
    )


def is_in(folder: Path) -> bool:
    """Say whether ``folder`` holds files of CIFAR-10, or their folder or archive; not whether all are there."""
    candidates = (file for pattern in ("*", "*/*") for file in folder.glob(pattern))
    return any(folder.glob("cifar-10-*.tar.gz")) or any(_wanted(file.name) for file in candidates)


def is_archive(file: Path) -> bool:
    """Say whether ``file`` begins as an archive does, compressed or not."""
    try:
        with _decompressed(file) as stream, tarfile.open(fileobj=stream, mode="r:"):
            return True
    except _NO_ARCHIVE:
        return False


def _wanted(name: str) -> bool:
    stem = Path(name).name.removesuffix(".bin").removesuffix(".txt")
    return stem in (*_TRAIN, _TEST, "batches.meta")


def _read_folder(path: Path) -> dict[str, bytes]:
    archives = sorted(path.glob("cifar-10-*.tar.gz"))
    if archives and not any(_wanted(file.name) for file in path.rglob("*")):
        return _read_archive(archives[0])
    candidates = [file for pattern in ("*", "*/*") for file in path.glob(pattern)]
    try:
        return {str(file): _content_of(file) for file in candidates if file.is_file() and _wanted(file.name)}
    except OSError as error:
        raise TrainingError(f"{error.filename} cannot be read: {error.strerror}") from error


def _content_of(file: Path) -> bytes:
    _require_size(str(file), file.stat().st_size)
    return file.read_bytes()


def _require_size(name: str, size: int) -> None:
    if size > _MOST_BATCH_BYTES:
        raise TrainingError(f"{name} has {size:,} bytes, and a file of CIFAR-10 at most {_MOST_BATCH_BYTES:,}")


def _read_archive(path: Path) -> dict[str, bytes]:
    """Read the archive's members into memory; nothing is unpacked, so no member can land outside a folder."""
    try:
        with _decompressed(path) as stream, tarfile.open(fileobj=stream, mode="r:") as archive:
            return dict(_members(archive))
    except _NO_ARCHIVE as error:
        raise TrainingError(
            f"{path} cannot be read as an archive ({error}); it may be cut short: download it again"
        ) from error


def _decompressed(path: Path) -> "_Bounded":
    with path.open("rb") as file:
        beginning = file.read(6)
    openers: dict[bytes, Callable[[Path], Any]] = {
        b"\x1f\x8b": gzip.open,
        b"BZh": bz2.open,
        b"\xfd7zXZ\x00": lzma.open,
        b"": lambda path: path.open("rb"),
    }
    return _Bounded(next(opened for magic, opened in openers.items() if beginning.startswith(magic))(path))


class _Bounded(io.RawIOBase):
    """A stream that is an error where it would go on after more bytes than an archive of CIFAR-10 has.

    Some hundred kilobytes may unpack to gigabytes, and ``tarfile`` reads what a header announces in one go.
    """

    def __init__(self, stream: IO[bytes]) -> None:
        self._stream = stream

    def read(self, size: int = -1) -> bytes:
        position = self._stream.tell()
        content = self._stream.read(_MOST_BYTES - position + 1 if size < 0 else min(size, _MOST_BYTES - position + 1))
        self._require(position + len(content))
        return content

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        if whence == io.SEEK_SET:
            self._require(offset)
        return self._stream.seek(offset, whence)

    def tell(self) -> int:
        return self._stream.tell()

    def close(self) -> None:
        self._stream.close()
        super().close()

    def _require(self, position: int) -> None:
        if position > _MOST_BYTES:
            raise ValueError(f"it holds more than {_MOST_BYTES:,} bytes, and CIFAR-10 has 186,000,000")


def _members(archive: tarfile.TarFile) -> Iterator[tuple[str, bytes]]:
    """Yield the names and contents of the members that are wanted; a link to a file is none."""
    for number, member in enumerate(archive):
        if number == _MOST_MEMBERS:
            raise ValueError(f"it holds more than {_MOST_MEMBERS:,} files, and CIFAR-10 has 9")
        if member.isreg() and not member.issparse() and _wanted(member.name):
            _require_size(member.name, member.size)
            yield member.name, _content(archive, member)


def _content(archive: tarfile.TarFile, member: tarfile.TarInfo) -> bytes:
    stream = archive.extractfile(member)
    content = stream.read() if stream else b""
    if len(content) != member.size:
        raise EOFError(f"{member.name} ends after {len(content)} of {member.size} bytes")
    return content


def _assemble(
    names: dict[str, str],
    files: dict[str, bytes],
    suffix: str,
    meta: str,
    read_batch: Callable[[str, bytes], Split],
    read_labels: Callable[[str, bytes], tuple[str, ...]],
) -> tuple[tuple[str, ...], Split, Split]:
    missing = [name for name in (*(f"{batch}{suffix}" for batch in (*_TRAIN, _TEST)), meta) if name not in names]
    if missing:
        raise TrainingError(f"CIFAR-10 is not complete: {', '.join(missing)} is missing; download it again")
    parts = [read_batch(batch, files[names[f"{batch}{suffix}"]]) for batch in _TRAIN]
    train = Split(
        np.concatenate([part.images for part in parts]),
        np.concatenate([part.classes for part in parts]),
    )
    test = read_batch(_TEST, files[names[f"{_TEST}{suffix}"]])
    labels = read_labels(meta, files[names[meta]])
    for split in (train, test):
        if not (len(split) and split.classes.min() >= 0 and split.classes.max() < len(labels)):
            raise TrainingError(f"CIFAR-10's {meta} has {len(labels)} labels, but a picture's class is beyond them")
    return labels, train, test


def _split(planes: np.ndarray[Any, Any], classes: np.ndarray[Any, Any]) -> Split:
    images = planes.reshape(-1, 3, SIDE, SIDE).transpose(0, 2, 3, 1)
    return Split(np.ascontiguousarray(images), classes.astype(np.int64))


def _unpickle(name: str, content: bytes) -> dict[bytes, Any]:
    try:
        value = pickled.load(io.BytesIO(content), _NAMES)
    except (NoData, MemoryError) as error:
        raise TrainingError(f"CIFAR-10's {name} cannot be read: {error}") from error
    if not isinstance(value, dict):
        raise TrainingError(f"CIFAR-10's {name} holds a {type(value).__name__}, not a dictionary")
    return {key.encode() if isinstance(key, str) else key: item for key, item in value.items()}


def _python_batch(name: str, content: bytes) -> Split:
    batch = _unpickle(name, content)
    labels, planes = batch.get(b"labels"), _bytes_of_array(batch.get(b"data"))
    if not isinstance(labels, list) or not all(type(label) is int and 0 <= label < 2**31 for label in labels):
        raise TrainingError(f"CIFAR-10's {name} has labels that are no numbers from 0")
    if planes is None or len(planes) != len(labels) * _PIXELS:
        raise TrainingError(f"CIFAR-10's {name} does not hold as many pictures of {_PIXELS} bytes as labels")
    return _split(np.frombuffer(planes, np.uint8).reshape(-1, _PIXELS), np.array(labels, np.int64))


def _bytes_of_array(value: Any) -> bytes | None:
    """Return what is in a pickled array uint8 [N, 3072], None where it is none: its state as ``__reduce__`` gives it.

    That is a version, the shape, the dtype, whether columns come first (Fortran), and the bytes.
    """
    match value:
        case Call(
            function=function,
            state=(
                int(),
                (int(rows), int(columns)),
                Call(function="numpy.dtype", arguments=("u1" | b"u1", *_)),
                False | 0,
                bytes(content),
            ),
        ) if function in _ARRAY and columns == _PIXELS and len(content) == rows * columns:
            return content
    return None


def _pickled_labels(name: str, content: bytes) -> tuple[str, ...]:
    labels = _unpickle(name, content).get(b"label_names")
    if not isinstance(labels, list):
        raise TrainingError(f"CIFAR-10's {name} has no list of labels")
    return _labels(name, [label.encode() if isinstance(label, str) else label for label in labels])


def _binary_batch(name: str, content: bytes) -> Split:
    if not content or len(content) % (1 + _PIXELS):
        raise TrainingError(f"CIFAR-10's {name}.bin is cut short: {len(content)} bytes are no whole pictures")
    records = np.frombuffer(content, np.uint8).reshape(-1, 1 + _PIXELS)
    return _split(records[:, 1:], records[:, 0])


def _text_labels(name: str, content: bytes) -> tuple[str, ...]:
    return _labels(name, content.split())


def _labels(name: str, labels: list[Any]) -> tuple[str, ...]:
    try:
        return tuple(label.decode() for label in labels)
    except (AttributeError, UnicodeDecodeError) as error:
        raise TrainingError(f"CIFAR-10's {name} has labels that are no text") from error
