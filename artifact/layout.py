"""Where things lie: ``<models>/<name>/<version>/``, integer versions, the highest is the latest."""

import itertools
import os
from collections.abc import Iterator
from pathlib import Path

SAVED_MODEL = "saved_model.pb"
EXTRA = "assets.extra"
METADATA = f"{EXTRA}/metadata.json"
MODEL_CARD = f"{EXTRA}/MODEL_CARD.md"
REPORT = f"{EXTRA}/report.html"  # a page of its own; the service shows what is in its <style> and its <main>
REFERENCE_EMBEDDING = f"{EXTRA}/reference_embedding.bin"  # little-endian float32 [2, D]: mean and standard deviation
INT8_MODEL = f"{EXTRA}/int8/model.xml"  # OpenVINO IR of the quantised network, where there is one
INT8_WEIGHTS = f"{EXTRA}/int8/model.bin"

_MOST_ENTRIES = 100_000  # of a folder that are looked at


def models_in(folder: Path) -> list[str]:
    """Return the names of the models in ``folder``, those that have a version, in order; none where it does not exist.

    What is hidden or cannot be read, such as the ``lost+found`` of a disk, is no model.

    Raises:
        OSError: the folder cannot be read.
    """
    return sorted(entry.name for entry in _entries(folder) if not _is_hidden(entry) and _has_versions(entry))


def versions(models: Path, name: str) -> list[int]:
    """Return the versions of model ``name`` under ``models`` in ascending order; empty where there are none.

    Only folders whose name is a positive integer without leading zeros count, as in TensorFlow Serving.

    Raises:
        OSError: the folder cannot be read.
    """
    return sorted(int(entry.name) for entry in _entries(models / name) if _is_version(entry))


def passed_over(models: Path, name: str) -> dict[str, str]:
    """Return what lies among the versions of model ``name`` and looks like one, by its name, and why it is none.

    Raises:
        OSError: the folder cannot be read.
    """
    found = {entry.name: _why_no_version(entry) for entry in _entries(models / name) if not _is_hidden(entry)}
    return {name: why for name, why in sorted(found.items()) if why}


def latest(models: Path, name: str) -> int | None:
    """Return the highest version of model ``name`` under ``models``, or None where there is none."""
    return max(versions(models, name), default=None)


def version_path(models: Path, name: str, version: int) -> Path:
    """Return the folder of one version, whether or not it exists."""
    return models / name / str(version)


def is_number_of_a_version(name: str) -> bool:
    """Say whether a folder of this name is a version: a positive integer without leading zeros."""
    return _is_number(name) and not name.startswith("0")


def _entries(folder: Path) -> Iterator[os.DirEntry[str]]:
    """Yield what is in ``folder``; nothing where there is no such folder."""
    if not folder.is_dir():
        return
    with os.scandir(folder) as entries:
        yield from itertools.islice(entries, _MOST_ENTRIES)


def _has_versions(entry: os.DirEntry[str]) -> bool:
    try:
        return any(_is_version(below) for below in _entries(Path(entry.path)))
    except OSError:
        return False


def _is_hidden(entry: os.DirEntry[str]) -> bool:
    return entry.name.startswith(".")


def _is_number(name: str) -> bool:
    return name.isascii() and name.isdigit()


def _is_version(entry: os.DirEntry[str]) -> bool:
    return is_number_of_a_version(entry.name) and _is_folder(entry)


def _is_folder(entry: os.DirEntry[str]) -> bool:
    try:
        return entry.is_dir()
    except OSError:  # a link to itself
        return False


def _why_no_version(entry: os.DirEntry[str]) -> str | None:
    """Return why ``entry`` is no version; None where it is one, or a file that nobody would take for one."""
    if _is_number(entry.name):
        if entry.name.startswith("0"):
            return "leading zeros"
        return None if _is_folder(entry) else "no folder"
    return "no whole number" if _is_folder(entry) or entry.is_symlink() else None
