"""Reading what others have put where a file should be: nothing waits, nothing is without an end."""

import os
import socket
import threading
from collections.abc import Callable
from pathlib import Path

import pytest

from artifact.files import MOST_FILES, fingerprint, open_regular, read_regular, sha256

TERABYTE = 1024**4


def pipe(file: Path) -> None:
    """Make a pipe that nobody writes into."""
    os.mkfifo(file)


def listening(file: Path) -> None:
    """Make a socket."""
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(os.path.relpath(file))


def sparse(file: Path) -> None:
    """Make a file of a terabyte that takes no space."""
    file.touch()
    os.truncate(file, TERABYTE)


STRANGE = [
    pytest.param(pipe, "no regular file", id="pipe"),
    pytest.param(listening, "No such device", id="socket"),
    pytest.param(Path.mkdir, "no regular file", id="folder"),
    pytest.param(lambda file: file.symlink_to("/"), "no regular file", id="link-to-the-root"),
    pytest.param(lambda file: file.symlink_to("/dev/zero"), "no regular file", id="device"),
    pytest.param(lambda file: file.symlink_to(file), "Too many levels", id="link-to-itself"),
    pytest.param(lambda file: file.symlink_to("nowhere"), "No such file", id="link-to-nothing"),
    pytest.param(sparse, "more than 1,000 bytes", id="sparse"),
    pytest.param(lambda file: file.symlink_to("/proc/self/maps"), "more than 1,000 bytes", id="without-a-size"),
]


@pytest.mark.timing
@pytest.mark.parametrize(("make", "fault"), STRANGE)
def test_what_is_no_file_is_refused_at_once(tmp_path: Path, make: Callable[[Path], object], fault: str) -> None:
    """Whatever lies there, who reads it gets an error, and does not wait for it."""
    file = tmp_path / "metadata.json"
    make(file)
    for read in (lambda: read_regular(file, 1000), lambda: sha256(file, 1000)):
        errors: list[OSError] = []
        reading = threading.Thread(target=_keep_error, args=(read, errors), daemon=True)
        reading.start()
        reading.join(2)
        assert not reading.is_alive()
        assert fault in str(errors[0])


def _keep_error(read: Callable[[], object], errors: list[OSError]) -> None:
    try:
        read()
    except OSError as error:
        errors.append(error)


def test_a_file_and_a_link_to_it_are_read(tmp_path: Path) -> None:
    """What is a file is read whole, up to the most that it may have, also by a link."""
    (tmp_path / "file").write_bytes(b"x" * 1000)
    (tmp_path / "link").symlink_to("file")
    for name in ("file", "link"):
        assert read_regular(tmp_path / name, 1000) == b"x" * 1000
        assert sha256(tmp_path / name)[1] == 1000
        with open_regular(tmp_path / name) as stream:
            assert stream.read(3) == b"xxx"
    with pytest.raises(OSError, match="more than 999 bytes"):
        read_regular(tmp_path / "file", 999)


def test_a_name_that_no_file_can_have(tmp_path: Path) -> None:
    """Names come from the metadata as well."""
    for name in ("a\0b", "\ud800"):
        with pytest.raises(ValueError, match=r".+"):
            read_regular(tmp_path / name, 10)


def test_a_fingerprint_follows_what_can_be_read(tmp_path: Path) -> None:
    """It changes with a file's content, its name, its rights, and with what a link leads to; and stays otherwise."""
    file = tmp_path / "below" / "file"
    file.parent.mkdir()
    file.write_bytes(b"1")
    (tmp_path / "link").symlink_to("target")
    seen = [fingerprint(tmp_path)]
    assert fingerprint(tmp_path) == seen[0]
    for change in (
        lambda: file.write_bytes(b"22"),
        lambda: file.chmod(0o600),
        lambda: file.rename(file.with_name("other")),
        lambda: (tmp_path / "target").touch(),
        lambda: (tmp_path / "target").unlink(),
    ):
        change()
        assert fingerprint(tmp_path) not in seen[-1:]
        seen.append(fingerprint(tmp_path))


def test_a_fingerprint_of_anything(tmp_path: Path) -> None:
    """A folder that is not there, is a file, or leads to itself has one, and links are not followed into folders."""
    assert fingerprint(tmp_path / "nowhere")[0].error
    (tmp_path / "file").touch()
    assert fingerprint(tmp_path / "file")[0].error
    (tmp_path / "folder").mkdir()
    for name, target in {"up": "..", "root": "/", "self": "self"}.items():
        (tmp_path / "folder" / name).symlink_to(target)
    assert [Path(mark.name).name for mark in fingerprint(tmp_path / "folder")] == ["root", "self", "up"]


@pytest.mark.slow
def test_a_fingerprint_of_too_many(tmp_path: Path) -> None:
    """Beyond the most that a version may have, nothing more is looked at."""
    for number in range(MOST_FILES + 100):
        (tmp_path / str(number)).touch()
    assert len(fingerprint(tmp_path)) == MOST_FILES + 1
