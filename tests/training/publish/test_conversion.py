"""A converted file appears whole or not at all, and what is not installed is named."""

from pathlib import Path

import pytest

from training.errors import TrainingError
from training.publish.conversion import require, whole_file


def test_a_finished_file_takes_the_place_of_an_older_one(tmp_path: Path) -> None:
    """Until the block ends the older file is there, and then the new one alone."""
    path = tmp_path / "network.onnx"
    path.write_text("old")
    with whole_file(path) as draft:
        draft.write_text("new")
        assert path.read_text() == "old"
    assert path.read_text() == "new"
    assert list(tmp_path.iterdir()) == [path]


def test_a_failure_leaves_what_was_there(tmp_path: Path) -> None:
    """Where nothing was finished the draft is removed, and an older file stays."""
    path = tmp_path / "network.onnx"
    path.write_text("old")
    with pytest.raises(FileNotFoundError), whole_file(path) as draft:
        draft.with_name("half").write_text("half")  # and then the file itself is missing
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize(
    ("name", "message"),
    [(".", "is a folder; name a file"), ("missing/network.onnx", "cannot be written (No such file or directory)")],
)
def test_a_place_that_cannot_be_written_is_found_before_the_work(tmp_path: Path, name: str, message: str) -> None:
    """A folder in the file's place, and a folder that is not there, are told at once."""
    with pytest.raises(TrainingError) as caught, whole_file(tmp_path / name):
        pytest.fail("the block began")
    assert message in str(caught.value)


def test_what_is_missing_is_named_with_the_way_to_install_it() -> None:
    """One sentence has all that is missing, and the extra that brings it."""
    require(("json",), "this")
    with pytest.raises(TrainingError) as caught:
        require(("json", "absent_one", "absent_two"), "an export")
    assert str(caught.value) == "an export needs absent_one and absent_two: pip install 'darkroom[export]'"
