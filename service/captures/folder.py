"""The folder of kept pictures: ``index.sqlite``, ``waiting/ID.jpg`` with ``ID.json`` beside, ``reviewed/LABEL/FILE``.

The index says what is so. A file comes before its row and goes after it, so that whatever ends in between leaves a file
that nobody knows; ``sweep`` takes it away.
"""

import contextlib
import os
import sqlite3
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import msgspec

from artifact.reviewed import reviewed_name
from service.captures.choice import KeptAnswer
from service.captures.errors import TakenByAnother, UnknownCapture
from service.captures.index import REVIEWED, SKIPPED, WAITING, Drawn, Index, New, Place, Row
from service.captures.labels import canonical, folder_name, labels_in

LEASE_SECONDS = 120.0
"""How long a picture is kept for the person that it was given to."""

_BLOCK = 4096  # bytes, in which disks give room
_STRAY_SECONDS = 600.0  # from which on a file without a row is nobody's work under way
_DRAFT = ".draft-"

# What files begin with that the service answers, and how their names end.
_SUFFIXES = (
    (b"\xff\xd8", ".jpg"),
    (b"\x89PNG", ".png"),
    (b"GIF8", ".gif"),
    (b"BM", ".bmp"),
    (b"II", ".tif"),
    (b"MM", ".tif"),
)
_BEHIND = ((b"WEBP", ".webp"), (b"avif", ".avif"), (b"avis", ".avif"))  # at the ninth byte


class Kept(NamedTuple):
    """A picture to keep, with what was answered; ``id`` is the sha256 of its content, in hexadecimal."""

    id: str
    content: bytes
    answer: KeptAnswer


class Summary(NamedTuple):
    """What is there: how many pictures by state and reason, their bytes, the age of the oldest, and the draws."""

    counts: dict[str, dict[str, int]]
    bytes: int
    oldest: float | None  # seconds since the epoch
    drawn: list[Drawn]


class CaptureFolder:
    """Pictures that wait for people, and those that were labelled."""

    def __init__(
        self,
        folder: Path,
        reviewed: Path,
        most_bytes: int,
        most_seconds: float,
        clock: Callable[[], float] = time.time,
    ) -> None:
        """Open ``folder``, or make it; confirmed pictures go to ``reviewed``. ``clock`` is that of the calendar.

        Raises:
            OSError: it cannot be made.
            sqlite3.Error: its index cannot be read or written.
        """
        self._waiting = folder / "waiting"
        self._waiting.mkdir(mode=0o700, parents=True, exist_ok=True)  # strangers' pictures: for nobody else
        self.reviewed = reviewed
        self._most_bytes = most_bytes
        self._most_seconds = most_seconds
        self._clock = clock
        self._index = Index(folder / "index.sqlite")

    def close(self) -> None:
        """Close the index."""
        self._index.close()

    def keep(self, pictures: Sequence[Kept]) -> int:
        """Keep ``pictures``, and the oldest no longer where the room is needed; return how many had been there before.

        Raises:
            OSError, sqlite3.Error: there is no room, or it cannot be written.
        """
        known = self._index.known([picture.id for picture in pictures])
        new = {picture.id: picture for picture in pictures if picture.id not in known}
        answers = {picture.id: msgspec.json.encode(picture.answer) for picture in pictures}
        sizes = {picture.id: _on_disk(picture.content) + _on_disk(answers[picture.id]) for picture in pictures}
        self._make_room(sum(sizes[identity] for identity in new))
        try:
            self._write_new(new.values(), answers)
            self._tell_index(pictures, answers, sizes)
        except BaseException:
            self._take_back(new)
            raise
        return len(pictures) - len(new)

    def _write_new(self, pictures: Iterable[Kept], answers: Mapping[str, bytes]) -> None:
        for picture in pictures:
            place = self._waiting / f"{picture.id}{suffix_of(picture.content)}"
            _write(place.with_suffix(".json"), answers[picture.id])
            _write(place, picture.content)

    def _tell_index(self, pictures: Iterable[Kept], answers: Mapping[str, bytes], sizes: Mapping[str, int]) -> None:
        with self._index.transaction():
            for picture in pictures:
                answer = picture.answer
                suffix, size, label = suffix_of(picture.content), sizes[picture.id], answer.predictions[0].label
                self._index.add(
                    New(
                        picture.id, suffix, size, answer.time, answers[picture.id], answer.reasons,
                        answer.model, answer.version, canonical(label), answer.suggested,
                    )
                )  # fmt: skip

    def _take_back(self, new: Mapping[str, Kept]) -> None:
        """Remove the files of what the index does not know: where the disk is full, they would keep it so."""
        with contextlib.suppress(sqlite3.Error):
            for identity in new.keys() - self._index.known(list(new)):
                self._unlink(identity, suffix_of(new[identity].content))

    def expire(self) -> None:
        """Take away what was kept for too long."""
        self._make_room(0)

    def lease(self, reviewer: str, count: int) -> list[Row]:
        """Give ``reviewer`` up to ``count`` pictures, some of which he may have already; nobody else gets them."""
        now = self._clock()
        with self._index.transaction():
            return self._index.lease(reviewer, count, now, now + LEASE_SECONDS)

    def content(self, identity: str) -> bytes:
        """Return the file of a picture.

        Raises:
            UnknownCapture: it is not there, or no longer.
        """
        row = self._row(identity)
        try:
            return self._place(row).read_bytes()
        except FileNotFoundError as error:
            raise _gone() from error

    def confirm(self, identity: str, label: str, reviewer: str, user: str | None) -> str:
        """Move the picture to the folder of ``label``; return that. ``user`` is whose token it was.

        Raises:
            InvalidRequest: the label cannot be the name of a folder.
            TakenByAnother: somebody else has it.
            UnknownCapture: it is not there.
        """
        name = folder_name(label)
        with self._index.transaction():
            row = self._held(identity, reviewer)
            target = self.reviewed / name / reviewed_name(row.id, row.suffix)
            for stale in self._copies(row):
                stale.unlink()
            target.parent.mkdir(parents=True, exist_ok=True)
            self._copy(row, self._waiting / row.file, target)
            self._index.settle(identity, REVIEWED, name, user, self._clock())
        self._forget(row)
        return name

    def skip(self, identity: str, reviewer: str, user: str | None) -> None:
        """Note that nobody is asked about the picture any more; raises as ``confirm`` does."""
        with self._index.transaction():
            self._held(identity, reviewer)
            self._index.settle(identity, SKIPPED, None, user, self._clock())

    def undo(self, identity: str, reviewer: str) -> Row:
        """Take back what ``reviewer`` said of the picture; return it, for him to say something else.

        Raises:
            TakenByAnother: another person said it.
            UnknownCapture: the picture, or the file of it, is not there any more.
        """
        now = self._clock()
        with self._index.transaction():
            row = self._row(identity)
            if row.leased_by != reviewer or row.state == WAITING:
                raise TakenByAnother("This picture was not yours to label; look at the next.")
            if row.state == REVIEWED:
                reviewed = self._place(row)
                self._copy(row, reviewed, self._waiting / row.file)
                _write(self._waiting / f"{row.id}.json", row.answer)
                reviewed.unlink(missing_ok=True)
                with contextlib.suppress(OSError):  # others are in it
                    reviewed.parent.rmdir()
            self._index.settle(identity, WAITING, None, None, now)
            self._index.extend(identity, now + LEASE_SECONDS)
        return row

    def labels(self) -> list[str]:
        """Return the labels that people have given, sorted."""
        return labels_in(self.reviewed)

    def summary(self) -> Summary:
        """Return what is there."""
        size, oldest = self._index.extent()
        return Summary(self._index.counts(), size, oldest, self._index.drawn())

    def sweep(self) -> None:
        """Make files and index agree, after a process or the machine went down in the middle of something.

        A confirmed picture whose file is not in the folder of its label any more was moved or removed by somebody; its
        row stays, for the accuracy.
        """
        places = {place.id: place for place in self._index.places()}
        lying = list(self._strays())
        for path in lying:
            place = places.get(path.stem)
            if place is None or path.name.startswith(_DRAFT):
                path.unlink(missing_ok=True)
            elif place.state == REVIEWED and path.suffix == place.suffix:
                self._mend(place, path)
        there = {entry.name for entry in os.scandir(self._waiting)}
        for place in places.values():
            if place.state != REVIEWED and f"{place.id}{place.suffix}" not in there:
                with self._index.transaction():
                    self._index.remove(place.id)
                (self._waiting / f"{place.id}.json").unlink(missing_ok=True)

    def _mend(self, place: Place, path: Path) -> None:
        """Finish what confirming or undoing it began: one of the two files is too many, or the row is wrong."""
        target = self.reviewed / (place.label or "") / reviewed_name(place.id, place.suffix)
        if target.exists():
            path.unlink(missing_ok=True)
            path.with_suffix(".json").unlink(missing_ok=True)
        else:
            with self._index.transaction():
                self._index.settle(place.id, WAITING, None, None, self._clock())

    def _strays(self) -> Iterator[Path]:
        """Yield the files in ``waiting/`` that nobody is at work on."""
        youngest = time.time() - _STRAY_SECONDS  # of files, whatever the clock says
        for entry in os.scandir(self._waiting):
            with contextlib.suppress(FileNotFoundError):
                if entry.stat(follow_symlinks=False).st_mtime < youngest:
                    yield Path(entry.path)

    def _make_room(self, size: int) -> None:
        with self._index.transaction():
            evicted = self._index.evict(
                before=self._clock() - self._most_seconds, bytes_left=max(0, self._most_bytes - size)
            )
        for row in evicted:
            self._forget(row)

    def _forget(self, row: Row) -> None:
        self._unlink(row.id, row.suffix)

    def _unlink(self, identity: str, suffix: str) -> None:
        for name in (f"{identity}{suffix}", f"{identity}.json"):
            with contextlib.suppress(OSError):  # what stays is swept away later
                (self._waiting / name).unlink()

    def _row(self, identity: str) -> Row:
        row = self._index.find(identity)
        if row is None:
            raise _gone()
        return row

    def _held(self, identity: str, reviewer: str) -> Row:
        """Return a picture that waits for this reviewer, or for nobody any more."""
        row = self._row(identity)
        if row.state != WAITING or (row.leased_by != reviewer and row.leased_until >= self._clock()):
            raise TakenByAnother("Somebody else has this picture, or has labelled it already; look at the next.")
        if row.leased_by != reviewer:  # his time was up; so that he can take it back
            self._index.lend(identity, reviewer)
        return row

    def _place(self, row: Row) -> Path:
        if row.state == REVIEWED and row.label is not None:
            return self.reviewed / row.label / reviewed_name(row.id, row.suffix)
        return self._waiting / row.file

    def _copies(self, row: Row) -> Iterator[Path]:
        """Yield what was left in the folders of labels where confirming it was cut short."""
        name = reviewed_name(row.id, row.suffix)
        yield from (path for label in self.labels() if (path := self.reviewed / label / name).exists())

    def _copy(self, row: Row, source: Path, target: Path) -> None:
        """Copy a file, perhaps to another disk; raises UnknownCapture where it is gone."""
        try:
            _write(target, source.read_bytes())
        except FileNotFoundError as error:
            raise _gone() from error


def suffix_of(content: bytes) -> str:
    """Return how the name of a file with this picture ends, by what it begins with; whatever it was sent as."""
    found = next((suffix for begin, suffix in _SUFFIXES if content.startswith(begin)), None)
    return found or next((suffix for mark, suffix in _BEHIND if content[8:12] == mark), ".heic")


def _write(path: Path, content: bytes) -> None:
    """Write a file that appears whole or not at all."""
    draft = path.with_name(f"{_DRAFT}{os.getpid()}-{path.name}")
    try:
        draft.write_bytes(content)
        draft.replace(path)
    except BaseException:
        draft.unlink(missing_ok=True)
        raise


def _on_disk(content: bytes) -> int:
    return -(-len(content) // _BLOCK) * _BLOCK


def _gone() -> UnknownCapture:
    return UnknownCapture("The picture is not there any more; look at the next.")
