"""What a sync remembers from one start to the next: what it has fetched, and what the source was like then."""

import contextlib
import json
from pathlib import Path
from typing import Any

from artifact.files import write_whole

_MOST_BYTES = 16 * 1024 * 1024


class Journal:
    """The notes of a sync, in one file. Without it everything is looked at again, and nothing is removed."""

    def __init__(self, file: Path, source: str) -> None:
        """Read the notes in ``file`` where they are of this ``source``."""
        self._file = file
        self._source = source
        self.mark: str | None = None
        """What all of the source was like when all of it was here."""
        self.versions: dict[str, dict[str, str]] = {}
        """What each version was like that was fetched, by model and number."""
        self.serving: dict[str, str] = {}
        """What the serving.json of each model was like that was fetched."""
        with contextlib.suppress(OSError, ValueError, KeyError, TypeError, AttributeError):
            notes = _read(file)
            same = notes["source"] == source  # what another one had under the same number may differ
            versions = {
                str(name): {str(int(number)): str(mark) if same else "" for number, mark in found.items()}
                for name, found in notes["versions"].items()
            }
            serving = {str(name): str(mark) for name, mark in notes["serving"].items()} if same else {}
            self.mark = str(notes["mark"]) if same and notes["mark"] else None
            self.versions, self.serving = versions, serving

    def write(self, fault: str | None) -> None:
        """Write the notes, whole or not at all, and the ``fault`` of the last attempt for others to tell.

        Raises:
            OSError: the disk cannot be written.
        """
        notes = {
            "source": self._source,
            "fault": fault,
            "mark": self.mark,
            "versions": self.versions,
            "serving": self.serving,
        }
        write_whole(self._file, json.dumps(notes, indent=1).encode())


def fault_in(file: Path) -> str | None:
    """Return the fault of the last attempt that the process has noted which syncs; None where it had none."""
    with contextlib.suppress(OSError, ValueError, AttributeError):
        fault = _read(file).get("fault")
        return fault if isinstance(fault, str) else None
    return None


def _read(file: Path) -> Any:
    with file.open("rb") as stream:
        return json.loads(stream.read(_MOST_BYTES))
