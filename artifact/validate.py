"""Check a model version before it is trusted: its files, its metadata, and that the two belong together."""

import hashlib
from collections.abc import Iterator
from pathlib import Path

from artifact.errors import InvalidVersion
from artifact.layout import INT8_MODEL, INT8_WEIGHTS, METADATA, SAVED_MODEL
from artifact.metadata import Metadata, read_metadata
from artifact.signature import Shape, signature_shapes

SIGNATURE = "serving_default"
INPUT = "images"
OUTPUT = "probabilities"
FAMILIARITY = "familiarity"
EMBEDDING = "embedding"


def validate(path: Path) -> Metadata:
    """Check the model version in folder ``path`` and return its metadata.

    Raises:
        InvalidVersion: ``saved_model.pb``, the metadata or the int8 network that it tells of is missing, a file is
            absent or differs from its sha256, the labels, the input size or the threshold do not match the model's
            signature, or it has an embedding that is no row of numbers for each picture. The message names the first
            fault.
    """
    if not path.is_dir():
        raise InvalidVersion(path, "there is no such folder")
    if not (path / SAVED_MODEL).is_file():
        raise InvalidVersion(path, f"{SAVED_MODEL} is missing")
    metadata = read_metadata(path)
    _check_files(path, metadata)
    _check_signature(path, metadata)
    return metadata


def checksums(path: Path) -> dict[str, str]:
    """Return the sha256 of every file below ``path`` but the metadata, by its path with forward slashes."""
    return {name: _sha256(path / name) for name in sorted(_file_names(path)) if name != METADATA}


def _file_names(path: Path) -> Iterator[str]:
    return (entry.relative_to(path).as_posix() for entry in path.rglob("*") if entry.is_file())


def _sha256(file: Path) -> str:
    with file.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def _check_files(path: Path, metadata: Metadata) -> None:
    for name in (SAVED_MODEL, *((INT8_MODEL, INT8_WEIGHTS) if metadata.int8 else ())):
        if name not in metadata.files:
            raise InvalidVersion(path, f"{METADATA} has no sha256 for {name}")
    root = path.resolve()
    for name, expected in metadata.files.items():
        file = path / name
        if not file.resolve().is_relative_to(root):
            raise InvalidVersion(path, f"{METADATA} names {name}, which lies outside the version")
        if not file.is_file():
            raise InvalidVersion(path, f"{name} is missing")
        try:
            found = _sha256(file)
        except OSError as error:
            raise InvalidVersion(path, f"{name} cannot be read ({error.strerror})") from error
        if found != expected:
            raise InvalidVersion(path, f"{name} differs from its sha256 in {METADATA}: it was changed or cut short")


def _check_signature(path: Path, metadata: Metadata) -> None:
    try:
        shapes = signature_shapes((path / SAVED_MODEL).read_bytes(), SIGNATURE)
    except ValueError as error:
        raise InvalidVersion(path, f"{SAVED_MODEL} is not a SavedModel ({error})") from error
    if shapes is None:
        raise InvalidVersion(path, f"{SAVED_MODEL} has no signature {SIGNATURE}")
    inputs, outputs = shapes
    if OUTPUT not in outputs or INPUT not in inputs:
        raise InvalidVersion(path, f"signature {SIGNATURE} must take {INPUT} and return {OUTPUT}")
    width = outputs[OUTPUT][-1] if outputs[OUTPUT] else 0
    if width != len(metadata.labels):
        raise InvalidVersion(path, f"{METADATA} has {len(metadata.labels)} labels, but the model has {width} outputs")
    size = (metadata.input.height, metadata.input.width, 3)
    if metadata.familiarity is not None and len(outputs.get(FAMILIARITY, ())) != 1:
        raise InvalidVersion(
            path, f"{METADATA} has a threshold, but the model does not return {FAMILIARITY}, a number each"
        )
    if EMBEDDING in outputs and not _is_a_row_each(outputs[EMBEDDING]):
        raise InvalidVersion(
            path, f"the output {EMBEDDING} is {outputs[EMBEDDING]}, but it must have a row for each picture, [N, D]"
        )
    if inputs[INPUT][1:] != size:
        raise InvalidVersion(path, f"{METADATA} says the input is {size}, but the model takes {inputs[INPUT][1:]}")


def _is_a_row_each(shape: Shape) -> bool:
    return len(shape) == 2 and shape[1] > 0
