"""Read the signatures of a SavedModel without TensorFlow.

``saved_model.pb`` is a protocol buffer. Only a few nested fields are wanted, so this walks the wire format
(https://protobuf.dev/programming-guides/encoding/) along the path that ``saved_model.proto``, ``meta_graph.proto`` and
``tensor_shape.proto`` of TensorFlow define:

    SavedModel.meta_graphs(2) > MetaGraphDef.signature_def(5)
    > SignatureDef.inputs(1) | outputs(2) > TensorInfo.name(1) | dtype(2) | tensor_shape(3)
    > TensorShapeProto.dim(2) > Dim.size(1), TensorShapeProto.unknown_rank(3)
    > SignatureDef.method_name(3)
"""

from collections.abc import Iterator
from typing import NamedTuple

Shape = tuple[int, ...]
Shapes = dict[str, Shape]

_VARINT, _FIXED64, _BYTES, _FIXED32 = 0, 1, 2, 5

# The names of TensorFlow's DataType by their numbers; of the others, a classifier has none.
_DTYPES = {
    0: "DT_INVALID",
    1: "DT_FLOAT",
    2: "DT_DOUBLE",
    3: "DT_INT32",
    4: "DT_UINT8",
    5: "DT_INT16",
    6: "DT_INT8",
    7: "DT_STRING",
    9: "DT_INT64",
    10: "DT_BOOL",
    14: "DT_BFLOAT16",
    19: "DT_HALF",
}


class Tensor(NamedTuple):
    """One input or output: its name in the graph, its type such as ``DT_FLOAT``, and its shape.

    A dimension that is free is -1; the shape is None where not even the rank is known.
    """

    name: str
    dtype: str
    shape: Shape | None


class Signature(NamedTuple):
    """What a signature takes and gives, by the names that its callers use, and its kind."""

    inputs: dict[str, Tensor]
    outputs: dict[str, Tensor]
    method: str


def signatures(saved_model: bytes) -> dict[str, Signature]:
    """Return the signatures in ``saved_model``, the content of a ``saved_model.pb``, by their names.

    Raises:
        ValueError: the bytes are not a protocol buffer.
    """
    found = {}
    for graph in _messages(saved_model, 2):
        for entry in _messages(graph, 5):
            definition = b"".join(_messages(entry, 2))
            found[_text(entry, 1)] = Signature(
                _tensors(definition, 1), _tensors(definition, 2), method=_text(definition, 3)
            )
    return found


def signature_shapes(saved_model: bytes, signature: str) -> tuple[Shapes, Shapes] | None:
    """Return the shapes of a signature's inputs and outputs by name, -1 for a dimension that is free.

    Returns None where ``saved_model``, the content of a ``saved_model.pb``, has no such signature.

    Raises:
        ValueError: the bytes are not a protocol buffer.
    """
    found = signatures(saved_model).get(signature)
    return (_shapes(found.inputs), _shapes(found.outputs)) if found else None


def _shapes(tensors: dict[str, Tensor]) -> Shapes:
    return {name: tensor.shape or () for name, tensor in tensors.items()}


def _tensors(definition: bytes, field: int) -> dict[str, Tensor]:
    tensors = {}
    for entry in _messages(definition, field):
        info = b"".join(_messages(entry, 2))
        dtype = _DTYPES.get(_integer(info, 2), "DT_INVALID")
        tensors[_text(entry, 1)] = Tensor(_text(info, 1), dtype, _shape(info))
    return tensors


def _shape(info: bytes) -> Shape | None:
    shape = b"".join(_messages(info, 3))
    if _integer(shape, 3):
        return None
    return tuple(_signed(_integer(dimension, 1)) for dimension in _messages(shape, 2))


def _signed(value: int) -> int:
    return value - (1 << 64) if value >> 63 else value  # int64 travels as its two's complement


def _integer(message: bytes, field: int) -> int:
    return next((value for number, value in _fields(message) if number == field and isinstance(value, int)), 0)


def _text(message: bytes, field: int) -> str:
    return b"".join(_messages(message, field)).decode()


def _messages(message: bytes, field: int) -> Iterator[bytes]:
    return (value for number, value in _fields(message) if number == field and isinstance(value, bytes))


def _fields(message: bytes) -> Iterator[tuple[int, int | bytes]]:
    position = 0
    while position < len(message):
        key, position = _varint(message, position)
        kind = key & 7
        if kind == _VARINT:
            value, position = _varint(message, position)
            yield key >> 3, value
            continue
        if kind == _BYTES:
            length, position = _varint(message, position)
        elif kind in (_FIXED64, _FIXED32):
            length = 8 if kind == _FIXED64 else 4
        else:
            raise ValueError(f"unknown wire type {kind}")
        if position + length > len(message):
            raise ValueError("it ends in the middle of a field")
        yield key >> 3, message[position : position + length]
        position += length


def _varint(message: bytes, position: int) -> tuple[int, int]:
    value = 0
    for shift in range(0, 70, 7):
        if position >= len(message):
            raise ValueError("it ends in the middle of a number")
        byte = message[position]
        position += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value, position
    raise ValueError("a number is too long")
