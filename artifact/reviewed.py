"""How a picture is called that a person has labelled: the service writes such files, and the training counts them."""

from pathlib import PurePath

_PREFIX = "reviewed-"
_DIGITS = 32  # of the sha256 of its content


def reviewed_name(digest: str, suffix: str) -> str:
    """Return the name of the file of a reviewed picture, of its sha256 in hexadecimal and its ending with the dot."""
    return f"{_PREFIX}{digest[:_DIGITS]}{suffix}"


def is_reviewed(name: str) -> bool:
    """Say whether a file of this name is a reviewed picture."""
    return PurePath(name).name.startswith(_PREFIX)
