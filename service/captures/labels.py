"""Labels as the names of folders, also such as people type."""

import unicodedata
from pathlib import Path

from artifact.pictures import is_visible
from service.inference.errors import InvalidRequest

MOST_CHARACTERS = 100  # of a label
_MOST_BYTES = 200  # of it in UTF-8; file systems take 255
_SEPARATORS = "/\\"


def canonical(label: str) -> str:
    """Return ``label`` as it is compared: in Unicode's NFC, without spaces at its ends."""
    return unicodedata.normalize("NFC", label).strip()


def folder_name(label: str) -> str:
    """Return ``label`` as the name of a folder, in its canonical form.

    Raises:
        InvalidRequest: it cannot be one, on one of the usual systems; the message says why.
    """
    name = canonical(label)
    if not name:
        raise InvalidRequest("The label is empty.")
    if len(name) > MOST_CHARACTERS or len(name.encode(errors="replace")) > _MOST_BYTES:
        raise InvalidRequest(f"The label is too long; it may have {MOST_CHARACTERS} characters, fewer where not Latin.")
    if not name.isprintable() or any(separator in name for separator in _SEPARATORS):
        raise InvalidRequest("The label becomes the name of a folder, which has no slashes and no line breaks.")
    if not is_visible(name) or name.endswith("."):
        raise InvalidRequest("The label becomes the name of a folder, which neither begins nor ends with a dot.")
    return name


def labels_in(folder: Path) -> list[str]:
    """Return the labels that have a folder in ``folder``, sorted; none where it is not there."""
    if not folder.is_dir():
        return []
    return sorted(
        canonical(path.name)
        for path in folder.iterdir()
        if is_visible(path.name) and path.is_dir() and path.name.isprintable()
    )
