"""Read the tensors of a file that ``torch.save`` wrote, without PyTorch, and without running anything that it holds.

PyTorch's older format is a row of pickles, of which the fourth is the dictionary of tensors; each names a storage and
how it lies in it. The storages follow as plain numbers, in the order of the fifth pickle (``_legacy_save`` in PyTorch's
``torch/serialization.py``).
"""

import math
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

import numpy as np
from numpy.typing import NDArray

from training.data import pickled
from training.data.pickled import Call, Name, Reference

_MAGIC = 0x1950A86A20F9469CFC6C
_VERSION = 1001
_DTYPES: dict[str, np.dtype[Any]] = {"torch.FloatStorage": np.dtype("<f4"), "torch.LongStorage": np.dtype("<i8")}
_TENSOR = "torch._utils._rebuild_tensor_v2"
_ORDERED = "collections.OrderedDict"
_NAMES = (_TENSOR, _ORDERED, *_DTYPES)


def read_tensors(path: Path) -> dict[str, NDArray[Any]]:
    """Return the tensors in the file at ``path`` by their names.

    Raises:
        OSError: the file cannot be read.
        ValueError: it is not of that format, is cut short, or holds anything else than tensors.
    """
    with path.open("rb") as file:
        try:
            if [pickled.load(file, _NAMES) for _ in range(2)] != [_MAGIC, _VERSION]:
                raise ValueError("it is not of PyTorch's older format")
            pickled.load(file, _NAMES)  # what machine wrote it
            tensors = {name: _Tensor.of(value) for name, value in _named(pickled.load(file, _NAMES)).items()}
            counts = {tensor.storage: (tensor.dtype, tensor.count) for tensor in tensors.values()}
            storages = {key: _numbers(file, *counts[key]) for key in _keys(pickled.load(file, _NAMES))}
            return {name: tensor.array(storages[tensor.storage]) for name, tensor in tensors.items()}
        except (ValueError, LookupError, MemoryError, OverflowError) as error:
            raise ValueError(f"{path} cannot be read as tensors of PyTorch ({error})") from error


def _named(value: Any) -> dict[str, Any]:
    """Return what a dictionary holds that is pickled as itself or as an OrderedDict, whose keys have to be names."""
    items = value.items if isinstance(value, Call) and value.function == _ORDERED else value
    if not isinstance(items, dict) or not all(isinstance(key, str) for key in items):
        raise ValueError("it holds no tensors by their names")
    return items


def _keys(value: Any) -> list[str]:
    if not isinstance(value, list) or not all(isinstance(key, str) for key in value):
        raise ValueError("it does not say which numbers follow")
    return value


def _numbers(file: IO[bytes], dtype: np.dtype[Any], count: int) -> NDArray[Any]:
    """Read a storage: how many numbers it has, and those."""
    said = int.from_bytes(file.read(8), "little")
    content = file.read(count * dtype.itemsize)
    if said != count or len(content) != count * dtype.itemsize:
        raise ValueError("it is cut short")
    return np.frombuffer(content, dtype)


def _are_numbers(*values: Any) -> bool:
    return all(type(value) is int for value in values)


@dataclass(frozen=True)
class _Tensor:
    """How a tensor lies in a storage, by its key, of ``count`` numbers."""

    storage: str
    dtype: np.dtype[Any]
    count: int
    offset: int
    size: tuple[int, ...]
    stride: tuple[int, ...]

    @classmethod
    def of(cls, value: Any) -> "_Tensor":
        match value:
            case Call(
                function=function,
                arguments=(
                    Reference(identity=(_, Name(full=str(kind)), str(key), _, int(count), *_)),
                    int(offset),
                    tuple(size),
                    tuple(stride),
                    *_,
                ),
            ) if function == _TENSOR and kind in _DTYPES and count >= 0 and _are_numbers(*size, *stride):
                return cls(key, _DTYPES[kind], count, offset, size, stride)
        raise ValueError("it holds something other than tensors")

    def array(self, numbers: NDArray[Any]) -> NDArray[Any]:
        last = self.offset + sum((length - 1) * step for length, step in zip(self.size, self.stride, strict=True))
        outside = min(self.offset, *self.size, *self.stride, 0) < 0 or last >= len(numbers)
        if outside or math.prod(self.size) > len(numbers):
            raise ValueError("a tensor lies outside of its storage")
        strides = [step * numbers.itemsize for step in self.stride]
        return np.lib.stride_tricks.as_strided(numbers[self.offset :], self.size, strides, writeable=False).copy()
