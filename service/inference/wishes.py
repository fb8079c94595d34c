"""What the workers of a service were asked for by hand: one hears it, and all of them do it."""

import contextlib
import fcntl
import json
import logging
from collections.abc import Callable
from pathlib import Path

from artifact.files import write_whole

log = logging.getLogger(__name__)

_MOST_BYTES = 1024 * 1024


class Wishes:
    """Which models are to be unloaded, in a file that all workers read; without one, this worker knows it alone."""

    def __init__(self, file: Path | None = None) -> None:
        """Take the file, which need not be there yet."""
        self._file = file
        self._seen: tuple[int, int] | None = None
        self._unloaded: frozenset[str] = frozenset()

    def unloaded(self, name: str) -> bool:
        """Say whether model ``name`` is to be unloaded, as far as this worker has read."""
        return name in self._unloaded

    def unload(self, name: str) -> None:
        """Let all workers let go of model ``name``, and load it no more."""
        self._change(lambda names: names | {name})

    def load(self, name: str) -> None:
        """Take back that model ``name`` is to be unloaded."""
        self._change(lambda names: names - {name})

    def look(self) -> None:
        """Let all workers look at the folder of models at once."""
        self._change(lambda names: names)

    def changed(self) -> bool:
        """Read what other workers were asked for; say whether there was something new."""
        if self._file is None:
            return False
        try:
            found = self._file.stat()
        except OSError:
            return False
        seen = (found.st_mtime_ns, found.st_ino)
        if seen == self._seen:
            return False
        with contextlib.suppress(OSError, ValueError):
            self._unloaded = frozenset(json.loads(self._file.read_bytes()[:_MOST_BYTES]))
        self._seen = seen
        return True

    def _change(self, change: Callable[[frozenset[str]], frozenset[str]]) -> None:
        if self._file is None:
            self._unloaded = change(self._unloaded)
            return
        try:
            with self._file.with_name(f"{self._file.name}.lock").open("w") as lock:
                fcntl.flock(lock, fcntl.LOCK_EX)
                self.changed()
                self._unloaded = change(self._unloaded)
                write_whole(self._file, json.dumps(sorted(self._unloaded)).encode())
        except OSError as error:
            log.warning("other workers are not told what this one was asked for: %s", error)
            self._unloaded = change(self._unloaded)
