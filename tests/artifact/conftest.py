"""A version on disk that needs no TensorFlow to make: its ``saved_model.pb`` is encoded here, field by field."""

from pathlib import Path

import pytest

from artifact import Draft, Metadata, draft
from tests.models import LABELS, SIDE, metadata


def field(number: int, value: bytes | str | int) -> bytes:
    """Encode one field of a protocol buffer."""
    if isinstance(value, int):
        return varint(number << 3) + varint(value % (1 << 64))
    content = value.encode() if isinstance(value, str) else value
    return varint(number << 3 | 2) + varint(len(content)) + content


def varint(value: int) -> bytes:
    """Encode an unsigned number, seven bits a byte."""
    encoded = b""
    while value >= 0x80:
        encoded += bytes([value & 0x7F | 0x80])
        value >>= 7
    return encoded + bytes([value])


def saved_model(
    outputs: int = len(LABELS),
    side: int = SIDE,
    signature: str = "serving_default",
    *,
    familiarity: bool = False,
    embedding: tuple[int, ...] | None = None,
) -> bytes:
    """Encode the part of a SavedModel that the contract reads, among fields that it does not."""

    def tensor(name: str, *shape: int) -> bytes:
        dimensions = b"".join(field(2, field(1, size)) for size in shape)
        return field(1, name) + field(2, field(1, "tensor:0") + field(2, 4) + field(3, dimensions))

    definition = field(1, tensor("images", -1, side, side, 3)) + field(2, tensor("probabilities", -1, outputs))
    if familiarity:
        definition += field(2, tensor("familiarity", -1))
    if embedding is not None:
        definition += field(2, tensor("embedding", *embedding))
    graph = field(1, b"meta") + field(5, field(1, signature) + field(2, definition))
    return field(1, 1) + field(2, graph)


def fill(version: Draft, outputs: int = len(LABELS)) -> None:
    """Write the files of a small version."""
    (version.path / "saved_model.pb").write_bytes(saved_model(outputs))
    (version.path / "variables").mkdir()
    (version.path / "variables" / "variables.index").write_bytes(b"weights")


@pytest.fixture
def record() -> Metadata:
    """Return metadata that fits the small version."""
    return metadata("colours")


@pytest.fixture
def models(tmp_path: Path) -> Path:
    """Return an empty model folder."""
    return tmp_path / "models"


@pytest.fixture
def version(models: Path, record: Metadata) -> Path:
    """Return a published version."""
    with draft(models, "colours") as new:
        fill(new)
        return new.publish(record)
