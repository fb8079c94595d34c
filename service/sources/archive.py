"""Models in an archive that a web server has: a .tar or .tar.gz."""

import gzip
import shutil
import tarfile
import zlib
from collections.abc import Callable
from pathlib import Path, PurePosixPath
from typing import IO, Any, cast

from artifact.errors import DAMAGED, SourceFails, Stopped
from artifact.files import MOST_BYTES, MOST_FILES
from service.sources import http
from service.sources.catalogue import Catalogue, catalogue_of

_BLOCK = 1024 * 1024
_MOST_AT_ONCE = 16 * 1024 * 1024  # that a header of an archive may take of memory; a real one has some hundred bytes
_MOST_MEMBERS = 10 * MOST_FILES
_GZIP = b"\x1f\x8b"
_BROKEN = (tarfile.TarError, EOFError, zlib.error, gzip.BadGzipFile, ValueError)


class Archive:
    """The models in an archive, which is fetched when it has changed and removed when its versions are out."""

    def __init__(self, url: str, folder: Path, stop: Callable[[], bool]) -> None:
        """Take its address, and the folder that the archive is fetched to."""
        self._address = http.address_of(url)
        self._file = folder / "archive"
        self._stop = stop
        self._opened: _Opened | None = None

    def __str__(self) -> str:
        """Return its address without user, password and query."""
        return self._address.shown

    def look(self, known: str | None) -> Catalogue | None:
        """Fetch the archive where it has changed, and return what is in it."""
        room = shutil.disk_usage(self._file.parent).free
        mark = http.download(self._address, self._file, MOST_BYTES, self._stop, room, known)
        if mark is None:
            return None
        try:
            self._opened = _Opened(self._file, str(self), self._stop)
            return catalogue_of(self._opened, self._opened.sizes, mark)
        except SourceFails as fault:
            return Catalogue({}, mark, fault)

    def close(self) -> None:
        """Remove the archive."""
        if self._opened is not None:
            self._opened.close()
            self._opened = None
        self._file.unlink(missing_ok=True)


class _Opened:
    """The files of an archive on the disk. Nothing but files and folders may be in it, and none outside of it."""

    def __init__(self, file: Path, shown: str, stop: Callable[[], bool]) -> None:
        self._shown = shown
        self._stop = stop
        self._members: dict[str, tarfile.TarInfo] = {}
        with file.open("rb") as stream:
            packed = stream.read(len(_GZIP)) == _GZIP
        self._stream = cast(IO[bytes], gzip.open(file) if packed else file.open("rb"))  # noqa: SIM115 - closed by close
        try:
            self._tar = tarfile.open(fileobj=_Bounded(self._stream), mode="r:")  # noqa: SIM115
            self._read_members()
        except _BROKEN as error:
            self.close()
            raise self._damaged(str(error) or "it ends too early") from None
        except BaseException:
            self.close()
            raise
        self.sizes = {path: member.size for path, member in self._members.items()}

    def __str__(self) -> str:
        return self._shown

    def _read_members(self) -> None:
        total = 0
        for number, member in enumerate(self._tar):
            if self._stop():
                raise Stopped
            path = PurePosixPath(member.name)
            if member.isdir():
                continue
            if not member.isreg():
                raise self._damaged(
                    f"{member.name!r} is a link or a device; an archive may have files and folders only"
                )
            if path.is_absolute() or ".." in path.parts:
                raise self._damaged(f"{member.name!r} would lie outside of it")
            total += member.size
            if number >= _MOST_MEMBERS or total > MOST_BYTES:
                raise self._damaged(f"it has more than {_MOST_MEMBERS:,} files or {MOST_BYTES:,} bytes")
            self._members[str(path)] = member

    def read(self, path: str, most: int) -> bytes:
        """Return the content of a member."""
        if self.sizes[path] > most:
            raise self._damaged(f"{path} has more than {most:,} bytes")
        try:
            return self._stream_of(path).read()
        except _BROKEN as error:
            raise self._damaged(str(error) or "it ends too early") from None

    def fetch(self, path: str, target: Path) -> None:
        """Write a member to ``target``."""
        member = self._stream_of(path)
        with target.open("wb") as file:
            while True:
                if self._stop():
                    raise Stopped
                try:
                    block = member.read(_BLOCK)
                except _BROKEN as error:
                    raise self._damaged(str(error) or "it ends too early") from None
                if not block:
                    return
                file.write(block)

    def close(self) -> None:
        """Close the file."""
        self._stream.close()

    def _stream_of(self, path: str) -> IO[bytes]:
        return cast(IO[bytes], self._tar.extractfile(self._members[path]))  # there is one of a regular file

    def _damaged(self, fault: str) -> SourceFails:
        return SourceFails(DAMAGED, f"{self._shown} is no archive that can be used: {fault}")


class _Bounded:
    """A stream that refuses to be read into memory in one large piece, as forged headers would have it."""

    def __init__(self, stream: IO[bytes]) -> None:
        self._stream = stream

    def read(self, size: int = -1) -> bytes:
        if not 0 <= size <= _MOST_AT_ONCE:
            raise tarfile.ReadError("one of its headers is too large")
        return self._stream.read(size)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)
