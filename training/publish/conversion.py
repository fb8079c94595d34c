"""What the exports to other runtimes share: what has to be installed, and a file that is there whole or not at all."""

import os
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path

from training.errors import TrainingError

EXTRA = "darkroom[export]"


def require(packages: Sequence[str], purpose: str) -> None:
    """Find out before any work that one of the ``packages``, by their names in Python, is missing.

    Raises:
        TrainingError: it is; the message says what for it is needed, and how to install it.
    """
    missing = [package for package in packages if find_spec(package) is None]
    if missing:
        raise TrainingError(f"{purpose} needs {' and '.join(missing)}: pip install '{EXTRA}'")


@contextmanager
def whole_file(path: Path) -> Iterator[Path]:
    """Give the block a path beside ``path`` to write a file to, which becomes ``path`` when the block ends.

    Where the block fails nothing is left of it, and a file that was at ``path`` before is still there.

    Raises:
        TrainingError: ``path`` is a folder, or its folder is missing or cannot be written.
        OSError: the disk is full.
    """
    if path.is_dir():
        raise TrainingError(f"{path} is a folder; name a file")
    try:
        beside = tempfile.TemporaryDirectory(prefix=".draft-", dir=path.parent)
    except OSError as error:
        raise TrainingError(f"{path} cannot be written ({error.strerror}); choose another place") from error
    with beside as folder:
        draft = Path(folder) / path.name
        yield draft
        with draft.open("rb") as stream:
            os.fsync(stream.fileno())  # so that a power cut after the renaming cannot leave it empty
        draft.replace(path)
