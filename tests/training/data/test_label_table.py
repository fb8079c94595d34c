"""A table of labels stands for folders of classes, and what is wrong in it is told by its line."""

from collections.abc import Callable
from pathlib import Path

import pytest
from PIL import Image

from training.data import label_table
from training.data.folders import Found, find
from training.data.pictures import Reading, load
from training.errors import TrainingError

Write = Callable[..., Path]


@pytest.fixture
def write(tmp_path: Path) -> Write:
    """Write a table, and a picture for every path in it that does not begin with ``no``."""

    def write_table(content: str | bytes, *pictures: str) -> Path:
        for name in pictures:
            file = tmp_path / name
            file.parent.mkdir(parents=True, exist_ok=True)
            Image.new("RGB", (8, 8)).save(file, "PNG")
        table = tmp_path / "labels.csv"
        table.write_bytes(content.encode() if isinstance(content, str) else content)
        return table

    return write_table


def found(table: Path, most_broken: float = 1.0) -> Found:
    """Return what the table says of the pictures beside it."""
    return label_table.find(table, table.parent, most_broken=most_broken)


def labels_of(found_: Found) -> dict[str, tuple[str, ...] | None]:
    """Return the labels of the pictures to train on by their names."""
    return {file.name: file.labels for file in found_.train}


def test_one_label_each_is_as_folders_are(tmp_path: Path) -> None:
    """The same pictures in folders and in a table make the same data set: split, order, digest and all."""
    for number in range(24):
        file = tmp_path / "pets" / ("cat" if number % 3 else "dog") / f"{number}.png"
        file.parent.mkdir(parents=True, exist_ok=True)
        Image.effect_noise((40, 40), 20 + number).convert("RGB").save(file)
    files = find(tmp_path / "pets").train
    rows = "\n".join(f"{file.name},{file.label}" for file in reversed(files))
    (tmp_path / "labels.csv").write_text(f"path,label\n{rows}\n", encoding="utf-8")
    folders = load(tmp_path / "pets", None, None, Reading())
    table = load(tmp_path / "pets", None, None, Reading(labels=tmp_path / "labels.csv"))
    assert table.digest() == folders.digest()
    assert table.labels == folders.labels == ("cat", "dog")
    for part in ("train", "validation", "test"):
        a, b = getattr(folders, part), getattr(table, part)
        assert a.names == b.names
        assert (a.classes == b.classes).all()
        assert (a.images == b.images).all()
    assert not table.multi_label


def test_several_labels_or_none(write: Write) -> None:
    """Labels in a cell, by either mark, and rows of one path add up; a picture may have none."""
    table = write(
        'path,labels\na.png,"cat;dog"\nb.png,cat|dog\nc.png,\nd.png,cat\nd.png,bird\ne.png, bird ;cat\nf.png,dog\n',
        *(f"{name}.png" for name in "abcdef"),
    )
    several = found(table)
    assert several.labels == ("bird", "cat", "dog")
    assert labels_of(several) == {
        "a.png": ("cat", "dog"), "b.png": ("cat", "dog"), "c.png": (), "d.png": ("bird", "cat"),
        "e.png": ("bird", "cat"), "f.png": ("dog",),
    }  # fmt: skip
    assert {file.name: file.label for file in several.train}["a.png"] == "dog", "the rarer one, to split by"
    dataset = load(table.parent, 0, None, Reading(labels=table))
    assert dataset.multi_label
    assert dataset.train.names is not None
    for name, row in zip(dataset.train.names, dataset.train.classes, strict=True):
        assert tuple(label for label, has in zip(dataset.labels, row, strict=True) if has) == labels_of(several)[name]


def test_the_parts_may_be_given(write: Write) -> None:
    """A column says of which part a picture is, by any of the names that folders have."""
    table = write(
        "split,path,label\ntraining,a.png,x\ntrain,b.png,y\nvalid,c.png,x\ntest_set,d.png,y\n",
        *(f"{name}.png" for name in "abcd"),
    )
    parts = found(table)
    assert [[file.name for file in part or []] for part in (parts.train, parts.validation, parts.test)] == [
        ["a.png", "b.png"], ["c.png"], ["d.png"],
    ]  # fmt: skip


@pytest.mark.parametrize(
    "content",
    [
        "path,label\r\na.png,cat\r\nb.png,dog\r\n".encode("utf-8-sig"),
        b"path;label\na.png;cat\nb.png;dog\n",
        b"path\tlabel\na.png\tcat\nb.png\tdog\n",
        b"\xef\xbb\xbfPath , Label\na.png,cat\n\n  ,\nb.png,dog",
        b'"path","label"\n"./a.png","cat"\n"b.png","dog"\n',
    ],
)
def test_what_spreadsheets_write(write: Write, content: bytes) -> None:
    """A byte order mark, Windows's line ends, semicolons, tabs, quotation marks, blank lines: all say the same."""
    assert [(file.name, file.label) for file in found(write(content, "a.png", "b.png")).train] == [
        ("a.png", "cat"), ("b.png", "dog"),
    ]  # fmt: skip


def test_paths_of_other_systems(write: Write) -> None:
    """Backslashes, and another spelling of a name in Unicode, lead to the file."""
    table = write("path,label\nin\\a.png,cat\nu\u0308.png,dog\n", "in/a.png", "\u00fc.png")
    assert [file.name for file in found(table).train] == ["in/a.png", "\u00fc.png"]


def test_ids_have_no_suffix(write: Write) -> None:
    """The one picture of that name is meant, in whatever format; where there are two, nobody can tell."""
    table = write(
        "path,label\nin/1,cat\nin/2.5,dog\n3,cat\n4,dog\n5,cat\n",
        *("in/1.JPG", "in/1.txt", "in/2.5.png", "3", "3.png", "4.jpg", "5.jpg", "5.png"),
    )
    whole = found(table)
    assert [file.name for file in whole.train] == ["in/1.JPG", "in/2.5.png", "3", "4.jpg"]
    assert "line 6: '5' may be 5.jpg or 5.png; give its suffix" in whole.notes[0]


@pytest.mark.parametrize(
    ("row", "fault"),
    [
        ("none.png,cat", "'none.png' is not there"),
        (",cat", "it has no path"),
        ("../outside.png,cat", "'../outside.png' lies outside of"),
        ("/etc/hostname,cat", "lies outside of"),
        ("c.png,", "it has no label"),
        ("c.png,a;b", "looks like several labels"),
        ("c.png,cat,more", "it has 3 cells, and the header 2"),
        ("c.png", "it has 1 cells, and the header 2"),
    ],
)
def test_a_broken_row_is_left_out_and_told(write: Write, row: str, fault: str) -> None:
    """The others count, and the sentence has the line and what is wrong with it."""
    good = "".join(f"{name}.png,{label}\n" for name, label in zip("abde", ("cat", "dog", "cat", "dog"), strict=True))
    whole = found(write(f"path,label\n{good}{row}\n", *(f"{name}.png" for name in "abcde")))
    assert [file.name for file in whole.train] == ["a.png", "b.png", "d.png", "e.png"]
    [note] = whole.notes
    assert note.startswith("Left out 1 of 5 rows of labels.csv: line 6: ")
    assert fault in note


def test_a_row_that_is_no_utf8(write: Write) -> None:
    """A name that an old program wrote is told by its line, whatever its letters were."""
    table = write(b"path,label\na.png,cat\nb.png,dog\n\xfc.png,cat\n", "a.png", "b.png")
    assert "line 4: it is not UTF-8" in found(table).notes[0]


def test_contradictions(write: Write) -> None:
    """Of a picture that is said to be two things, none counts; both lines are told."""
    table = write(
        "path,label\na.png,cat\nb.png,dog\nc.png,cat\n./c.png,dog\nd.png,cat\nd.png,cat\n",
        *(f"{name}.png" for name in "abcd"),
    )
    whole = found(table)
    assert [file.name for file in whole.train] == ["a.png", "b.png", "d.png"], "the same twice is no contradiction"
    assert "line 4: 'c.png' is cat in line 4 and dog in line 5" in whole.notes[0]
    assert "line 5:" in whole.notes[0]
    splits = write("path,label,split\na.png,cat,train\na.png,cat,test\nb.png,dog,train\nc.png,cat,train\n")
    assert "'a.png' is in train in line 2 and in test in line 3" in found(splits).notes[0]


def test_the_list_of_broken_rows_is_bounded(write: Write) -> None:
    """Twenty are told, and how many more there are; above the share that may be broken nothing is trained."""
    rows = "".join(f"gone{number}.png,cat\n" for number in range(500))
    table = write(f"path,label\na.png,cat\nb.png,dog\n{rows}", "a.png", "b.png")
    [note] = found(table).notes
    assert note.count("line ") == 20
    assert "and 480 more" in note
    with pytest.raises(TrainingError, match=r"500 of the 502 rows .* are broken: line 4.*--max-unreadable"):
        found(table, 0.1)


@pytest.mark.parametrize(
    ("content", "fault"),
    [
        ("", "it is empty"),
        ("path,label\n", "no rows below its header"),
        ("image,class\na.png,cat\n", "'image', 'class'.*path and label"),
        ("path,label,labels\n", "path and label"),
        ("path,label,path\n", "path and label"),
        ("path,label\na.png,cat\nb.png,cat\n", "one label, cat"),
        ('path,label\na.png,"cat\nb.png,dog\n', "line 2: .*quotation mark"),
        (b"\xff\xfep\0a\0t\0h\0", "not text in UTF-8"),
        ("path,labels\na.png,\nb.png,\n", "no picture in .* has a label"),
        ("path,labels\na.png,cat;dog\nb.png,cat\n", "labels of a single picture to train on: dog"),
        ("path,labels\na.png,cat;dog\nb.png,cat;dog\nc.png,cat\n", "every picture to train on has cat"),
        ("path,label,split\na.png,cat,test\nb.png,dog,test\n", "no row .* is for the training"),
        ("path,label,split\na.png,cat,train\nb.png,dog,train\nc.png,cow,test\n", "in val or test alone: cow"),
        ("path,label,split\na.png,cat,later\nb.png,dog,\n", "the split 'later' is not one of train"),
    ],
)
def test_a_table_that_nothing_can_be_learned_of(write: Write, content: str | bytes, fault: str) -> None:
    """The training ends with a sentence that says what to change."""
    table = write(content, "a.png", "b.png", "c.png")
    with pytest.raises(TrainingError, match=fault):
        found(table, 0.1)


def test_a_table_that_cannot_be_read(tmp_path: Path) -> None:
    """It is not there, or a folder."""
    for path in (tmp_path / "none.csv", tmp_path):
        with pytest.raises(TrainingError, match="cannot be read"):
            label_table.find(path, tmp_path)
