"""Files of PyTorch's older format are read without it, and of one that holds anything else nothing is run."""

import io
import os
import pickle
import sys
import zipfile
from collections import OrderedDict
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest

from training.network.torch_file import read_tensors

MAGIC, VERSION = 0x1950A86A20F9469CFC6C, 1001
NUMBERS = np.arange(12, dtype="<f4")
COUNT = len(NUMBERS).to_bytes(8, "little")

Kind = type("FloatStorage", (), {"__module__": "torch"})
Rebuild = type("_rebuild_tensor_v2", (), {"__module__": "torch._utils"})


class Storage:
    """Is written as a storage is: by its key, since its numbers follow later."""

    def __init__(self, key: str = "0", count: int = len(NUMBERS)) -> None:
        self.identity = ("storage", Kind, key, "cpu", count, None)


class Call:
    """Is written as the call of a function, which a plain reader of pickles makes."""

    def __init__(self, function: Any, *arguments: object) -> None:
        self.call = function, arguments

    def __reduce__(self) -> tuple[Any, ...]:
        return self.call


class Writer(pickle.Pickler):
    def persistent_id(self, value: object) -> object:
        return value.identity if isinstance(value, Storage) else None


def tensor(offset: int, size: tuple[int, ...], stride: tuple[int, ...], storage: Storage) -> Call:
    return Call(Rebuild, storage, offset, size, stride, False, OrderedDict())


def content(tensors: object, keys: object = ("0",), numbers: bytes = COUNT + NUMBERS.tobytes()) -> bytes:
    """Return a file that holds ``tensors``, with PyTorch's names in it, as ``torch.save`` wrote it until 1.5."""
    stream = io.BytesIO()
    with pytest.MonkeyPatch.context() as patch:
        for kind in (Kind, Rebuild):
            module = ModuleType(kind.__module__)
            setattr(module, kind.__name__, kind)
            patch.setitem(sys.modules, kind.__module__, module)
        for part in (MAGIC, VERSION, {"little_endian": True}, tensors, list(keys) if isinstance(keys, tuple) else keys):
            Writer(stream, 2).dump(part)
    return stream.getvalue() + numbers


def test_tensors_are_read(tmp_path: Path) -> None:
    """Two tensors that share a storage have their numbers, shapes and order, whatever lies between those."""
    shared = Storage()
    file = tmp_path / "two.pth"
    whole, part = tensor(0, (3, 4), (4, 1), shared), tensor(1, (2, 3), (1, 4), shared)
    file.write_bytes(content(OrderedDict(whole=whole, part=part)))
    tensors = read_tensors(file)
    assert tensors.keys() == {"whole", "part"}
    np.testing.assert_array_equal(tensors["whole"], NUMBERS.reshape(3, 4))
    np.testing.assert_array_equal(tensors["part"], NUMBERS.reshape(3, 4).T[1:3])


def test_nothing_that_a_file_names_is_run(tmp_path: Path) -> None:
    """A call of os.system is refused, in whichever of the pickles it stands, and its command leaves no trace."""
    trace = tmp_path / "trace"
    call = Call(os.system, f"touch {trace}")
    file = tmp_path / "evil.pth"
    for evil in (pickle.dumps(call, 2), content(call), content({"a": call}), content({}, keys=call)):
        file.write_bytes(evil)
        with pytest.raises(ValueError, match=r"it holds (posix|nt)\.system"):
            read_tensors(file)
    assert not trace.exists()
    pickle.loads(pickle.dumps(call))  # noqa: S301 - that it would have been run
    assert trace.exists()


def test_a_file_that_is_cut_short_is_refused(tmp_path: Path) -> None:
    """Wherever a file ends too early, there are no tensors of it."""
    whole, file = content({"a": tensor(0, (12,), (1,), Storage())}), tmp_path / "short.pth"
    file.write_bytes(whole)
    assert read_tensors(file)["a"].shape == (12,)
    for length in range(len(whole)):
        file.write_bytes(whole[:length])
        with pytest.raises(ValueError, match=r"short\.pth cannot be read as tensors of PyTorch"):
            read_tensors(file)


def test_another_format_is_refused(tmp_path: Path) -> None:
    """The zip archive of newer releases, another pickle, a text and nothing at all are no such files."""
    archive = tmp_path / "newer.pth"
    with zipfile.ZipFile(archive, "w") as zipped:
        zipped.writestr("archive/data.pkl", pickle.dumps({}))
    others = [archive.read_bytes(), pickle.dumps({"a": 1}), b"weights\n", b""]
    for other in others:
        archive.write_bytes(other)
        with pytest.raises(ValueError, match="cannot be read as tensors of PyTorch"):
            read_tensors(archive)


@pytest.mark.parametrize(
    "file",
    [
        content({"a": tensor(0, (13,), (1,), Storage())}),
        content({"a": tensor(1, (3, 4), (4, 1), Storage())}),
        content({"a": tensor(-1, (3,), (1,), Storage())}),
        content({"a": tensor(11, (3,), (-1,), Storage())}),
        content({"a": tensor(0, (2**50,), (0,), Storage())}),
        content({"a": tensor(0, (2**33,), (0,), Storage())}),
        content({"a": tensor(0, (12,), (1,), Storage())}, keys=()),
        content({"a": tensor(0, (12,), (1,), Storage())}, keys=("1",)),
        content({"a": tensor(0, (2**50,), (1,), Storage(count=2**50))}, numbers=(2**50).to_bytes(8, "little")),
        content({"a": 1}),
        content([tensor(0, (12,), (1,), Storage())]),
    ],
    ids=[
        "long",
        "offset",
        "before",
        "backward",
        "endless",
        "repeated",
        "no key",
        "other key",
        "huge",
        "number",
        "list",
    ],
)
def test_what_is_no_tensor_within_its_storage_is_refused(file: bytes, tmp_path: Path) -> None:
    """No tensor reaches outside of the numbers that the file has for it, whatever size it claims."""
    (tmp_path / "wrong.pth").write_bytes(file)
    with pytest.raises(ValueError, match="cannot be read as tensors of PyTorch"):
        read_tensors(tmp_path / "wrong.pth")


def test_no_state_is_set(tmp_path: Path) -> None:
    """What the file says of a storage, a dtype or a tensor after it was made changes none of them."""
    whole, file = content({"a": tensor(0, (12,), (1,), Storage())}), tmp_path / "state.pth"
    kind = b"ctorch\nFloatStorage\n"
    assert whole.count(kind) == 1
    file.write_bytes(whole.replace(kind, kind + b"(K\x03U\x01|NNNK\x08K\x01K?tb"))
    with pytest.raises(ValueError, match="it uses a Name as a call"):
        read_tensors(file)
    identity = whole.index(b"Q", whole.index(kind)) + 1
    file.write_bytes(whole[:identity] + b"}(U\x07numbersU\x01AU\x05dtypeU\x01Oub" + whole[identity:])
    with pytest.raises(ValueError, match="it uses a Reference as a call"):
        read_tensors(file)
