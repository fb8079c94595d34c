"""Read CIFAR-10 from an archive or a folder, in the Python or the binary layout.

Both layouts are described at https://www.cs.toronto.edu/~kriz/cifar.html: five training batches and a test batch of
10,000 pictures each, 32x32, stored as red, green and blue planes.
"""

import io
import pickle
import tarfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from training.data.dataset import Split
from training.errors import TrainingError

SIDE = 32
VALIDATION_IMAGES = 5000  # the last of the training images, held out unless another number is asked for
_PIXELS = 3 * SIDE * SIDE
_TRAIN = [f"data_batch_{number}" for number in range(1, 6)]
_TEST = "test_batch"


def _encode(text: str, encoding: str) -> bytes:
    """Make bytes of text as pickles of protocol 2 write them, and in no other encoding."""
    if encoding != "latin1":
        raise pickle.UnpicklingError(f"it asks for the encoding {encoding}, which a data file must not")
    return text.encode(encoding)


_HARMLESS = {
    ("_codecs", "encode"): _encode,
    ("numpy", "ndarray"): np.ndarray,
    ("numpy", "dtype"): np.dtype,
    ("numpy.core.multiarray", "_reconstruct"): np._core.multiarray._reconstruct,  # type: ignore[attr-defined]
    ("numpy._core.multiarray", "_reconstruct"): np._core.multiarray._reconstruct,  # type: ignore[attr-defined]
}


class _ArraysOnly(pickle.Unpickler):
    """Unpickles plain values and NumPy arrays; any other global, which might run code, is refused."""

    def find_class(self, module: str, name: str) -> Any:
        try:
            return _HARMLESS[module, name]
        except KeyError:
            raise pickle.UnpicklingError(f"it asks for {module}.{name}, which a data file must not") from None


def load(path: Path) -> tuple[tuple[str, ...], Split, Split]:
    """Read CIFAR-10 and return its labels, its 50,000 training and its 10,000 test images in their order.

    ``path`` is a ``.tar.gz`` archive, or a folder that holds the batches, their folder, or the archive.

    Raises:
        TrainingError: there is no such path, it is not CIFAR-10, or a file is damaged or cut short.
    """
    if not path.exists():
        raise TrainingError(f"{path} does not exist; --data takes a folder of pictures, or CIFAR-10 as an archive")
    files = _read_folder(path) if path.is_dir() else _read_archive(path)
    names = {Path(name).name: name for name in files}
    if f"{_TRAIN[0]}.bin" in names:
        return _assemble(names, files, ".bin", "batches.meta.txt", _binary_batch, _text_labels)
    if _TRAIN[0] in names:
        return _assemble(names, files, "", "batches.meta", _python_batch, _pickled_labels)
    raise TrainingError(f"{path} holds no CIFAR-10: neither {_TRAIN[0]} nor {_TRAIN[0]}.bin is in it")


def is_in(folder: Path) -> bool:
    """Say whether ``folder`` holds files of CIFAR-10, or their folder or archive; not whether all are there."""
    candidates = (file for pattern in ("*", "*/*") for file in folder.glob(pattern))
    return any(folder.glob("cifar-10-*.tar.gz")) or any(_wanted(file.name) for file in candidates)


def _wanted(name: str) -> bool:
    stem = Path(name).name.removesuffix(".bin").removesuffix(".txt")
    return stem in (*_TRAIN, _TEST, "batches.meta")


def _read_folder(path: Path) -> dict[str, bytes]:
    archives = sorted(path.glob("cifar-10-*.tar.gz"))
    if archives and not any(_wanted(file.name) for file in path.rglob("*")):
        return _read_archive(archives[0])
    candidates = [file for pattern in ("*", "*/*") for file in path.glob(pattern)]
    try:
        return {str(file): file.read_bytes() for file in candidates if file.is_file() and _wanted(file.name)}
    except OSError as error:
        raise TrainingError(f"{error.filename} cannot be read: {error.strerror}") from error


def _read_archive(path: Path) -> dict[str, bytes]:
    """Read the archive's members into memory; nothing is unpacked, so no member can land outside a folder."""
    try:
        with tarfile.open(path) as archive:
            members = [member for member in archive if member.isfile() and _wanted(member.name)]
            return {member.name: _content(archive, member) for member in members}
    except (tarfile.TarError, EOFError, OSError, ValueError) as error:
        raise TrainingError(
            f"{path} cannot be read as an archive ({error}); it may be cut short: download it again"
        ) from error


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
    if max(train.classes.max(), test.classes.max()) >= len(labels):
        raise TrainingError(f"CIFAR-10's {meta} has {len(labels)} labels, but a picture's class is beyond them")
    return labels, train, test


def _split(planes: np.ndarray[Any, Any], classes: np.ndarray[Any, Any]) -> Split:
    images = planes.reshape(-1, 3, SIDE, SIDE).transpose(0, 2, 3, 1)
    return Split(np.ascontiguousarray(images), classes.astype(np.int64))


def _unpickle(name: str, content: bytes) -> dict[bytes, Any]:
    try:
        value = _ArraysOnly(io.BytesIO(content), encoding="bytes").load()
    except Exception as error:  # a damaged pickle can raise almost anything
        raise TrainingError(f"CIFAR-10's {name} cannot be read: {error}") from error
    if not isinstance(value, dict):
        raise TrainingError(f"CIFAR-10's {name} holds a {type(value).__name__}, not a dictionary")
    return {key.encode() if isinstance(key, str) else key: item for key, item in value.items()}


def _python_batch(name: str, content: bytes) -> Split:
    batch = _unpickle(name, content)
    planes = batch.get(b"data")
    classes = np.asarray(batch.get(b"labels", []))
    if not isinstance(planes, np.ndarray) or planes.dtype != np.uint8 or planes.shape != (len(classes), _PIXELS):
        raise TrainingError(f"CIFAR-10's {name} does not hold as many pictures of {_PIXELS} bytes as labels")
    return _split(planes, classes)


def _pickled_labels(name: str, content: bytes) -> tuple[str, ...]:
    labels = _unpickle(name, content).get(b"label_names", [])
    return tuple(label.decode() if isinstance(label, bytes) else str(label) for label in labels)


def _binary_batch(name: str, content: bytes) -> Split:
    if not content or len(content) % (1 + _PIXELS):
        raise TrainingError(f"CIFAR-10's {name}.bin is cut short: {len(content)} bytes are no whole pictures")
    records = np.frombuffer(content, np.uint8).reshape(-1, 1 + _PIXELS)
    return _split(records[:, 1:], records[:, 0])


def _text_labels(_name: str, content: bytes) -> tuple[str, ...]:
    return tuple(content.decode().split())
