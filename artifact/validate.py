"""Check a model version before it is trusted: its files, its metadata, and that the two belong together."""

import os
from collections.abc import Iterator
from pathlib import Path, PurePosixPath

from artifact.errors import InvalidVersion
from artifact.files import MOST_BYTES, MOST_FILES, fingerprint, read_regular, sha256
from artifact.layout import INT8_MODEL, INT8_WEIGHTS, METADATA, SAVED_MODEL
from artifact.metadata import Metadata, read_metadata
from artifact.signature import Shape, signature_shapes

SIGNATURE = "serving_default"
INPUT = "images"
OUTPUT = "probabilities"
FAMILIARITY = "familiarity"
EMBEDDING = "embedding"

MOST_GRAPH = 2 * 1024**3 - 1  # bytes of a saved_model.pb: no protocol buffer can have more


def validate(path: Path) -> Metadata:
    """Check the model version in folder ``path`` and return its metadata.

    Raises:
        InvalidVersion: ``saved_model.pb``, the metadata or the int8 network that it tells of is missing, a file is
            absent, is no regular file or differs from its sha256, there are more files or bytes than a version can
            have, the labels, the input size or the threshold do not match the model's signature, or it has an
            embedding that is no row of numbers for each picture. The message names the first fault.
    """
    if not path.is_dir():
        raise InvalidVersion(path, "there is no such folder")
    _check_entries(path)
    if not (path / SAVED_MODEL).exists():
        raise InvalidVersion(path, f"{SAVED_MODEL} is missing")
    metadata = read_metadata(path)
    _check_files(path, metadata)
    _check_signature(path, metadata)
    return metadata


def _check_entries(path: Path) -> None:
    """Refuse what an engine could stumble over, whether or not the metadata names it."""
    entries = fingerprint(path)
    if len(entries) > MOST_FILES:
        raise InvalidVersion(path, f"it has more than {MOST_FILES:,} files")
    for entry in entries:
        if entry.strange:
            raise InvalidVersion(path, f"{os.path.relpath(entry.name, path)} is no regular file")


def checksums(path: Path) -> dict[str, str]:
    """Return the sha256 of every file below ``path`` but the metadata, by its path with forward slashes."""
    return {name: sha256(path / name)[0] for name in sorted(_file_names(path)) if name != METADATA}


def _file_names(path: Path) -> Iterator[str]:
    return (entry.relative_to(path).as_posix() for entry in path.rglob("*") if entry.is_file())


def _check_files(path: Path, metadata: Metadata) -> None:
    for name in (SAVED_MODEL, *((INT8_MODEL, INT8_WEIGHTS) if metadata.int8 else ())):
        if name not in metadata.files:
            raise InvalidVersion(path, f"{METADATA} has no sha256 for {name}")
    left = MOST_BYTES
    for name, expected in metadata.files.items():
        # A link may lead anywhere, as to the blobs of a cache: what it leads to has the sha256. A name may not.
        if PurePosixPath(name).is_absolute() or ".." in PurePosixPath(name).parts:
            raise InvalidVersion(path, f"{METADATA} names {name}, which lies outside the version")
        found, size = _sha256(path, name, left)
        left -= size
        if found != expected:
            raise InvalidVersion(path, f"{name} differs from its sha256 in {METADATA}: it was changed or cut short")


def _sha256(path: Path, name: str, most: int) -> tuple[str, int]:
    try:
        return sha256(path / name, most)
    except FileNotFoundError as error:
        raise InvalidVersion(path, f"{name} is missing") from error
    except OSError as error:
        raise InvalidVersion(path, f"{name} cannot be read ({error.strerror})") from error
    except ValueError as error:
        raise InvalidVersion(path, f"{METADATA} names {name!r}, which no file can be called ({error})") from error


def _check_signature(path: Path, metadata: Metadata) -> None:
    try:
        shapes = signature_shapes(read_regular(path / SAVED_MODEL, MOST_GRAPH), SIGNATURE)
    except OSError as error:
        raise InvalidVersion(path, f"{SAVED_MODEL} cannot be read ({error.strerror})") from error
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
