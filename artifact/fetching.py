"""Fetch a version from outside into a folder of models: whole and as its metadata say, or not at all."""

import contextlib
import errno
import secrets
import shutil
from collections.abc import Mapping
from pathlib import Path, PurePosixPath
from typing import Protocol

from artifact.errors import DAMAGED, MISSING, NO_SPACE, InvalidVersion, SourceFails
from artifact.files import MOST_BYTES, MOST_FILES, read_regular, sha256
from artifact.layout import METADATA, version_path, versions
from artifact.metadata import MOST_BYTES_OF_METADATA, read_metadata
from artifact.publish import make_readable, rename_unless_there, sync
from artifact.store import Store
from artifact.validate import validate

_OLD = ".draft-old-"
_DRAFT = ".draft-fetched-"  # and the number; a stale one is removed as those of trainers are


class Offered(Protocol):
    """A version as a source offers it."""

    def __str__(self) -> str:
        """Return where it is, without credentials."""

    @property
    def sizes(self) -> Mapping[str, int]:
        """The bytes of each file, by its path in the version."""

    def read(self, path: str, most: int) -> bytes:
        """Return the content of a file of at most ``most`` bytes. Raises SourceFails."""

    def fetch(self, path: str, target: Path) -> None:
        """Write a file to ``target``. Raises SourceFails, or OSError of ``target``."""


class StoredVersion:
    """A version in an object store."""

    def __init__(self, store: Store, name: str, number: int) -> None:
        """List its files. Raises SourceFails."""
        self.number = number
        self._store = store
        self._folder = f"{name}/{number}"
        self.files = store.files(self._folder)
        self.sizes: Mapping[str, int] = {file.path.removeprefix(f"{self._folder}/"): file.size for file in self.files}

    def __str__(self) -> str:
        """Return where it is."""
        return f"{self._store}/{self._folder}"

    @property
    def whole(self) -> bool:
        """Whether it is there to the last file."""
        return METADATA in self.sizes

    def read(self, path: str, most: int) -> bytes:
        """Return the content of a file of at most ``most`` bytes. Raises SourceFails."""
        return self._store.read(f"{self._folder}/{path}", most)

    def fetch(self, path: str, target: Path) -> None:
        """Write a file to ``target``. Raises SourceFails, or OSError of ``target``."""
        self._store.fetch(f"{self._folder}/{path}", target, self.sizes[path])


def fetch_version(offered: Offered, models: Path, name: str, number: int, *, replace: bool = False) -> int | None:
    """Bring ``offered`` to its place as version ``number`` of model ``name`` under ``models``; return its bytes.

    Returns None where the same version is there already. Files that are there from an attempt before, with the right
    sha256, are not fetched again. With ``replace`` it takes the place of another version with its number.

    Raises:
        SourceFails: a file cannot be had or is not what the metadata say, the version is invalid, another one has its
            place, or the disk has no room for it.
    """
    content = offered.read(METADATA, MOST_BYTES_OF_METADATA)
    target = version_path(models, name, number)
    if _is_there(target, content):
        return None
    if target.exists() and not replace:
        raise SourceFails(
            DAMAGED, f"{target} is another version than {offered}: a source and others must not share numbers"
        )
    draft = target.with_name(f"{_DRAFT}{number}")
    try:
        size = _fill(draft, offered, content)
        make_readable(draft)
        sync(draft)
        remove_version(target)
        if not rename_unless_there(draft, target):
            raise FileExistsError(errno.EEXIST, "somebody else has published there", str(target))
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
            shutil.rmtree(draft, ignore_errors=True)  # else half of it would keep others from the disk
        raise SourceFails(NO_SPACE, f"{offered} cannot be written to {models}: {error.strerror or error}") from error
    return size


def forget_drafts(models: Path, name: str, wanted: set[int]) -> None:
    """Remove what is left of attempts to fetch versions of model ``name`` that are not ``wanted`` any more."""
    kept = {f"{_DRAFT}{number}" for number in wanted}
    for draft in [*(models / name).glob(f"{_DRAFT}*"), *(models / name).glob(f"{_OLD}*")]:
        if draft.name not in kept:
            shutil.rmtree(draft, ignore_errors=True)


def remove_version(path: Path) -> None:
    """Remove the version in folder ``path``, so that nobody sees half of it; it need not be there."""
    old = path.with_name(f"{_OLD}{secrets.token_hex(4)}")
    with contextlib.suppress(FileNotFoundError):
        path.rename(old)
        shutil.rmtree(old, ignore_errors=True)


def _is_there(target: Path, content: bytes) -> bool:
    """Say whether a version with this metadata is at ``target``: these have the sha256 of all other files."""
    try:
        return read_regular(target / METADATA, MOST_BYTES_OF_METADATA) == content
    except OSError:
        return False


def _fill(draft: Path, offered: Offered, content: bytes) -> int:
    """Refuse what would lie outside of the version, or be more than one can have, before it is fetched."""
    (draft / METADATA).parent.mkdir(parents=True, exist_ok=True)
    (draft / METADATA).write_bytes(content)
    try:
        files = read_metadata(draft).files
        _check_names(offered, files)
        for file in [file for file in draft.rglob("*") if file.is_file()]:  # of an attempt at other content
            if file.relative_to(draft).as_posix() not in (METADATA, *files):
                file.unlink()
        missing = [path for path in offered.sizes if path in files and not _has(draft / path, files[path])]
        _check_room(draft, offered, sum(offered.sizes[path] for path in missing))
        for path in missing:
            (draft / path).parent.mkdir(parents=True, exist_ok=True)
            offered.fetch(path, draft / path)
            if not _has(draft / path, files[path]):
                (draft / path).unlink(missing_ok=True)
                raise SourceFails(DAMAGED, f"{offered}/{path} differs from its sha256 in {METADATA}")
        validate(draft)
    except InvalidVersion as error:
        raise SourceFails(DAMAGED, f"{offered} is no valid version: {error.fault}") from error
    return sum(offered.sizes[path] for path in files)


def _check_names(offered: Offered, files: Mapping[str, str]) -> None:
    """Refuse what would be written outside of the version, or be more than one can have, before it is fetched."""
    if len(files) > MOST_FILES:
        raise SourceFails(DAMAGED, f"{offered} has more than {MOST_FILES:,} files")
    for path in files:
        parts = PurePosixPath(path).parts
        if not isinstance(path, str) or not parts or path.startswith("/") or ".." in parts or "\0" in path:
            raise SourceFails(DAMAGED, f"{offered}: {METADATA} names {path!r}, which lies outside the version")
        if path not in offered.sizes:
            raise SourceFails(MISSING, f"{offered}/{path} is not there, and {METADATA} names it")
    if sum(offered.sizes[path] for path in files) > MOST_BYTES:
        raise SourceFails(DAMAGED, f"{offered} has more than {MOST_BYTES:,} bytes")


def _check_room(draft: Path, offered: Offered, needed: int) -> None:
    free = shutil.disk_usage(draft).free
    if needed > free:
        shutil.rmtree(draft, ignore_errors=True)
        raise SourceFails(
            NO_SPACE,
            f"{offered} does not fit: {needed / 1e6:,.1f} MB are to be fetched, and {draft.parent} has "
            f"{free / 1e6:,.1f} MB free; give it more room, or remove versions there",
        )


def _has(file: Path, digest: str) -> bool:
    """Say whether ``file`` is there with this sha256."""
    try:
        return sha256(file)[0] == digest
    except FileNotFoundError:
        return False


def fetch_newest(store: Store, models: Path, name: str) -> int | None:
    """Bring the newest whole version of model ``name`` from ``store`` to ``models``, and return its number.

    What is newer under ``models`` is gone from the store, and is removed there. Returns None where there is none.

    Raises:
        SourceFails: the store cannot be read, or the version is not what its metadata say.
    """
    found = (StoredVersion(store, name, number) for number in reversed(store.versions(name)))
    newest = next((version for version in found if version.whole), None)
    for number in versions(models, name):
        if newest is None or number > newest.number:
            remove_version(version_path(models, name, number))
    if newest is None:
        return None
    fetch_version(newest, models, name, newest.number, replace=True)
    return newest.number
