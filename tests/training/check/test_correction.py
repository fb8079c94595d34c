"""A table of labels is written anew as a person left the suggestions; what was given stays, and faults are told."""

from pathlib import Path

import pytest
from PIL import Image

from training.check.correction import correct
from training.data import label_table
from training.errors import TrainingError


def pictures(folder: Path, *names: str) -> Path:
    """Write a picture of each name into ``folder`` and return it."""
    folder.mkdir()
    for name in names:
        Image.new("RGB", (4, 4)).save(folder / name)
    return folder


def lines(file: Path, *rows: str) -> Path:
    """Write a file of these lines and return it."""
    file.write_text("\n".join(rows) + "\n", encoding="utf-8")
    return file


def test_several_labels_are_added_removed_and_left_out(tmp_path: Path) -> None:
    """Each picture has one row, with its split, and the table can be read again; spellings of Unicode are the same."""
    folder = pictures(tmp_path / "Bilder", "1.png", "2.png", "é, 3.png", "4.png")
    rows = [
        "path,labels,split,who",
        "1.png,cat|dog,train,A",
        "2.png,dog,train,B",
        '"é, 3.png",,val,C',
        "4.png,cat,val,D",
    ]
    labels = lines(tmp_path / "labels.csv", *rows, "1.png,crème,train,E")
    before = labels.read_bytes()
    suggestions = lines(
        tmp_path / "found.csv",
        "path;suggestion",
        "1.png;remove dog",
        "2.png;leave out",
        "2.png;add cat",
        "é, 3.png;add cat",
        "é, 3.png;add cre\u0300me",
        "4.png;look at",
    )
    changed, notes = correct(folder, labels, suggestions, tmp_path / "new.csv")
    assert changed == 3
    assert notes == ("Passed over columns of labels.csv: who.",)
    text = (tmp_path / "new.csv").read_text(encoding="utf-8")
    assert text == 'path,labels,split\n1.png,cat;crème,train\n"é, 3.png",cat;crème,val\n4.png,cat,val\n'
    assert labels.read_bytes() == before
    found = label_table.find(tmp_path / "new.csv", folder, fewest_classes=1)
    assert [file.labels for file in found.validation or []] == [("cat", "crème"), ("cat",)]


def test_one_label_is_another_one(tmp_path: Path) -> None:
    """In a table of single labels pictures move to another; the first fate of a picture counts."""
    folder = pictures(tmp_path / "pets", "1.png", "2.png", "3.png")
    labels = lines(tmp_path / "labels.csv", "path,label", "1.png,cat", "2.png,dog", "3.png,dog")
    suggestions = lines(tmp_path / "found.csv", "path,suggestion", "1.png,move to dog", "1.png,move to cat", "3.png,")
    assert correct(folder, labels, suggestions, tmp_path / "new.csv")[0] == 1
    assert (tmp_path / "new.csv").read_text() == "path,label\n1.png,dog\n2.png,dog\n3.png,dog\n"


@pytest.mark.parametrize(
    ("suggestion", "message"),
    [
        ("1.png,move to dog", "'move to dog' is none of 'leave out', 'look at' and, since pictures may have several"),
        ("1.png,add horse", "there is no label 'horse'"),
        ("9.png,add dog", "9.png is no picture of the table in"),
        ("1.png,delete", "'delete' is none of"),
    ],
)
def test_what_cannot_be_done_is_told_by_its_line(tmp_path: Path, suggestion: str, message: str) -> None:
    """Then nothing is written at all."""
    folder = pictures(tmp_path / "pets", "1.png", "2.png")
    labels = lines(tmp_path / "labels.csv", "path,labels", "1.png,cat|dog", "2.png,dog")
    suggestions = lines(tmp_path / "found.csv", "path,suggestion", "2.png,add cat", suggestion)
    with pytest.raises(TrainingError, match=f"nothing was written, since .* has faults: line 3: {message}"):
        correct(folder, labels, suggestions, tmp_path / "new.csv")
    assert not (tmp_path / "new.csv").exists()


def test_no_file_is_written_over(tmp_path: Path) -> None:
    """Neither the table that was given nor any other."""
    folder = pictures(tmp_path / "pets", "1.png", "2.png")
    labels = lines(tmp_path / "labels.csv", "path,labels", "1.png,cat|dog", "2.png,dog")
    before = labels.read_bytes()
    suggestions = lines(tmp_path / "found.csv", "path,suggestion", "2.png,add cat")
    with pytest.raises(TrainingError, match=r"labels\.csv is there already; name another file"):
        correct(folder, labels, suggestions, labels)
    assert labels.read_bytes() == before
