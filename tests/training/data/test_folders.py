"""Labels and files are found in any sensible layout, and what cannot be meant says what to change."""

import os
import unicodedata
from pathlib import Path

import pytest

from training.data.folders import Found, find
from training.errors import TrainingError


def make(folder: Path, *names: str) -> Path:
    """Make empty files below ``folder``; a name that ends in a slash is an empty folder."""
    for name in names:
        path = folder / name
        if name.endswith("/"):
            path.mkdir(parents=True)
        else:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.touch()
    return folder


def names(found: Found) -> list[str]:
    """Return the names of the files to train on, sorted."""
    return sorted(file.name for file in found.train)


def test_labels_are_the_folders_names(tmp_path: Path) -> None:
    """Sorted, and each file has that of its folder, also from folders within it."""
    found = find(make(tmp_path, "dog/1.jpg", "dog/2.PNG", "cat/old/persian/3.webp", "cat/4", "Émile/5.tif"))
    assert found.labels == ("cat", "dog", "Émile")
    assert names(found) == ["cat/4", "cat/old/persian/3.webp", "dog/1.jpg", "dog/2.PNG", "Émile/5.tif"]
    assert {file.label for file in found.train if file.name.startswith("cat/")} == {"cat"}
    assert (found.validation, found.test, found.notes) == (None, None, ())


def test_what_systems_leave_behind_is_passed_over(tmp_path: Path) -> None:
    """Hidden files and folders and those of macOS, Windows and file systems are no class and no picture."""
    make(tmp_path, ".git/x.jpg", "__MACOSX/cat/1.jpg", "lost+found/", "cat/.hidden.jpg", "cat/.cache/1.jpg")
    make(tmp_path, "cat/Thumbs.db", "cat/__MACOSX/1.jpg", "cat/1.jpg", "dog/1.jpg", ".DS_Store")
    found = find(tmp_path)
    assert names(found) == ["cat/1.jpg", "dog/1.jpg"]
    assert found.notes == ()


def test_other_files_are_passed_over_and_told(tmp_path: Path) -> None:
    """Files that are not pictures by their suffix, and pictures of no class, are counted in a sentence each."""
    found = find(make(tmp_path, "cat/1.jpg", "cat/1.xml", "cat/notes.txt", "dog/2.xml", "dog/1.jpg", "cover.jpg"))
    assert names(found) == ["cat/1.jpg", "dog/1.jpg"]
    assert found.notes == (
        "Passed over files that are not pictures: 3 (.xml, .txt).",
        f"Passed over pictures that lie in {tmp_path} itself and so have no class: 1.",
    )


@pytest.mark.parametrize("validation", ["val", "valid", "validation", "Val"])
def test_splits_that_are_given_are_kept(tmp_path: Path, validation: str) -> None:
    """Below train/, val/ by any of its names, and test/ lie the classes; a split may lack one of them."""
    make(tmp_path, "train/cat/1.jpg", "train/dog/1.jpg", f"{validation}/cat/2.jpg", "test/dog/3.jpg", "extra/a/4.jpg")
    found = find(tmp_path)
    assert found.labels == ("cat", "dog")
    assert names(found) == ["cat/1.jpg", "dog/1.jpg"]
    assert [file.name for file in found.validation or []] == ["cat/2.jpg"]
    assert [file.name for file in found.test or []] == ["dog/3.jpg"]
    assert found.notes == ("Passed over what lies beside train/: extra.",)


def test_a_class_may_be_called_train(tmp_path: Path) -> None:
    """Beside other classes, a folder of that name that holds pictures is one of them."""
    assert find(make(tmp_path, "train/1.jpg", "test/1.jpg", "plane/1.jpg")).labels == ("plane", "test", "train")


def test_spellings_of_one_name_in_unicode_are_one_class(tmp_path: Path) -> None:
    """macOS writes é as two characters: such a folder has the label, and its files the names, of all other systems."""
    composed, decomposed = (unicodedata.normalize(form, "café/1.jpg") for form in ("NFC", "NFD"))
    assert composed != decomposed
    one = find(make(tmp_path / "one", composed, "tea/1.jpg"))
    other = find(make(tmp_path / "other", decomposed, "tea/1.jpg"))
    assert one.labels == other.labels == (unicodedata.normalize("NFC", "café"), "tea")
    assert names(one) == names(other)
    both = find(make(tmp_path / "both", composed, decomposed.replace("1", "2"), "tea/1.jpg"))
    assert both.labels == one.labels
    assert len(both.train) == 3


def test_links_are_followed_and_loops_end(tmp_path: Path) -> None:
    """A link to a folder counts as that folder; one that leads back is not followed again, a broken one is kept."""
    make(tmp_path, "store/1.jpg", "data/cat/in/1.jpg", "data/dog/1.jpg")
    data = tmp_path / "data"
    (data / "bird").symlink_to(tmp_path / "store")
    (data / "cat" / "in" / "back").symlink_to(data / "cat")
    (data / "dog" / "self.jpg").symlink_to(data / "dog" / "self.jpg")
    (data / "dog" / "gone.jpg").symlink_to(tmp_path / "gone.jpg")
    assert names(find(data)) == ["bird/1.jpg", "cat/in/1.jpg", "dog/1.jpg", "dog/gone.jpg", "dog/self.jpg"]


def test_a_pipe_is_not_a_picture(tmp_path: Path) -> None:
    """What could be read without end, a pipe with a picture's suffix or a link to one, is passed over."""
    make(tmp_path, "cat/1.jpg", "dog/1.jpg")
    os.mkfifo(tmp_path / "cat" / "pipe.jpg")
    (tmp_path / "dog" / "link.jpg").symlink_to(tmp_path / "cat" / "pipe.jpg")
    assert names(find(tmp_path)) == ["cat/1.jpg", "dog/1.jpg"]


@pytest.mark.parametrize(
    ("files", "message"),
    [
        pytest.param((), "has no subfolders; put the pictures of each class into a subfolder", id="empty"),
        pytest.param(("1.jpg", "2.jpg"), "has no subfolders; put the pictures", id="no-classes"),
        pytest.param(("cat/1.jpg",), "has one class, cat, .* give .*/cat", id="one-class"),
        pytest.param(("pets/cat/1.jpg", "pets/dog/1.jpg"), "one class, pets, .* give .*/pets", id="a-folder-too-high"),
        pytest.param(("cat/1.jpg", "dog/"), "1 of 2 folders without a picture: dog; remove them", id="empty-class"),
        pytest.param(
            ("cat/1.heic", "dog/1.heic"), r"2 of 2 folders without a picture: .*\(\.heic\)", id="no-known-suffix"
        ),
        pytest.param(("train/1.jpg", "val/1.jpg"), "train has no subfolders", id="train-without-classes"),
        pytest.param(("val/cat/1.jpg", "test/dog/1.jpg"), "train is missing", id="no-train"),
        pytest.param(
            ("train/a/1.jpg", "train/b/1.jpg", "test/c/1.jpg"), "test has classes that .*/train does not have: c",
            id="new-class",
        ),
        pytest.param(("train/a/1.jpg", "train/b/1.jpg", "val/"), "val has no pictures", id="empty-split"),
        pytest.param(
            ("train/a/1.jpg", "train/b/1.jpg", "val/a/1.jpg", "valid/a/1.jpg"), "both val/ and valid/", id="two-vals"
        ),
    ],
)  # fmt: skip
def test_what_cannot_be_meant_says_what_to_change(tmp_path: Path, files: tuple[str, ...], message: str) -> None:
    """A folder that holds no two classes of pictures, or splits that do not match, is an error that names the fault."""
    with pytest.raises(TrainingError, match=message):
        find(make(tmp_path, *files))


def test_a_name_that_is_no_text_is_an_error(tmp_path: Path) -> None:
    """A class's folder whose name is not UTF-8 could not be written into the metadata, so it is named."""
    make(tmp_path, "cat/1.jpg")
    try:
        os.mkdir(os.fsencode(tmp_path) + b"/\xff")  # noqa: PTH102 - a Path cannot be made of it
    except OSError:
        pytest.skip("this file system takes names in UTF-8 only")
    with pytest.raises(TrainingError, match=r"xff' is not UTF-8; rename it"):
        find(tmp_path)
