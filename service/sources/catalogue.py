"""What a source offers: models, their versions, and the files of these."""

import functools
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import NamedTuple, Protocol

from artifact.errors import DAMAGED, MISSING, SourceFails
from artifact.fetching import Offered
from artifact.layout import METADATA, is_number_of_a_version
from artifact.metadata import MOST_BYTES_OF_METADATA
from service.inference.plan import MOST_BYTES_OF_PLAN, SERVING_FILE

_DEEPEST = 2  # NAME/VERSION
_LONGEST_NAME = 200


class Entry(NamedTuple):
    """Something that a source offers: what changes when it does, and what reads it."""

    mark: str
    read: Callable[[], bytes]


class Version(NamedTuple):
    """A whole version: what changes when it does, and what its files are read by."""

    mark: str
    offered: Offered


class Versions(Protocol):
    """The versions of a model; each is looked at when it is asked for."""

    @property
    def numbers(self) -> list[int]:
        """The numbers that there are, in ascending order."""

    def get(self, number: int) -> Version | None:
        """Return a version; None where it is not whole. Raises SourceFails."""


@dataclass(frozen=True)
class Listed:
    """Versions that were all found in one look."""

    found: Mapping[int, Version]

    @property
    def numbers(self) -> list[int]:
        """The numbers that there are, in ascending order."""
        return sorted(self.found)

    def get(self, number: int) -> Version | None:
        """Return a version."""
        return self.found.get(number)


class Model(NamedTuple):
    """A model: its versions, and its serving.json where there is one."""

    versions: Versions
    serving: Entry | None


@dataclass(frozen=True)
class Catalogue:
    """All that a source offers by now. ``mark`` changes when anything of it does; empty where only its parts tell.

    ``fault`` is why it cannot be used, where that will not be otherwise before it changes.
    """

    models: Mapping[str, Model]
    mark: str = ""
    fault: SourceFails | None = None


class Source(Protocol):
    """Where models come from."""

    def __str__(self) -> str:
        """Return its address without anything secret."""

    def look(self, known: str | None) -> Catalogue | None:
        """Return what there is; None where that is what it was when its mark was ``known``. Raises SourceFails."""

    def close(self) -> None:
        """Let go of what was fetched for the last catalogue."""


class Files(Protocol):
    """All files of an archive or a repository, by their paths in it."""

    def __str__(self) -> str:
        """Return its address without anything secret."""

    def read(self, path: str, most: int) -> bytes:
        """Return the content of a file of at most ``most`` bytes. Raises SourceFails."""

    def fetch(self, path: str, target: Path) -> None:
        """Write a file to ``target``. Raises SourceFails, or OSError of ``target``."""


class VersionAmongFiles:
    """A version whose files lie in one folder among others."""

    def __init__(self, files: Files, folder: str, sizes: Mapping[str, int]) -> None:
        """Take the ``folder``, with a slash at its end or empty, and the bytes of all files by their whole paths."""
        self._files = files
        self._folder = folder
        self.sizes: Mapping[str, int] = {
            path.removeprefix(folder): size for path, size in sizes.items() if path.startswith(folder)
        }

    def __str__(self) -> str:
        """Return where it is."""
        return f"{self._files}/{self._folder}".rstrip("/")

    def read(self, path: str, most: int) -> bytes:
        """Return the content of a file of at most ``most`` bytes. Raises SourceFails."""
        return self._files.read(self._folder + path, most)

    def fetch(self, path: str, target: Path) -> None:
        """Write a file to ``target``. Raises SourceFails, or OSError of ``target``."""
        self._files.fetch(self._folder + path, target)


def catalogue_of(files: Files, sizes: Mapping[str, int], mark: str) -> Catalogue:
    """Return the models among ``files`` of these ``sizes``, which lie in NAME/VERSION/, in VERSION/ or are a version.

    What a folder does not say, its version's metadata do. ``mark`` changes when any of the files does. Raises
    SourceFails where metadata cannot be had.
    """
    found: dict[str, dict[int, Version]] = {}
    serving: dict[str, Entry] = {}
    for path in sizes:
        folder = path.removesuffix(METADATA)
        parts = PurePosixPath(folder).parts
        if folder == path or len(parts) > _DEEPEST or (parts and not is_number_of_a_version(parts[-1])):
            continue
        offered = VersionAmongFiles(files, folder, sizes)
        try:
            name, number = _told_by(offered) if len(parts) < _DEEPEST else (parts[0], 0)
        except SourceFails as fault:
            if fault.reason != DAMAGED:
                raise
            return Catalogue({}, mark, fault)
        number = int(parts[-1]) if parts else number
        found.setdefault(name, {})[number] = Version(mark, offered)
        beside = f"{'/'.join(parts[:-1])}/{SERVING_FILE}".lstrip("/")
        if parts and beside in sizes:
            serving[name] = Entry(mark, functools.partial(files.read, beside, MOST_BYTES_OF_PLAN))
    models = {
        name: Model(Listed(versions), serving.get(name)) for name, versions in found.items() if is_model_name(name)
    }
    nothing = (
        f"{files} has no version: its files lie in NAME/VERSION/, in VERSION/ or at the top, {METADATA} among them"
    )
    return Catalogue(models, mark, None if models else SourceFails(MISSING, nothing))


def is_model_name(name: str) -> bool:
    """Say whether a model's folder can have this name."""
    return 0 < len(name) <= _LONGEST_NAME and not name.startswith(".") and not {"/", "\0"} & set(name)


def _told_by(offered: Offered) -> tuple[str, int]:
    """Return the name and the number that the metadata of a version have. Raises SourceFails."""
    try:
        record = json.loads(offered.read(METADATA, MOST_BYTES_OF_METADATA))
        name, number = record["name"], record["version"]
        if isinstance(name, str) and is_model_name(name) and is_number_of_a_version(str(number)):
            return name, int(number)
    except (ValueError, KeyError, TypeError, RecursionError):
        pass
    raise SourceFails(DAMAGED, f"{offered}: {METADATA} does not tell the version's name and number")
