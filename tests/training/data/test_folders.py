"""Labels and files are found in any sensible layout, and what cannot be meant says what to change."""

import os
import shutil
import tempfile
import unicodedata
from collections.abc import Iterator
from pathlib import Path

import pytest

from training.data.folders import Found, find, pictures_in
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


def test_pictures_in_formats_that_are_not_read_are_told_apart(tmp_path: Path) -> None:
    """Whoever has DICOM files or raw photographs among others hears what to do; nobody would call them no pictures."""
    found = find(make(tmp_path, "cat/1.jpg", "cat/2.dcm", "cat/3.DCM", "dog/1.jpg", "dog/2.NEF", "dog/notes.txt"))
    assert found.notes == (
        "Passed over files that are not pictures: 1 (.txt).",
        (
            "Passed over files in formats that are not read: 3 (.dcm, .nef). If they hold pictures to learn from, "
            "save these as PNG or JPEG."
        ),
    )


def test_labels_that_differ_in_little_are_told(tmp_path: Path) -> None:
    """Two folders that one disk keeps apart and another does not are often one class."""
    found = find(make(tmp_path, "Dog/1.jpg", "dog/2.jpg", "hot dog/1.jpg", "hot_dog/1.jpg", "1/1.jpg", "-1/1.jpg"))
    assert found.labels == ("-1", "1", "Dog", "dog", "hot dog", "hot_dog")
    assert found.notes == (
        (
            "Labels that differ in little: 'Dog' and 'dog', 'hot dog' and 'hot_dog'. If they mean the same, give their "
            "pictures the same one."
        ),
    )


def test_an_archive_is_to_be_unpacked(tmp_path: Path) -> None:
    """What is no folder is told as such, with what to do."""
    archive = tmp_path / "pets.zip"
    archive.write_bytes(b"PK")
    with pytest.raises(TrainingError, match=r"pets\.zip is a file; .* unpack it"):
        find(archive)


def test_what_is_lost_by_its_place_or_its_name_is_told(tmp_path: Path) -> None:
    """Loose pictures of a split, hidden folders that are no tool's, and files that lie beside the folders."""
    make(tmp_path, "train/C#/1.jpg", "train/Go/1.jpg", "train/.NET/1.jpg", "train/loose.png", "train/labels.csv")
    make(tmp_path, "val/Go/1.jpg", "val/1.png", "val/2.png", "train/Go/.old/1.jpg", ".git/1.jpg", "archive.zip")
    found = find(tmp_path)
    assert found.labels == ("C#", "Go")
    assert found.notes == (
        "Passed over files that are not pictures: 2 (.zip, .csv).",
        f"Passed over pictures that lie in {tmp_path}/train itself and so have no class: 1.",
        f"Passed over pictures that lie in {tmp_path}/val itself and so have no class: 2.",
        "Passed over hidden folders: 2 (.old, .NET).",
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


@pytest.mark.parametrize(
    ("train", "validation", "test"),
    [
        ("training_set", None, "test_set"),
        ("train_images", "val_images", "test_images"),
        ("Training Data", "Validation Data", "Testing Data"),
        ("trainset", "valset", "testset"),
        ("images-train", "images-valid", "images-test"),
        ("train2017", "val2017", None),
        ("01_train", "02_dev", "03_test"),
        ("train", "eval", "test"),
        ("train", "eval", None),
        ("train", "dev", "eval"),
        ("TRAIN", "VAL", "TEST"),
        ("train.data", None, "holdout"),
    ],
)
def test_splits_have_many_names(tmp_path: Path, train: str, validation: str | None, test: str | None) -> None:
    """None of them becomes a class; what only says that it holds data or pictures counts for nothing."""
    for name in filter(None, (train, validation, test)):
        make(tmp_path, f"{name}/cat/1.jpg", f"{name}/dog/1.jpg")
    found = find(tmp_path)
    assert found.labels == ("cat", "dog")
    assert [file.path.parts[-3] for file in found.train] == [train, train]
    assert {file.path.parts[-3] for file in found.validation or []} == {validation} - {None}
    assert {file.path.parts[-3] for file in found.test or []} == {test} - {None}
    assert found.notes == ()


def test_splits_may_be_packed_twice(tmp_path: Path) -> None:
    """An archive of training_set/ that was unpacked into a folder of that name holds it once more."""
    for name in ("training_set", "test_set"):
        make(tmp_path, f"{name}/{name}/cat/1.jpg", f"{name}/{name}/dog/1.jpg", f"{name}/_DS_Store")
    found = find(tmp_path)
    assert found.labels == ("cat", "dog")
    assert names(found) == ["cat/1.jpg", "dog/1.jpg"]
    assert len(found.test or []) == 2
    assert find(make(tmp_path / "named", "train/train/1.jpg", "train/bus/1.jpg")).labels == ("bus", "train")


def test_a_class_may_be_called_train(tmp_path: Path) -> None:
    """Beside other classes, a folder of that name that holds pictures is one of them, and that is told."""
    found = find(make(tmp_path, "train/1.jpg", "test/1.jpg", "plane/1.jpg"))
    assert found.labels == ("plane", "test", "train")
    assert found.notes == ("Taken for classes, as the others beside them: test, train.",)


@pytest.mark.parametrize("name", ["latest", "contest", "attested", "valley", "devil", "trainer", "images", "testudo"])
def test_a_name_that_only_begins_like_a_split_is_a_class(tmp_path: Path, name: str) -> None:
    """It is no split, and no note is made of it."""
    found = find(make(tmp_path, f"{name}/old/1.jpg", f"{name}/new/2.jpg", "dog/1.jpg"))
    assert found.labels == tuple(sorted((name, "dog")))
    assert found.notes == ()


AMBIGUOUS = [
    pytest.param(("bus/1.jpg", "car/1.jpg", "train/steam/1.jpg", "train/electric/1.jpg"), "train", id="vehicles"),
    pytest.param(("cat/1.jpg", "dog/1.jpg", "test/cat/1.jpg", "test/dog/1.jpg"), "test", id="classes-and-a-test"),
    pytest.param(("cat/1.jpg", "val/cat/1.jpg", "test/cat/1.jpg"), "test, val", id="no-train"),
    pytest.param(("train/a/1.jpg", "train/b/1.jpg", "test/1.jpg", "more/1.jpg"), "train", id="a-test-without-classes"),
]


@pytest.mark.parametrize(("files", "named"), AMBIGUOUS)
def test_what_may_be_classes_or_splits_is_refused(tmp_path: Path, files: tuple[str, ...], named: str) -> None:
    """The error names both kinds and the option that tells."""
    with pytest.raises(TrainingError, match=rf"has {named}, with folders inside .*--layout classes .*--layout splits"):
        find(make(tmp_path, *files))


def test_the_layout_tells_classes_from_splits(tmp_path: Path) -> None:
    """Told that they are classes, all are; told that they are splits, the others are passed over with a note."""
    make(tmp_path, "bus/1.jpg", "car/1.jpg", "train/steam/1.jpg", "train/electric/1.jpg")
    assert find(tmp_path, layout="classes").labels == ("bus", "car", "train")
    found = find(tmp_path, layout="splits")
    assert found.labels == ("electric", "steam")
    assert found.notes == ("Passed over what lies beside train/: bus, car.",)
    make(tmp_path / "two", "training/1.jpg", "testing/1.jpg")
    assert find(tmp_path / "two", layout="classes").labels == ("testing", "training")
    with pytest.raises(TrainingError, match="train is missing"):
        find(make(tmp_path / "none", "cat/1.jpg", "dog/1.jpg"), layout="splits")


def test_splits_inside_of_classes_are_refused(tmp_path: Path) -> None:
    """Pictures of the test would be learned, unless each class is meant as a whole."""
    make(tmp_path, "cat/train/1.jpg", "cat/test/2.jpg", "dog/train/1.jpg", "dog/test/2.jpg")
    with pytest.raises(TrainingError, match=r"have the splits of the data inside.*/train/cat.*--layout classes"):
        find(tmp_path)
    assert len(find(tmp_path, layout="classes").train) == 4


@pytest.mark.parametrize("place", ["train", "val", "train/bird", "val/cat", "test", "bird"])
@pytest.mark.parametrize("target", ["nowhere", "."])
def test_a_link_to_nowhere_in_the_place_of_a_folder_is_an_error(tmp_path: Path, place: str, target: str) -> None:
    """A class or a split whose disk is not mounted, or that leads to itself, is not left out in silence."""
    make(tmp_path, "train/cat/1.jpg", "train/dog/1.jpg", "val/cat/1.jpg", "val/dog/1.jpg")
    link = tmp_path / place
    shutil.rmtree(link, ignore_errors=True)
    link.symlink_to(link if target == "." else target)
    with pytest.raises(TrainingError, match=rf"{link} is a link to .*, which is not there; mend or remove it"):
        find(tmp_path)


def test_a_link_to_nowhere_inside_of_a_class_is_told_with_the_pictures(tmp_path: Path) -> None:
    """It may have led to a folder of them: it counts as one that cannot be read, and so is named."""
    make(tmp_path, "cat/1.jpg", "dog/1.jpg")
    (tmp_path / "cat" / "more").symlink_to("nowhere")
    (tmp_path / "cat" / "2023.12").symlink_to("nowhere")
    assert names(find(tmp_path)) == ["cat/1.jpg", "cat/2023.12", "cat/more", "dog/1.jpg"]


@pytest.fixture
def as_somebody() -> Iterator[Path]:
    """Give a folder, and for root, who can read all, the rights of nobody outside of it."""
    with tempfile.TemporaryDirectory() as name:
        folder, root = Path(name), os.geteuid() == 0
        folder.chmod(0o777)
        if root:
            os.seteuid(65534)
        try:
            yield folder
        finally:
            if root:
                os.seteuid(0)


def test_a_folder_that_cannot_be_read_is_an_error(as_somebody: Path) -> None:
    """Whether it is a class or lies in one, its pictures are not left out in silence; one of the system's is."""
    make(as_somebody, "cat/1.jpg", "cat/more/1.jpg", "dog/1.jpg", "lost+found/")
    (as_somebody / "lost+found").chmod(0)
    for place in ("cat/more", "dog"):
        (as_somebody / place).chmod(0)
        with pytest.raises(PermissionError, match=place):
            find(as_somebody)
        (as_somebody / place).chmod(0o755)
    assert find(as_somebody).labels == ("cat", "dog")


def test_pictures_without_labels_are_found_by_the_same_rule(tmp_path: Path) -> None:
    """At any depth, through links, without what is hidden or left behind, each folder once."""
    make(tmp_path, "a/1.jfif", "a/2.JPE", "b/3.apng", "b/4", "b/5.txt", "b/.6.jpg", "b/@eaDir/7.jpg", "store/8.pgm")
    (tmp_path / "a" / "link").symlink_to(tmp_path / "b")
    found = [path.relative_to(tmp_path / "a").as_posix() for path in pictures_in(tmp_path / "a")]
    assert found == ["1.jfif", "2.JPE", "link/3.apng", "link/4"]
    (tmp_path / "a" / "back").symlink_to(tmp_path)
    assert len(pictures_in(tmp_path / "a")) == 5


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
        pytest.param(("1.jpg", "2.jpg"), "has no subfolders; put the pictures .* --labels", id="no-classes"),
        pytest.param(("cat/1.jpg",), "has one class, cat, .* give .*/cat", id="one-class"),
        pytest.param(("pets/cat/1.jpg", "pets/dog/1.jpg"), "one class, pets, .* give .*/pets", id="a-folder-too-high"),
        pytest.param(("cat/1.jpg", "dog/"), "1 of 2 folders without a picture: dog; remove them", id="empty-class"),
        pytest.param(
            ("cat/1.mov", "dog/1.mov"), r"2 of 2 folders without a picture: .*\(\.mov\)", id="no-known-suffix"
        ),
        pytest.param(("cat/1.dcm", "dog/1.DCM"), r"\.dcm is not read, save such pictures as PNG", id="unread-format"),
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
