"""The files of a model version, which others may have put there: read what is a file and no larger than it should be.

A pipe, a socket or a device where a file should be would keep its reader waiting for ever, or never end.
"""

import errno
import hashlib
import itertools
import os
import secrets
import stat
from pathlib import Path
from typing import BinaryIO, NamedTuple

MOST_FILES = 10_000  # in a version, folders included; a SavedModel has ten
MOST_BYTES = 32 * 1024**3  # of all that a version's metadata names

_BLOCK = 1024 * 1024


class Mark(NamedTuple):
    """What changes of a file or folder when it does; all zero but ``error`` where it cannot be looked at."""

    name: str
    size: int = 0
    modified: int = 0  # nanoseconds
    inode: int = 0
    rights: tuple[int, int, int] = (0, 0, 0)  # mode, owner and group: what cannot be read may become readable
    error: int = 0

    @property
    def strange(self) -> bool:
        """Whether it is there, and neither file nor folder: a pipe, a socket or a device."""
        mode = self.rights[0]
        return bool(mode) and not (stat.S_ISREG(mode) or stat.S_ISDIR(mode))


Fingerprint = tuple[Mark, ...]


def fingerprint(path: Path) -> Fingerprint:
    """Return what changes when anything below folder ``path`` does; it never raises, however the folder is.

    Links are followed to files, and not into folders. Beyond ``MOST_FILES`` entries no more are looked at.
    """
    marks: list[Mark] = []
    folders = [os.fspath(path)]
    while folders and len(marks) <= MOST_FILES:
        folder = folders.pop()
        try:
            with os.scandir(folder) as entries:
                for entry in itertools.islice(entries, MOST_FILES + 1 - len(marks)):
                    marks.append(_mark(entry))
                    if entry.is_dir(follow_symlinks=False):
                        folders.append(entry.path)
        except OSError as error:
            marks.append(Mark(folder, error=error.errno or -1))
    return tuple(sorted(marks))


def open_regular(file: Path) -> BinaryIO:
    """Open ``file`` for reading, without a buffer, if it is a regular file or a link to one.

    Raises:
        OSError: it is something else, or it cannot be opened.
        ValueError: no file can have this name.
    """
    # Without waiting: a pipe may have no writer. What was opened is looked at, so that nothing can change in between.
    descriptor = os.open(file, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    try:
        if not stat.S_ISREG(os.fstat(descriptor).st_mode):
            raise OSError(errno.EINVAL, "it is no regular file", os.fspath(file))
        return os.fdopen(descriptor, "rb", buffering=0)
    except BaseException:
        os.close(descriptor)
        raise


def read_regular(file: Path, most: int) -> bytes:
    """Return the content of a regular ``file`` of at most ``most`` bytes.

    Raises:
        OSError: it is no regular file, it is larger, or it cannot be read.
        ValueError: no file can have this name.
    """
    with open_regular(file) as stream:
        _check_size(file, os.fstat(stream.fileno()).st_size, most)
        blocks = []
        left = most + 1
        while left and (block := _block(stream, left)):
            blocks.append(block)
            left -= len(block)
    _check_size(file, most + 1 - left, most)  # some files have no size, and others grow
    return b"".join(blocks)


def sha256(file: Path, most: int = MOST_BYTES) -> tuple[str, int]:
    """Return the sha256 of a regular ``file`` of at most ``most`` bytes, and how many it has.

    Raises:
        OSError: it is no regular file, it is larger, or it cannot be read.
        ValueError: no file can have this name.
    """
    digest = hashlib.sha256()
    size = 0
    with open_regular(file) as stream:
        _check_size(file, os.fstat(stream.fileno()).st_size, most)
        while block := _block(stream, _BLOCK):
            size += len(block)
            _check_size(file, size, most)
            digest.update(block)
    return digest.hexdigest(), size


def write_whole(file: Path, content: bytes) -> None:
    """Write ``file``, so that whoever reads it finds all of this ``content`` or what was there before.

    Raises:
        OSError: it cannot be written.
    """
    draft = file.with_name(f".{file.name}-{secrets.token_hex(4)}")
    try:
        with draft.open("wb") as stream:
            stream.write(content)
            stream.flush()
            os.fsync(stream.fileno())
        draft.replace(file)
    finally:
        draft.unlink(missing_ok=True)


def _mark(entry: os.DirEntry[str]) -> Mark:
    try:
        status = entry.stat()
    except OSError as error:  # a link to nothing, or one to itself
        return Mark(entry.path, error=error.errno or -1)
    rights = (status.st_mode, status.st_uid, status.st_gid)
    return Mark(entry.path, status.st_size, status.st_mtime_ns, status.st_ino, rights)


def _block(stream: BinaryIO, size: int) -> bytes:
    block: bytes | None = stream.read(min(size, _BLOCK))
    if block is None:  # the kernel has regular files that wait for something, such as /proc/kmsg
        raise OSError(errno.EAGAIN, "it keeps its reader waiting")
    return block


def _check_size(file: Path, size: int, most: int) -> None:
    if size > most:
        raise OSError(errno.EFBIG, f"it has more than {most:,} bytes", os.fspath(file))
