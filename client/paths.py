"""What people's paths mean: the pictures behind them, one after the other, found while earlier ones are classified."""

# Path would turn ./a.jpg into a.jpg; a name comes back as people gave it.
# ruff: noqa: PTH110, PTH112, PTH116, PTH118, PTH208

import fnmatch
import io
import os
import re
import stat
import sys
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePath
from typing import BinaryIO

from client.pictures import has_suffix, is_visible
from client.results import Result

STDIN = "-"
LARGEST_BYTES = 128 * 1024 * 1024  # of one file; a file is in memory while it is sent

_BLOCK = 64 * 1024
_MAGIC = re.compile(r"[*?\[]")
_ANY_DEPTH = "**"
_ENDING = 16  # characters of what a name ends in

PassedOver = Counter[str]
"""The files of folders that are no pictures by their names: how many end in what."""


@dataclass(frozen=True, slots=True)
class Picture:
    """A file that may be a picture. ``size`` is in bytes; None where only reading tells, as with a pipe."""

    file: str
    size: int | None
    from_stdin: bool = False

    def read(self) -> bytes:
        """Return the content of the file.

        Raises:
            OSError: it cannot be read, or is larger than ``LARGEST_BYTES``.
        """
        if self.from_stdin:
            return _read(sys.stdin.buffer)
        with Path(self.file).open("rb") as stream:
            return _read(stream)


def given(path: str, passed_over: PassedOver | None = None) -> Iterator[Picture | Result]:
    """Yield what ``path`` on a command line stands for: a file, a folder, a glob pattern, or ``-`` for standard input.

    A path that leads to no picture yields a result with an error. A pattern counts only where no file has that name.
    What is passed over in folders is added to ``passed_over``.
    """
    if path == STDIN:
        yield Picture(path, None, from_stdin=True)
    elif _MAGIC.search(path) and not os.path.lexists(path):
        yield from _matching(path, passed_over)
    else:
        yield from named(path, passed_over)


def named(path: str, passed_over: PassedOver | None = None) -> Iterator[Picture | Result]:
    """Yield the picture in the file ``path``, or those at any depth in the folder ``path``, sorted by name.

    In a folder, files are taken as a training takes them (``client.pictures``). Each folder is entered once, however
    many links lead to it.
    """
    try:
        status = os.stat(path)
    except FileNotFoundError:
        yield Result(path, error="not_found", message="There is no such file or folder.")
    except (OSError, ValueError) as error:
        yield unreadable(path, error)
    else:
        if stat.S_ISDIR(status.st_mode):
            yield from _in_folder(path, Counter() if passed_over is None else passed_over)
        else:
            yield Picture(path, status.st_size if stat.S_ISREG(status.st_mode) else None)


def listed(stream: io.BufferedReader, separator: bytes) -> Iterator[str]:
    r"""Yield the names in ``stream``, each ended by ``separator``: a newline, also ``\r\n``, or a NUL byte."""
    rest = b""
    while block := stream.read1(_BLOCK):  # what is there, so that names are taken while others are still looked for
        *names, rest = (rest + block).split(separator)
        yield from _texts(names, separator)
    yield from _texts([rest], separator)


def unreadable(path: str, error: Exception) -> Result:
    """Return the result of a path that cannot be read."""
    if isinstance(error, ValueError):  # only a NUL in the name is one
        return Result(path, error="unreadable", message="The name holds a NUL byte; with find -print0 give --null.")
    reason = (error.strerror if isinstance(error, OSError) else None) or str(error)
    return Result(path, error="unreadable", message=f"It cannot be read: {reason}.")


def _read(stream: BinaryIO) -> bytes:
    content = stream.read(LARGEST_BYTES + 1)
    if len(content) > LARGEST_BYTES:
        raise OSError(f"it is larger than {LARGEST_BYTES // 1024**2} MiB")
    return content


def _texts(names: Sequence[bytes], separator: bytes) -> Iterator[str]:
    for name in names:
        text = os.fsdecode(name.removesuffix(b"\r") if separator == b"\n" else name)
        if text:
            yield text


def _in_folder(top: str, passed_over: PassedOver) -> Iterator[Picture | Result]:
    found = False
    for folder, names in _folders(top, passed_over):
        if isinstance(names, OSError):
            found = True
            yield unreadable(folder, names)
            continue
        for name in names:
            found = True
            yield from named(os.path.join(folder, name))
    if not found:
        message = "There is no picture in this folder, by the names: .jpg, .png and so on."
        yield Result(top, error="no_pictures", message=message)


def _folders(top: str, passed_over: PassedOver) -> Iterator[tuple[str, list[str] | OSError]]:
    """Yield ``top`` and each folder below it once, with the sorted names of its pictures or why it cannot be read."""
    seen: set[tuple[int, int]] = set()
    waiting = [top]
    while waiting:
        folder = waiting.pop()
        try:
            status = os.stat(folder)
            if (status.st_dev, status.st_ino) in seen:
                continue
            seen.add((status.st_dev, status.st_ino))
            pictures, folders = _entries(folder, passed_over)
        except OSError as error:
            yield folder, error
            continue
        yield folder, pictures
        waiting += [os.path.join(folder, name) for name in reversed(folders)]


def _entries(folder: str, passed_over: PassedOver) -> tuple[list[str], list[str]]:
    """Return the sorted names of the pictures and of the folders in ``folder`` that are visible."""
    pictures, folders = [], []
    with os.scandir(folder) as entries:
        for entry in entries:
            if not is_visible(entry.name):
                continue
            if _is_folder(entry):
                folders.append(entry.name)
            elif _may_be_picture(entry):
                pictures.append(entry.name)
            else:
                passed_over[PurePath(entry.name).suffix.lower()[:_ENDING]] += 1
    return sorted(pictures), sorted(folders)


def _may_be_picture(entry: os.DirEntry[str]) -> bool:
    """Say so of files, not of sockets and pipes; a link that leads nowhere is told as an error later."""
    if entry.is_symlink() and not os.path.exists(entry):
        return True
    return has_suffix(entry.name) and entry.is_file()


def _is_folder(entry: os.DirEntry[str]) -> bool:
    try:
        return entry.is_dir()
    except OSError:  # a link to itself
        return False


def _matching(pattern: str, passed_over: PassedOver | None) -> Iterator[Picture | Result]:
    """Yield what a shell would have made of ``pattern``: files whatever their suffix, and folders to search."""
    found = False
    root = "/" if pattern.startswith("/") else ""
    for path in _matches(root, pattern.removeprefix("/").split("/")):
        found = True
        yield from named(path, passed_over)
    if not found:
        yield Result(pattern, error="not_found", message="No file matches.")


def _matches(base: str, parts: Sequence[str]) -> Iterator[str]:
    """Yield the paths below ``base`` whose components match ``parts``.

    The standard library's ``glob`` would go round in a loop of links until the system stops it.
    """
    if not parts:
        if os.path.lexists(base):
            yield base
    elif parts[0] == _ANY_DEPTH and len(parts) > 1:
        for folder, _ in _folders(base or os.curdir, Counter()):
            below = _matches(folder if base else folder[2:], parts[1:])  # without "." or "./"
            yield from (path for path in below if not os.path.isdir(path))
    elif _MAGIC.search(parts[0]) and parts[0] != _ANY_DEPTH:
        for name in _names(base, parts[0]):
            yield from _matches(os.path.join(base, name), parts[1:])
    else:  # a name, or ** at the end, which is the folder itself
        name = "" if parts[0] == _ANY_DEPTH else parts[0]
        yield from _matches(os.path.join(base, name) or os.curdir, parts[1:])


def _names(folder: str, pattern: str) -> list[str]:
    """Return the sorted names in ``folder`` that match ``pattern``; hidden ones only where it begins with a dot."""
    try:
        names = os.listdir(folder or os.curdir)
    except OSError:
        return []
    return sorted(
        name
        for name in names
        if fnmatch.fnmatchcase(name, pattern) and (pattern.startswith(".") or not name.startswith("."))
    )
