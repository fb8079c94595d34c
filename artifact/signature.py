"""Read the shapes of a SavedModel's signature without TensorFlow.

``saved_model.pb`` is a protocol buffer. Only five nested fields are wanted, so this walks the wire format
(https://protobuf.dev/programming-guides/encoding/) along the path that ``saved_model.proto``, ``meta_graph.proto`` and
``tensor_shape.proto`` of TensorFlow define:

    SavedModel.meta_graphs(2) > MetaGraphDef.signature_def(5) > SignatureDef.inputs(1) | outputs(2)
    > TensorInfo.tensor_shape(3) > TensorShapeProto.dim(2) > Dim.size(1)
"""

from collections.abc import Iterator

Shapes = dict[str, tuple[int, ...]]

_VARINT, _FIXED64, _BYTES, _FIXED32 = 0, 1, 2, 5


def signature_shapes(saved_model: bytes, signature: str) -> tuple[Shapes, Shapes] | None:
    """Return the shapes of a signature's inputs and outputs by name, -1 for a dimension that is free.

    Returns None where ``saved_model``, the content of a ``saved_model.pb``, has no such signature.

    Raises:
        ValueError: the bytes are not a protocol buffer.
    """
    for graph in _messages(saved_model, 2):
        for entry in _messages(graph, 5):
            if _text(entry, 1) == signature:
                definition = b"".join(_messages(entry, 2))
                return _shapes(definition, 1), _shapes(definition, 2)
    return None


def _shapes(definition: bytes, field: int) -> Shapes:
    shapes = {}
    for entry in _messages(definition, field):
        info = b"".join(_messages(entry, 2))
        shape = b"".join(_messages(info, 3))
        shapes[_text(entry, 1)] = tuple(_size(dimension) for dimension in _messages(shape, 2))
    return shapes


def _size(dimension: bytes) -> int:
    for number, value in _fields(dimension):
        if number == 1 and isinstance(value, int):
            return value - (1 << 64) if value >> 63 else value  # int64 travels as its two's complement
    return 0


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
