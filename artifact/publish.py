"""Publish a model version: whole or not at all, and never over another one."""

import contextlib
import dataclasses
import errno
import os
import secrets
import shutil
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from artifact.layout import EXTRA, METADATA, latest, version_path
from artifact.metadata import Metadata
from artifact.store import Store
from artifact.validate import checksums, validate

_DRAFT_PREFIX = ".draft-"
_STALE_SECONDS = 24 * 3600.0
_MOST_TRIES = 10


class Draft:
    """A version in the making: write into ``path``, then call ``publish``."""

    def __init__(self, models: Path, name: str, path: Path, store: Store | None = None) -> None:
        self.models = models
        self.name = name
        self.path = path
        self._store = store
        self._claimed: int | None = None

    def next_version(self) -> int:
        """Return the number that this version will have, unless another trainer is faster in the same folder.

        In a store the number is claimed, so that it stays this draft's own. Raises SourceFails.
        """
        if self._store is None:
            return (latest(self.models, self.name) or 0) + 1
        if self._claimed is None:
            self._claimed = self._store.claim(self.name)
        return self._claimed

    @property
    def extra(self) -> Path:
        """The folder for Darkroom's own files, made on first use."""
        folder = self.path / EXTRA
        folder.mkdir(exist_ok=True)
        return folder

    def publish(self, metadata: Metadata) -> Path:
        """Add ``metadata`` with the checksums of all files, check the whole, and rename it to the next free version.

        ``metadata.version`` and ``metadata.files`` are filled in here. Returns the folder of the new version. Where it
        goes to a store, it is uploaded before that, so that this folder has nothing that the store lacks.

        Raises:
            InvalidVersion: what was written is not a valid version; nothing is published.
            SourceFails: the store does not take it; nothing is published.
            OSError: the disk is full or the folder cannot be written.
        """
        metadata_file = self.extra / Path(METADATA).name
        files = checksums(self.path)
        version = self.next_version()
        while True:
            numbered = dataclasses.replace(metadata, name=self.name, version=version, files=files)
            metadata_file.write_text(numbered.to_json(), encoding="utf-8")
            validate(self.path)
            make_readable(self.path)
            sync(self.path)
            if self._store is not None:
                self._store.upload(self.path, self.name, version)
            target = version_path(self.models, self.name, version)
            if rename_unless_there(self.path, target):
                return target
            if self._store is not None:
                raise FileExistsError(errno.EEXIST, "it is there, and the store did not have its number", str(target))
            version += 1  # another trainer was faster; its version stays


@contextmanager
def draft(models: Path, name: str, store: Store | None = None) -> Iterator[Draft]:
    """Make a temporary folder beside the versions of model ``name``; remove it again unless it was published.

    With a ``store`` that is where it is published, and ``models`` keeps a copy.

    Raises:
        OSError: the folder cannot be written.
    """
    folder = models / name
    path = folder / f"{_DRAFT_PREFIX}{secrets.token_hex(8)}"
    try:  # which begins here, since a signal's handler may raise as soon as a folder is there
        _make(path)
        _remove_stale(folder)
        yield Draft(models, name, path, store)
    except OSError as error:
        if error.errno and error.filename is None:  # of a full disk Python does not say where it is
            error.filename = str(folder)
        raise
    finally:
        shutil.rmtree(path, ignore_errors=True)
        with contextlib.suppress(OSError):  # it has versions, or another trainer's draft
            folder.rmdir()


def _make(path: Path) -> None:
    """Make the folder of a draft, and those that it lies in, so that a power cut leaves those as well."""
    for _ in range(_MOST_TRIES):
        missing = [folder for folder in path.parents if not folder.exists()]
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.mkdir(mode=0o700)
        except FileNotFoundError:  # another trainer, whose publishing came to nothing, took its empty folder away
            continue
        for folder in missing:
            with contextlib.suppress(PermissionError):  # it may be written, and not read
                sync_folder(folder.parent)
        return
    raise FileNotFoundError(errno.ENOENT, "it is removed again and again", str(path.parent))


def rename_unless_there(source: Path, target: Path) -> bool:
    """Rename a folder unless ``target`` exists, be it as a link to nowhere; say whether it was done."""
    if os.path.lexists(target):
        return False
    try:
        source.rename(target)
    except OSError:
        if os.path.lexists(target):
            return False
        raise
    sync_folder(target.parent)
    return True


def make_readable(path: Path) -> None:
    """Let every user read the version: a trainer's user is seldom the service's, and a draft is its maker's alone."""
    path.chmod(0o755)
    for entry in path.rglob("*"):
        entry.chmod(0o755 if entry.is_dir() else 0o644)


def sync(path: Path) -> None:
    """Bring every file and folder below ``path`` to the disk, so that a power cut after a rename leaves none empty."""
    for entry in path.rglob("*"):
        if entry.is_dir():
            sync_folder(entry)
        else:
            with entry.open("rb") as stream:
                os.fsync(stream.fileno())
    sync_folder(path)


def sync_folder(path: Path) -> None:
    """Bring to the disk which names a folder has."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _remove_stale(folder: Path) -> None:
    """Remove what trainers that were killed left behind; a day is longer than any publishing takes."""
    for entry in folder.glob(f"{_DRAFT_PREFIX}*"):
        with contextlib.suppress(FileNotFoundError):  # its trainer still runs, and has just published or removed it
            if time.time() - entry.stat().st_mtime > _STALE_SECONDS:
                shutil.rmtree(entry, ignore_errors=True)
