"""Read the tensors of a file that ``torch.save`` wrote, without PyTorch, and without running anything that it holds.

PyTorch's older format is a row of pickles, of which the fourth is the dictionary of tensors; each names a storage and
how it lies in it. The storages follow as plain numbers, in the order of the fifth pickle (``_legacy_save`` in PyTorch's
``torch/serialization.py``).
"""

import pickle
from collections import OrderedDict
from pathlib import Path
from typing import IO, Any

import numpy as np
from numpy.typing import NDArray

_MAGIC = 0x1950A86A20F9469CFC6C
_VERSION = 1001
_DTYPES = {"FloatStorage": np.dtype("<f4"), "LongStorage": np.dtype("<i8")}
# What pickle raises of damaged files, and this module of what others hold; sizes may be any numbers.
_FAULTS = (
    pickle.UnpicklingError,
    EOFError,
    LookupError,
    AttributeError,
    TypeError,
    ValueError,
    OverflowError,
    MemoryError,
)


def read_tensors(path: Path) -> dict[str, NDArray[Any]]:
    """Return the tensors in the file at ``path`` by their names.

    Raises:
        OSError: the file cannot be read.
        ValueError: it is not of that format, is cut short, or holds anything else than tensors.
    """
    with path.open("rb") as file:
        try:
            if (_Reader(file).load(), _Reader(file).load()) != (_MAGIC, _VERSION):
                raise ValueError("it is not of PyTorch's older format")
            _Reader(file).load()  # what machine wrote it
            reader = _Reader(file)
            tensors = reader.load()
            for key in _Reader(file).load():
                reader.storages[key].fill_from(file)
            return {name: tensor.array() for name, tensor in tensors.items()}
        except _FAULTS as error:
            raise ValueError(f"{path} cannot be read as tensors of PyTorch ({error})") from error


class _Storage:
    """The numbers that tensors lie in; they stand in the file behind all pickles."""

    def __init__(self, dtype: np.dtype[Any], count: int) -> None:
        self.dtype = dtype
        self._count = count
        self.numbers: NDArray[Any] = np.empty(0, dtype)  # until they are read

    def fill_from(self, file: IO[bytes]) -> None:
        count = int.from_bytes(file.read(8), "little")
        content = file.read(self._count * self.dtype.itemsize)
        if count != self._count or len(content) != count * self.dtype.itemsize:
            raise ValueError("it is cut short")
        self.numbers = np.frombuffer(content, self.dtype)


class _Tensor:
    """A tensor whose storage may not have been read yet."""

    def __init__(self, storage: _Storage, offset: int, size: tuple[int, ...], stride: tuple[int, ...]) -> None:
        self._place = storage, offset, size, stride

    def array(self) -> NDArray[Any]:
        storage, offset, size, stride = self._place
        last = offset + sum((length - 1) * step for length, step in zip(size, stride, strict=True))
        if min(offset, *size, *stride, 0) < 0 or last >= len(storage.numbers):
            raise ValueError("a tensor lies outside of its storage")
        strides = [step * storage.dtype.itemsize for step in stride]
        return np.lib.stride_tricks.as_strided(storage.numbers[offset:], size, strides, writeable=False).copy()


class _Reader(pickle.Unpickler):
    """Unpickles tensors and dictionaries of them; every other class that a pickle names is an error."""

    def __init__(self, file: IO[bytes]) -> None:
        super().__init__(file)
        self.storages: dict[str, _Storage] = {}

    def find_class(self, module: str, name: str) -> Any:
        if (module, name) == ("collections", "OrderedDict"):
            return OrderedDict
        if (module, name) == ("torch._utils", "_rebuild_tensor_v2"):
            return lambda storage, offset, size, stride, *_: _Tensor(storage, offset, size, stride)
        if module == "torch" and name in _DTYPES:
            return _DTYPES[name]
        raise pickle.UnpicklingError(f"it holds {module}.{name}")

    def persistent_load(self, pid: Any) -> _Storage:
        _, dtype, key, _, count, *_ = pid
        return self.storages.setdefault(key, _Storage(dtype, count))
