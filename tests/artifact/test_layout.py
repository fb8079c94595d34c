"""Where versions lie."""

from pathlib import Path

from artifact import latest, models_in, passed_over, version_path, versions
from tests.users import as_nobody


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


def test_what_is_passed_over_is_told(tmp_path: Path) -> None:
    """What looks like a version and is none is named with the reason; files and what is hidden are not."""
    folder = tmp_path / "m"
    for name in ("1", "v3", "00000123", ".draft-1", "0"):
        (folder / name).mkdir(parents=True)
    (folder / "current").symlink_to("v3")
    (folder / "7").symlink_to("nowhere")
    (folder / "8").symlink_to("8")
    (folder / "README.md").touch()
    assert versions(tmp_path, "m") == [1]
    assert passed_over(tmp_path, "m") == {
        "0": "leading zeros",
        "00000123": "leading zeros",
        "7": "no folder",
        "8": "no folder",
        "current": "no whole number",
        "v3": "no whole number",
    }
    assert passed_over(tmp_path, "absent") == {}


def test_models_are_the_folders_with_versions(tmp_path: Path) -> None:
    """Hidden folders, files, empty folders, links to nowhere and what may not be read are no models."""
    for name in ("a/1", "b/3", ".cache/1", ".snapshot/a/1", "empty", "drafts/.draft-1", "lost+found/1"):
        (tmp_path / name).mkdir(parents=True)
    (tmp_path / "file").touch()
    (tmp_path / "gone").symlink_to("nowhere")
    (tmp_path / "self").symlink_to("self")
    (tmp_path / "lost+found").chmod(0)
    tmp_path.chmod(0o755)
    with as_nobody(tmp_path):
        assert models_in(tmp_path) == ["a", "b"]
    assert models_in(tmp_path / "nowhere") == []
