"""Which pictures people's paths stand for."""

import io
import os
import socket
from pathlib import Path

import pytest

from client import paths
from client.paths import Picture
from client.results import Result


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The current folder, with some pictures at several depths and other things."""
    for name in (
        "b.png",
        "a.JPG",
        "note.txt",
        ".hidden.png",
        "deep/er/d.webp",
        "deep/c.tiff",
        ".git/e.png",
        "none/x.md",
    ):
        file = tmp_path / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(b"12345")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def files(*given: str) -> list[str]:
    """Return the names of the pictures behind paths; nothing may be wrong with them."""
    found = [item for path in given for item in paths.given(path)]
    assert [item for item in found if isinstance(item, Result)] == []
    return [item.file for item in found]


def fault(path: str) -> str | None:
    """Return the error of a path that leads to nothing else."""
    [item] = paths.given(path)
    assert isinstance(item, Result)
    assert item.message
    return item.error


def test_a_folder_stands_for_the_pictures_at_any_depth(folder: Path) -> None:
    """By suffix in any case, sorted, the folder's own first; hidden files and folders are passed over."""
    assert files(".") == ["./a.JPG", "./b.png", "./deep/c.tiff", "./deep/er/d.webp"]
    assert files(f"{folder}/deep/") == [f"{folder}/deep/c.tiff", f"{folder}/deep/er/d.webp"]


@pytest.mark.parametrize("name", ["e.jfif", "e.jpe", "e.apng", "e.mpo", "e.pgm", "e", "e.AVIFS", "e.HEIC", "e.hif"])
def test_a_folder_stands_for_what_a_training_takes(folder: Path, name: str) -> None:
    """All endings of pictures, and none at all; what systems leave behind is no picture."""
    Path("deep", name).touch()
    for left in ("__MACOSX/x.png", "@eaDir/x.png"):
        Path(left).parent.mkdir()
        Path(left).touch()
    assert f"./deep/{name}" in files(".")
    assert len(files(".")) == 5


def test_a_link_to_nowhere_in_a_folder_is_told(folder: Path) -> None:
    """It may have led to a folder of pictures."""
    Path("deep/more").symlink_to("nowhere")
    assert [item.file for item in paths.given("deep") if isinstance(item, Result)] == ["deep/more"]


def test_a_file_is_taken_whatever_its_name_and_with_its_size(folder: Path) -> None:
    """Who names a file means it: no suffix is asked for, and hidden ones count."""
    assert list(paths.given("note.txt")) == [Picture("note.txt", 5)]
    assert files(".hidden.png", ".git") == [".hidden.png", ".git/e.png"]


@pytest.mark.parametrize(
    ("pattern", "expected"),
    [
        ("*.png", ["b.png"]),
        ("[ab].*", ["a.JPG", "b.png"]),
        ("?.txt", []),
        ("*", ["a.JPG", "b.png", "deep/c.tiff", "deep/er/d.webp", "note.txt"]),
        ("d*/*", ["deep/c.tiff", "deep/er/d.webp"]),
        ("**/*.*p*", ["b.png", "deep/er/d.webp"]),
        ("**/*", ["a.JPG", "b.png", "note.txt", "deep/c.tiff", "deep/er/d.webp", "none/x.md"]),
        ("deep/**", ["deep/c.tiff", "deep/er/d.webp"]),
        ("./**/d.webp", ["./deep/er/d.webp"]),
        (".*/*", [".git/e.png"]),
    ],
)
def test_a_pattern_stands_for_what_a_shell_makes_of_it(folder: Path, pattern: str, expected: list[str]) -> None:
    """Patterns in quotes work as without, ``**`` too; folders that match are searched; hidden names need a dot."""
    assert [item.file for item in paths.given(pattern) if isinstance(item, Picture)] == expected


def test_an_absolute_pattern_gives_absolute_names(folder: Path) -> None:
    """A pattern may begin at the root."""
    assert files(f"{folder}/**/c.*") == [f"{folder}/deep/c.tiff"]


def test_a_file_whose_name_looks_like_a_pattern_is_that_file(folder: Path) -> None:
    """Names with brackets, as downloads get them, need no quoting of their own."""
    Path("photo[1].png").write_bytes(b"")
    assert files("photo[1].png") == ["photo[1].png"]


def test_what_leads_to_no_picture_is_an_error_of_that_path(folder: Path) -> None:
    """A missing file, a pattern without a match, a folder without pictures and a broken link each say so."""
    Path("broken.png").symlink_to("nowhere")
    Path("self.png").symlink_to("self.png")
    assert fault("missing.png") == "not_found"
    assert fault("") == "not_found"
    assert fault("*.gif") == "not_found"
    assert fault("none") == "no_pictures"
    assert fault("broken.png") == "not_found"
    assert fault("self.png") == "unreadable"
    assert fault("x" * 5000) == "unreadable"
    assert [item.error for item in paths.given(".") if isinstance(item, Result)] == ["not_found", "unreadable"]


def test_loops_of_links_end(folder: Path) -> None:
    """Each folder is entered once, so that links among folders cost nothing, in a folder as in a pattern."""
    Path("deep/up").symlink_to("..")
    Path("deep/er/again").symlink_to("../../deep")
    Path("other").symlink_to("deep")
    assert len(files(".")) == 4
    assert files("**/c.tiff") == ["deep/c.tiff"]


def test_what_is_no_file_is_passed_over_in_a_folder(folder: Path) -> None:
    """A pipe in a folder would keep the client waiting for ever."""
    os.mkfifo("pipe.png")
    assert "./pipe.png" not in files(".")
    assert list(paths.given("pipe.png")) == [Picture("pipe.png", None)]


def test_what_cannot_be_opened_raises_when_it_is_read(folder: Path) -> None:
    """A socket is no file that can be read; the error has the system's words."""
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind("socket.png")
        [item] = paths.given("socket.png")
        assert isinstance(item, Picture)
        with pytest.raises(OSError, match=r"socket\.png"):
            item.read()


def test_a_file_that_is_far_too_large_is_not_read_into_memory(folder: Path) -> None:
    """Whatever lies there, a file costs no more memory than the limit."""
    with Path("huge.png").open("wb") as stream:
        stream.truncate(paths.LARGEST_BYTES + 1)
    [item] = paths.given("huge.png")
    assert isinstance(item, Picture)
    with pytest.raises(OSError, match="larger than 128 MiB"):
        item.read()


@pytest.mark.parametrize(
    ("text", "separator", "names"),
    [
        (b"a.png\nb c.png\r\n\nd.png", b"\n", ["a.png", "b c.png", "d.png"]),
        (b"a\nb.png\0c.png\0", b"\0", ["a\nb.png", "c.png"]),
        (b"\xff.png\n", b"\n", ["\udcff.png"]),
        (b"", b"\n", []),
    ],
)
def test_a_list_of_names_is_read_as_it_was_written(text: bytes, separator: bytes, names: list[str]) -> None:
    """Lines of either kind or NUL bytes end names, which may hold anything else."""
    assert list(paths.listed(io.BufferedReader(io.BytesIO(text)), separator)) == names


def test_names_come_while_the_list_is_still_written() -> None:
    """What ``find`` has found is taken up at once."""
    reader, writer = os.pipe()
    with os.fdopen(reader, "rb") as stream, os.fdopen(writer, "wb", buffering=0) as pipe:
        names = paths.listed(stream, b"\n")
        pipe.write(b"a.png\nb.p")
        assert next(names) == "a.png"
        pipe.write(b"ng\n")
        assert next(names) == "b.png"


def test_a_listed_name_is_never_a_pattern(folder: Path) -> None:
    """Names in a list come from programs: an asterisk is an asterisk, and ``-`` a file."""
    Path("-").write_bytes(b"1")
    assert list(paths.named("-")) == [Picture("-", 1)]
    [item] = paths.named("*.png")
    assert isinstance(item, Result)
    [item] = paths.named("a.png\0b.png")
    assert isinstance(item, Result)
    assert "--null" in item.message
