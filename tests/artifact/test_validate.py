"""Validation names the first thing that is wrong."""

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from artifact import InvalidVersion, validate
from artifact.files import MOST_FILES
from artifact.layout import METADATA
from artifact.validate import checksums
from tests.artifact.conftest import saved_model

INT8 = {
    "measured_on": "made-up validation",
    "images": 200,
    "accuracy": 0.99,
    "float32_accuracy": 1.0,
    "calibration_images": 100,
}


FAMILIARITY = {"threshold": 1.5, "share": 0.95, "measured_on": "made-up validation", "images": 200}


def edit(version: Path, change: Callable[[dict[str, Any]], Any]) -> None:
    """Change the metadata of a version in place."""
    record = json.loads((version / METADATA).read_text())
    change(record)
    (version / METADATA).write_text(json.dumps(record))


def replace(file: Path, make: Callable[[Path], object]) -> None:
    """Put something else in the place of ``file``."""
    file.unlink()
    make(file)


def test_a_good_version_is_valid(version: Path) -> None:
    """What was published reads back with its labels."""
    assert validate(version).labels == ("red", "green", "blue")


@pytest.mark.parametrize(
    ("change", "fault"),
    [
        (lambda path: (path / "saved_model.pb").unlink(), "saved_model.pb is missing"),
        (lambda path: (path / METADATA).unlink(), "metadata.json is missing"),
        (lambda path: (path / METADATA).write_text("{"), "is not JSON"),
        (lambda path: (path / METADATA).write_text("[]"), "is not a JSON object"),
        (lambda path: edit(path, lambda record: record.update(schema_version=99)), "has schema version 99"),
        (lambda path: edit(path, lambda record: record.pop("labels")), "does not have the expected fields"),
        (lambda path: edit(path, lambda record: record.update(colour=1)), "does not have the expected fields"),
        (lambda path: edit(path, lambda record: record.update(labels=[])), "there must be labels"),
        (lambda path: edit(path, lambda record: record.update(labels=["a", "a", "b"])), "must differ"),
        (lambda path: edit(path, lambda record: record.update(labels=["a", "b"])), "2 labels, but the model has 3"),
        (lambda path: edit(path, lambda record: record["input"].update(height=0)), "input size must be positive"),
        (lambda path: edit(path, lambda record: record["input"].update(resize="melt")), "input.resize must be one of"),
        (lambda path: edit(path, lambda record: record["input"].update(height=64)), "the model takes"),
        (lambda path: edit(path, lambda record: record["files"].pop("saved_model.pb")), "has no sha256 for saved"),
        (
            lambda path: edit(path, lambda record: record.update(int8=INT8)),
            "has no sha256 for assets.extra/int8/model.xml",
        ),
        (lambda path: edit(path, lambda record: record.update(int8={})), "does not have the expected fields"),
        (
            lambda path: edit(path, lambda record: record.update(familiarity=FAMILIARITY)),
            "has a threshold, but the model does not return familiarity",
        ),
        (
            lambda path: edit(path, lambda record: record.update(familiarity={**FAMILIARITY, "threshold": None})),
            "familiarity.threshold must be a number",
        ),
        (lambda path: edit(path, lambda record: record.update(calibration={})), "does not have the expected fields"),
        (lambda path: edit(path, lambda record: record["files"].update({"../../x": "0"})), "outside the version"),
        (lambda path: edit(path, lambda record: record["files"].update({"/etc/passwd": "0"})), "outside the version"),
        (lambda path: edit(path, lambda record: record["files"].update({"a\0b": "0"})), "no file can be called"),
        (lambda path: edit(path, lambda record: record["files"].update({"\ud800": "0"})), "no file can be called"),
        (lambda path: edit(path, lambda record: record["files"].update({"x" * 300: "0"})), "cannot be read"),
        (lambda path: edit(path, lambda record: record["files"].update({"variables": "0"})), "no regular file"),
        (lambda path: (path / METADATA).write_text("[" * 100_000), "is not JSON"),
        (lambda path: (path / METADATA).write_bytes(b"\xff"), "is not JSON"),
        (lambda path: os.truncate(path / METADATA, 1024**4), "metadata.json cannot be read .it has more than"),
        (lambda path: os.truncate(path / "saved_model.pb", 1024**4), "saved_model.pb cannot be read .it has more than"),
        (lambda path: replace(path / METADATA, os.mkfifo), "metadata.json is no regular file"),
        (lambda path: replace(path / "saved_model.pb", os.mkfifo), "saved_model.pb is no regular file"),
        (lambda path: replace(path / "variables/variables.index", os.mkfifo), "variables.index is no regular file"),
        (lambda path: os.mkfifo(path / "unnamed"), "unnamed is no regular file"),
        (lambda path: replace(path / METADATA, lambda file: file.symlink_to("/dev/zero")), "is no regular file"),
        (lambda path: replace(path / METADATA, lambda file: file.symlink_to("/")), "metadata.json cannot be read"),
        (lambda path: replace(path / METADATA, lambda file: file.symlink_to(file)), "metadata.json cannot be read"),
        (lambda path: replace(path / METADATA, lambda file: file.symlink_to("gone")), "metadata.json is missing"),
        (
            lambda path: replace(path / "variables/variables.index", lambda file: file.symlink_to("gone")),
            "variables.index is missing",
        ),
        (lambda path: (path / "variables/variables.index").unlink(), "variables.index is missing"),
        (lambda path: (path / "variables/variables.index").write_bytes(b"w"), "differs from its sha256"),
    ],
)
def test_each_fault_is_named(version: Path, change: Callable[[Path], object], fault: str) -> None:
    """A version with one thing wrong is refused with a message that says which."""
    change(version)
    with pytest.raises(InvalidVersion, match=fault):
        validate(version)


def test_a_threshold_needs_the_score(version: Path) -> None:
    """A version with a threshold is valid where its model returns the score; without one it may return it as well."""
    (version / "saved_model.pb").write_bytes(saved_model(familiarity=True))
    edit(version, lambda record: record.update(files=checksums(version)))
    assert validate(version).familiarity is None
    edit(version, lambda record: record.update(familiarity=FAMILIARITY))
    found = validate(version).familiarity
    assert found is not None
    assert found.threshold == 1.5


def test_an_embedding_may_be_there(version: Path) -> None:
    """A version is valid with a row of numbers for each picture as one more output."""
    (version / "saved_model.pb").write_bytes(saved_model(embedding=(-1, 1280)))
    edit(version, lambda record: record.update(files=checksums(version)))
    assert validate(version).labels == ("red", "green", "blue")


@pytest.mark.parametrize("shape", [(), (-1,), (-1, 7, 7, 1280), (-1, -1)])
def test_an_embedding_is_a_row_for_each_picture(version: Path, shape: tuple[int, ...]) -> None:
    """Of another rank, or of a width that nobody knows, it is refused with what it should be."""
    (version / "saved_model.pb").write_bytes(saved_model(embedding=shape))
    edit(version, lambda record: record.update(files=checksums(version)))
    with pytest.raises(
        InvalidVersion, match=r"the output embedding is \(.*\), but it must have a row for each picture"
    ):
        validate(version)


def test_files_may_be_links_to_elsewhere(version: Path, tmp_path: Path) -> None:
    """As in Hugging Face's cache: a file's sha256 holds for what its link leads to, wherever that lies."""
    blobs = tmp_path / "blobs"
    blobs.mkdir()
    for number, file in enumerate([file for file in version.rglob("*") if file.is_file()]):
        file.rename(blobs / str(number))
        file.symlink_to(os.path.relpath(blobs / str(number), file.parent))
    assert validate(version).labels == ("red", "green", "blue")
    index = version / "variables/variables.index"
    index.resolve().write_bytes(b"w")
    with pytest.raises(InvalidVersion, match=r"variables\.index differs from its sha256"):
        validate(version)


@pytest.mark.slow
def test_too_many_files_are_refused(version: Path) -> None:
    """A folder with more files than any version has is not gone through."""
    for number in range(MOST_FILES + 1):
        (version / str(number)).touch()
    with pytest.raises(InvalidVersion, match="it has more than 10,000 files"):
        validate(version)


def test_a_missing_folder_is_named(tmp_path: Path) -> None:
    """A path that does not exist is a clear error as well."""
    with pytest.raises(InvalidVersion, match="no such folder"):
        validate(tmp_path / "nowhere")


@pytest.mark.parametrize(
    ("content", "fault"),
    [
        (b"not a protocol buffer", "is not a SavedModel"),
        (saved_model()[:-4], "is not a SavedModel"),
        (b"", "has no signature serving_default"),
        (saved_model(signature="predict"), "has no signature serving_default"),
    ],
)
def test_a_file_that_is_no_model_is_named(version: Path, content: bytes, fault: str) -> None:
    """A saved_model.pb that matches its checksum and still is no such model is refused."""
    (version / "saved_model.pb").write_bytes(content)
    edit(version, lambda record: record.update(files=checksums(version)))
    with pytest.raises(InvalidVersion, match=fault):
        validate(version)
