"""Where versions lie."""

from pathlib import Path

from artifact import latest, version_path, versions


def test_versions_are_the_integer_folders_in_numeric_order(tmp_path: Path) -> None:
    """As in TensorFlow Serving, 10 follows 9, and what is not a positive integer folder is no version."""
    for name in ("10", "9", "1", "0", "01", "-3", "x", ".draft-1", "٣"):
        (tmp_path / "m" / name).mkdir(parents=True)
    (tmp_path / "m" / "11").write_text("a file, not a folder")
    assert versions(tmp_path, "m") == [1, 9, 10]
    assert latest(tmp_path, "m") == 10


def test_a_model_without_versions_has_no_latest(tmp_path: Path) -> None:
    """A folder that is missing is no error: the service may start before the first training ends."""
    assert versions(tmp_path, "absent") == []
    assert latest(tmp_path, "absent") is None


def test_version_path_follows_the_layout(tmp_path: Path) -> None:
    """A version lies at <models>/<name>/<version>."""
    assert version_path(tmp_path, "m", 3) == tmp_path / "m" / "3"
