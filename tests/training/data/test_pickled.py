"""A pickle is read as data: whatever it would build, call or fill memory with, nothing of that happens."""

import io
import pickle
import struct
import tracemalloc
from collections import OrderedDict
from typing import Any

import numpy as np
import pytest

from training.data.pickled import Call, Name, NoData, Reference, load

NUMPY = ("numpy._core.multiarray._reconstruct", "numpy.ndarray", "numpy.dtype")


def read(content: bytes, *names: str) -> Any:
    """Read the one pickle in ``content``."""
    return load(io.BytesIO(content), names)


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
def test_plain_values_come_out_as_they_went_in(protocol: int) -> None:
    """By every protocol, also where one value stands twice."""
    shared = ["twice"]
    value = {
        "text": "Émile", "numbers": [0, 1, -1, 255, 256, 2**31, -(2**40), 2**100, 0.5], "nothing": None,
        7: (True, False),
        "tuples": ((), (1,), (1, 2), (1, 2, 3), (1, 2, 3, 4)), "lists": [shared, shared, [], {}],
    }  # fmt: skip
    assert read(pickle.dumps(value, protocol)) == value


@pytest.mark.parametrize("protocol", [2, 3, 4, 5])
def test_bytes_are_bytes(protocol: int) -> None:
    """Protocol 2 has none, and writes them as the call of a codec."""
    assert read(pickle.dumps({b"\xff\x00": [b"some"]}, protocol)) == {b"\xff\x00": [b"some"]}


def test_the_text_of_python_2_is_bytes() -> None:
    """As it was written: a short and a long string, and one as its source has it."""
    assert read(b"(U\x02a\xffT\x02\x00\x00\x00b\xffS'c'\nt.") == (b"a\xff", b"b\xff", b"c")


def test_what_it_would_call_stays_a_call() -> None:
    """An array is its parts: the function, its arguments and the state that it would be given."""
    call = read(pickle.dumps(np.arange(6, dtype=np.uint8).reshape(2, 3), 4), *NUMPY)
    assert isinstance(call, Call)
    assert (call.function, call.arguments[0]) == (NUMPY[0], Name("numpy.ndarray"))
    version, shape, dtype, fortran, content = call.state
    assert (version, shape, fortran, content) == (1, (2, 3), False, bytes(range(6)))
    assert isinstance(dtype, Call)
    assert (dtype.function, dtype.arguments[0]) == ("numpy.dtype", "u1")
    ordered = read(pickle.dumps(OrderedDict(a=1), 2), "collections.OrderedDict")
    assert (ordered.function, ordered.items) == ("collections.OrderedDict", {"a": 1})
    assert read(b"\x80\x02U\x01aQ.") == Reference(b"a")


def test_several_pickles_follow_each_other() -> None:
    """Each call reads one, and leaves the stream behind it."""
    stream = io.BytesIO(pickle.dumps([1], 2) + pickle.dumps("two", 4) + b"rest")
    assert [load(stream, ()), load(stream, ()), stream.read()] == [[1], "two", b"rest"]


@pytest.mark.parametrize(
    ("content", "fault"),
    [
        pytest.param(pickle.dumps(print), "it holds builtins.print", id="a name"),
        pytest.param(b"cos\nsystem\n(U\x04trueR.", "it holds os.system", id="a call"),
        pytest.param(b"ios\nsystem\n(U\x04truet.", "it asks for INST", id="an instance"),
        pytest.param(b"\x80\x02cnumpy\ndtype\n)\x81.", "it asks for NEWOBJ", id="an object"),
        pytest.param(b"\x80\x02\x82\x01.", "it asks for EXT1", id="an extension"),
        pytest.param(b"Pname\n.", "it asks for PERSID", id="an old reference"),
        pytest.param(b"cnumpy\ndtype\n}b.", "it uses a Name as a call", id="the state of a class"),
        pytest.param(b"]}b.", "it uses a list as a call", id="the state of a list"),
        pytest.param(b"U\x01a(R.", "damaged", id="nothing to call"),
        pytest.param(b"U\x01a)R.", "it uses a bytes as a name", id="a call of bytes"),
        pytest.param(b"}(K\x01t}s.", "it has a tuple for a key", id="a tuple for a key"),
        pytest.param(b"c_codecs\nencode\n(X\x01\x00\x00\x00aX\x05\x00\x00\x00utf-8tR.", "Latin-1", id="a codec"),
        pytest.param(b"h\x05.", "damaged", id="what was never kept"),
        pytest.param(b"0.", "damaged", id="nothing to drop"),
        pytest.param(b"(K\x01K\x02.", "damaged", id="two values"),
        pytest.param(b"K\x01", "damaged", id="no end"),
        pytest.param(b"", "damaged", id="empty"),
        pytest.param(b"\xff\xfe.", "damaged", id="no pickle"),
        pytest.param(b"}(K\x01u.", "damaged", id="a key alone"),
        pytest.param(b"K\x01K\x02s.", "damaged", id="items of nothing"),
    ],
)
def test_what_is_no_data_is_refused(content: bytes, fault: str) -> None:
    """Names that are not expected, all that makes objects, and what no writer wrote."""
    with pytest.raises(NoData, match=fault):
        read(content, "numpy.dtype")


def _tuples_of_tuples() -> bytes:
    """Return a pickle of 2**60 tuples within each other, each kept once, as the key of a dictionary."""
    return b"\x80\x02}" + b")" + b"2\x86" * 60 + b"K\x01s."


@pytest.mark.parametrize(
    "content",
    [
        pytest.param(b"\x80\x04\x8e" + struct.pack("<Q", 2**40) + b"a.", id="bytes"),
        pytest.param(b"\x80\x04\x8d" + struct.pack("<Q", 2**40) + b"a.", id="text"),
        pytest.param(b"\x80\x05\x96" + struct.pack("<Q", 2**40) + b"a.", id="bytearray"),
        pytest.param(b"\x80\x02\x8b" + struct.pack("<i", 2**31 - 1) + b"\x01.", id="a number"),
        pytest.param(b"\x80\x02N" + b"r\xff\xff\xff\xff" + b"K\x01.", id="a place in the memo"),
        pytest.param(b"\x80\x02" + b"]" * 3_000_000 + b".", id="lists", marks=pytest.mark.slow),
        pytest.param(_tuples_of_tuples(), id="tuples"),
    ],
)
def test_what_claims_to_be_large_costs_little(content: bytes) -> None:
    """A few bytes, or some megabytes, that ask for terabytes or for ever are refused."""
    tracemalloc.start()
    try:
        with pytest.raises(NoData):
            read(content)
        assert tracemalloc.get_traced_memory()[1] < 200e6
    finally:
        tracemalloc.stop()
