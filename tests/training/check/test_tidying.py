"""What a person left in a table is done, never more, nothing is deleted, and all of it can be taken back."""

import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from PIL import Image

from training.check.tidying import LEFT_OUT, apply, undo
from training.data.folders import find
from training.errors import TrainingError


def write(folder: Path, *paths: str) -> Path:
    """Write a picture at each of ``paths`` and return the folder."""
    for number, path in enumerate(paths):
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (8, 8), (number, 0, 0)).save(folder / path)
    return folder


def content(folder: Path) -> dict[str, bytes]:
    """Return the files of a folder but the journal, by their paths."""
    files = (path for path in folder.rglob("*") if path.is_file() and path.name != "journal.jsonl")
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in files}


def table(tmp_path: Path, *lines: str, head: str = "path,kind,suggestion,certainty") -> Path:
    """Write a table of suggestions."""
    file = tmp_path / "suggestions.csv"
    file.write_text("\n".join([head, *lines]) + "\n", encoding="utf-8")
    return file


def test_pictures_are_moved_and_moved_back(tmp_path: Path) -> None:
    """To another class, with a number where the name is taken, and out of the way; undone, all is as before."""
    folder = write(tmp_path / "pets", "cat/1.png", "cat/2.png", "cat/kittens/3.png", "dog/1.png", "dog/4.png")
    before = content(folder)
    suggestions = table(
        tmp_path,
        "cat/1.png,wrong label,move to dog,0.99",
        "cat/kittens/3.png,wrong label,move to dog,0.9",
        "dog/4.png,blank,leave out,1",
        "cat/2.png,outlier,look at,0.5",
    )
    assert len(apply(folder, suggestions)) == 3
    after = content(folder)
    assert set(after) == {"cat/2.png", "dog/1.png", "dog/1-2.png", "dog/3.png", f"{LEFT_OUT}/dog/4.png"}
    assert after["dog/1-2.png"] == before["cat/1.png"]
    assert {file.name for file in find(folder).train} == {"cat/2.png", "dog/1.png", "dog/1-2.png", "dog/3.png"}
    assert len(undo(folder)) == 3
    assert content(folder) == before
    with pytest.raises(TrainingError, match=r"nothing was moved in .* that could be taken back"):
        undo(folder)


def test_what_changes_a_table_is_not_done_in_a_folder(tmp_path: Path) -> None:
    """What was found of pictures with several labels names the options that it needs; nothing is moved."""
    folder = write(tmp_path / "pets", "cat/1.png", "dog/1.png")
    before = content(folder)
    with pytest.raises(TrainingError, match=r"line 2: 'add dog' changes a table of labels, .*--corrected"):
        apply(folder, table(tmp_path, "cat/1.png,label missing,add dog,1"))
    assert content(folder) == before


def test_each_application_is_taken_back_by_itself(tmp_path: Path) -> None:
    """The last one first."""
    folder = write(tmp_path / "pets", "cat/1.png", "cat/2.png", "dog/1.png")
    before = content(folder)
    apply(folder, table(tmp_path, "cat/1.png,blank,leave out,1"))
    between = content(folder)
    apply(folder, table(tmp_path, "cat/2.png,wrong label,move to dog,1"))
    undo(folder)
    assert content(folder) == between
    undo(folder)
    assert content(folder) == before


def test_a_picture_stays_in_its_split(tmp_path: Path) -> None:
    """Also where its split has no folder for the other class yet; names in Unicode are found again."""
    folder = write(tmp_path / "pets", "train/Katze ü/1.png", "train/犬/2.png", "test/Katze ü/3.png")
    apply(folder, table(tmp_path, "test/Katze ü/3.png,wrong label,move to 犬,1"))
    assert "test/犬/3.png" in content(folder)


def test_a_spreadsheet_may_have_written_the_table(tmp_path: Path) -> None:
    """With semicolons, a byte order mark, other columns, and in another order."""
    folder = write(tmp_path / "pets", "cat/1.png", "cat/2.png", "dog/1.png")
    file = tmp_path / "excel.csv"
    file.write_text("suggestion;note;path\r\nleave out;x;cat/1.png\r\n", encoding="utf-8-sig")
    assert [move.source for move in apply(folder, file)] == ["cat/1.png"]


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("cat/9.png,blank,leave out,1", "line 3: cat/9.png is no picture in"),
        ("../secret.png,blank,leave out,1", "line 3: ../secret.png is no picture in"),
        ("/etc/passwd,blank,leave out,1", "line 3: /etc/passwd is no picture in"),
        ("cat/2.png,wrong label,move to bird,1", "line 3: there is no class 'bird'"),
        ("cat/2.png,wrong label,delete,1", "line 3: 'delete' is none of 'leave out'"),
    ],
)
def test_one_wrong_line_moves_nothing(tmp_path: Path, line: str, message: str) -> None:
    """The line is told by its number, and the good ones before it are not done either."""
    write(tmp_path, "secret.png")
    folder = write(tmp_path / "pets", "cat/1.png", "cat/2.png", "dog/1.png")
    before = content(folder)
    with pytest.raises(TrainingError, match="nothing was moved") as error:
        apply(folder, table(tmp_path, "cat/1.png,blank,leave out,1", line))
    assert message in str(error.value)
    assert content(folder) == before


@pytest.mark.parametrize("text", ["", "file,what\ncat/1.png,leave out\n"])
def test_another_table_is_told(tmp_path: Path, text: str) -> None:
    """Without the columns it is no table of suggestions."""
    folder = write(tmp_path / "pets", "cat/1.png", "dog/1.png")
    file = tmp_path / "other.csv"
    file.write_text(text)
    with pytest.raises(TrainingError, match="has no column path"):
        apply(folder, file)
    with pytest.raises(TrainingError, match=r"missing\.csv cannot be read \(No such file or directory\)"):
        apply(folder, tmp_path / "missing.csv")


def test_nothing_is_overwritten_when_it_is_taken_back(tmp_path: Path) -> None:
    """Where a picture has come to lie in the old place, it stays, and nothing else is moved either."""
    folder = write(tmp_path / "pets", "cat/1.png", "cat/2.png", "dog/1.png")
    apply(folder, table(tmp_path, "cat/1.png,blank,leave out,1"))
    write(folder, "cat/1.png")
    before = content(folder)
    with pytest.raises(TrainingError, match=r"something is in the place of cat/1\.png"):
        undo(folder)
    assert content(folder) == before


@pytest.fixture
def read_only(tmp_path: Path) -> Iterator[Path]:
    """A folder of pictures that nobody may change, not even root."""
    folder = write(tmp_path / "pets", "cat/1.png", "cat/2.png", "dog/1.png")
    mounted = False
    if os.geteuid():
        for path in (folder, *folder.iterdir()):
            path.chmod(0o555)
    else:
        mounts = (["mount", "--bind", str(folder), str(folder)], ["mount", "-o", "remount,bind,ro", str(folder)])
        if any(subprocess.run(mount, check=False, capture_output=True).returncode for mount in mounts):
            pytest.skip("mounting a folder is not allowed here")
        mounted = True
    yield folder
    if mounted:
        subprocess.run(["umount", folder], check=True)
    else:
        for path in (folder, *folder.iterdir()):
            path.chmod(0o755)


def test_a_folder_that_cannot_be_changed_is_told(read_only: Path, tmp_path: Path) -> None:
    """In a sentence, and nothing is half done."""
    before = content(read_only)
    with pytest.raises(TrainingError, match=r"cannot be changed .*; copy it to a place where you may write"):
        apply(read_only, table(tmp_path, "cat/1.png,blank,leave out,1"))
    assert content(read_only) == before
