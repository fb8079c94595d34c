"""Publishing: whole or not at all, and never over another version."""

import os
import threading
from pathlib import Path

import pytest

from artifact import InvalidVersion, Metadata, draft, validate, versions
from tests.artifact.conftest import fill


def test_a_published_version_is_valid_and_numbered(models: Path, record: Metadata) -> None:
    """The first version is 1, the next 2, and metadata carries the number."""
    for expected in (1, 2):
        with draft(models, "colours") as new:
            fill(new)
            path = new.publish(record)
        assert path == models / "colours" / str(expected)
        assert validate(path).version == expected


def test_an_exception_leaves_nothing(models: Path) -> None:
    """What was half written is removed, the model's new folder too."""

    def fail() -> None:
        with draft(models, "colours") as new:
            fill(new)
            raise KeyError

    with pytest.raises(KeyError):
        fail()
    assert list(models.iterdir()) == []


def test_an_invalid_draft_is_not_published(models: Path, record: Metadata) -> None:
    """A model with four outputs and three labels stays out, and nothing is left of it."""

    def publish() -> None:
        with draft(models, "colours") as new:
            fill(new, outputs=4)
            new.publish(record)

    with pytest.raises(InvalidVersion, match="3 labels, but the model has 4 outputs"):
        publish()
    assert list(models.iterdir()) == []


def test_a_reader_never_sees_a_draft(models: Path, record: Metadata) -> None:
    """While a version is being written, no folder with an integer name exists."""
    with draft(models, "colours") as new:
        fill(new)
        assert versions(models, "colours") == []
        new.publish(record)
    assert [entry.name for entry in (models / "colours").iterdir()] == ["1"]


def test_trainers_at_the_same_time_get_versions_of_their_own(models: Path, record: Metadata) -> None:
    """Eight publishers that start together end with eight whole versions."""
    start = threading.Barrier(8)

    def publish() -> None:
        with draft(models, "colours") as new:
            fill(new)
            start.wait()
            new.publish(record)

    threads = [threading.Thread(target=publish) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert versions(models, "colours") == list(range(1, 9))
    for number in range(1, 9):
        assert validate(models / "colours" / str(number)).version == number


def test_another_user_can_read_a_version(version: Path) -> None:
    """The service runs as another user than the trainer, so folders and files are readable by all."""
    assert version.stat().st_mode & 0o777 == 0o755
    assert (version / "saved_model.pb").stat().st_mode & 0o777 == 0o644


def test_a_killed_trainers_draft_is_removed_a_day_later(models: Path, record: Metadata) -> None:
    """An old draft goes with the next publishing; a recent one may still be in use and stays."""
    folder = models / "colours"
    for name, modified in ((".draft-old", 0), (".draft-recent", None)):
        (folder / name).mkdir(parents=True)
        os.utime(folder / name, None if modified is None else (modified, modified))
    with draft(models, "colours") as new:
        fill(new)
        new.publish(record)
    assert sorted(entry.name for entry in folder.iterdir()) == [".draft-recent", "1"]


def test_a_link_to_nowhere_takes_its_number(models: Path, record: Metadata) -> None:
    """It may lead to a version on a disk that is not there now: it stays, and the next number is taken."""
    (models / "colours").mkdir(parents=True)
    (models / "colours" / "1").symlink_to("nowhere")
    with draft(models, "colours") as new:
        fill(new)
        assert new.publish(record) == models / "colours" / "2"
    assert (models / "colours" / "1").is_symlink()


def test_a_trainer_that_fails_takes_no_folder_from_another(
    models: Path, record: Metadata, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The empty folder of a model may go just before a draft is made in it; then it is made again."""
    mkdir = Path.mkdir
    taken: list[Path] = []

    def mkdir_late(path: Path, *arguments: int, **options: int) -> None:
        if path.name.startswith(".draft-") and not taken:
            taken.append(path.parent)
            path.parent.rmdir()
        mkdir(path, *arguments, **options)  # type: ignore[arg-type]

    monkeypatch.setattr(Path, "mkdir", mkdir_late)
    with draft(models, "colours") as new:
        fill(new)
        new.publish(record)
    assert taken == [models / "colours"]
    assert versions(models, "colours") == [1]


def test_all_of_a_version_is_on_the_disk_before_it_has_its_name(
    models: Path, record: Metadata, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Every file and folder is synced, then it is renamed, then its folder; folders that are new have been, too."""
    synced: list[str] = []
    fsync, rename = os.fsync, Path.rename

    def note_fsync(descriptor: int) -> None:
        synced.append(str(Path(f"/proc/self/fd/{descriptor}").readlink()))
        fsync(descriptor)

    def note_rename(path: Path, target: Path) -> Path:
        wanted = {str(path), *(str(entry) for entry in path.rglob("*"))}
        assert wanted <= set(synced)
        synced.clear()
        return rename(path, target)

    monkeypatch.setattr(os, "fsync", note_fsync)
    monkeypatch.setattr(Path, "rename", note_rename)
    with draft(models, "colours") as new:
        assert {str(models), str(models.parent)} <= set(synced)
        fill(new)
        new.publish(record)
    assert synced == [str(models / "colours")]
