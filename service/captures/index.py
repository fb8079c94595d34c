"""The index of kept pictures: SQLite with a write-ahead log, which several workers and replicas on one disk share."""

# ruff: noqa: S608 - statements are put together of constants; values are parameters

import contextlib
import sqlite3
import threading
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

from service.captures.choice import RANDOM, REASONS, REPORTED

_PATIENCE = 5.0  # seconds to wait for another process that writes
_VERSION = 2  # of the tables

WAITING, REVIEWED, SKIPPED = "waiting", "reviewed", "skipped"

# A draw is a picture of the random share, once for each time that it was drawn; one that had been reviewed before is
# none, since the version that answers may have learned it.
_TABLES = f"""
CREATE TABLE pictures (
    id TEXT PRIMARY KEY, suffix TEXT NOT NULL, bytes INTEGER NOT NULL, kept REAL NOT NULL, answer BLOB NOT NULL,
    {", ".join(f"{reason} INTEGER NOT NULL DEFAULT 0" for reason in REASONS)}, suggested TEXT,
    state TEXT NOT NULL DEFAULT '{WAITING}', label TEXT, reviewer TEXT, reviewed REAL,
    leased_by TEXT NOT NULL DEFAULT '', leased_until REAL NOT NULL DEFAULT 0
);
CREATE INDEX by_age ON pictures (state, kept, bytes);
CREATE INDEX to_review ON pictures (state, {RANDOM} DESC, kept);
CREATE INDEX leased ON pictures (leased_by);
CREATE TABLE draws (
    picture TEXT NOT NULL, model TEXT NOT NULL, version INTEGER NOT NULL, label TEXT NOT NULL, times INTEGER NOT NULL,
    PRIMARY KEY (picture, model, version, label)
);
PRAGMA user_version = {_VERSION};
"""
_FROM_VERSION_1 = f"""
ALTER TABLE pictures ADD COLUMN {REPORTED} INTEGER NOT NULL DEFAULT 0;
ALTER TABLE pictures ADD COLUMN suggested TEXT;
PRAGMA user_version = {_VERSION};
"""
_COLUMNS = "id, suffix, kept, answer, state, label, leased_by, leased_until, suggested, " + ", ".join(REASONS)


class Row(NamedTuple):
    """A picture in the index; ``id`` is the sha256 of its file, times are in seconds since the epoch."""

    id: str
    suffix: str
    kept: float
    answer: bytes  # JSON
    state: str
    label: str | None
    leased_by: str
    leased_until: float
    suggested: str | None  # the label that somebody says is right
    random: int
    unfamiliar: int
    small_margin: int
    reported: int

    @property
    def file(self) -> str:
        """The name of its file while it waits."""
        return f"{self.id}{self.suffix}"

    @property
    def reasons(self) -> list[str]:
        """Why it was kept."""
        return [reason for reason, is_one in zip(REASONS, self[-len(REASONS) :], strict=True) if is_one]


class Place(NamedTuple):
    """What says where the file of a picture lies."""

    id: str
    suffix: str
    state: str
    label: str | None


class New(NamedTuple):
    """A picture for the index; ``size`` is what its files take, in bytes."""

    id: str
    suffix: str
    size: int
    kept: float
    answer: bytes
    reasons: Sequence[str]
    model: str
    version: int
    label: str  # the most probable one
    suggested: str | None = None


class Drawn(NamedTuple):
    """What a version answered to the pictures of the random share that were reviewed."""

    model: str
    version: int
    answers: int
    right: int


class Index:
    """The table of kept pictures. Every method is one transaction, or a part of that of the ``transaction`` block."""

    def __init__(self, path: Path) -> None:
        """Open the index at ``path``, and make it where there is none.

        Raises:
            sqlite3.Error: it cannot be read or written, or another release wrote it.
        """
        self._lock = threading.RLock()
        path.touch(mode=0o600)
        # Without a thread of its own; who uses it holds the lock.
        self._database = sqlite3.connect(path, timeout=_PATIENCE, isolation_level=None, check_same_thread=False)
        self._database.execute("PRAGMA journal_mode = WAL")
        self._database.execute("PRAGMA synchronous = NORMAL")  # the last ones may be lost with the power, and no more
        with self.transaction():
            (version,) = self._one("PRAGMA user_version")
            steps = {0: _TABLES, 1: _FROM_VERSION_1, _VERSION: ""}
            if version not in steps:
                raise sqlite3.DatabaseError(f"another release wrote {path}: its tables are of version {version}")
            for statement in steps[version].split(";\n"):
                self._database.execute(statement)

    def close(self) -> None:
        """Close the file."""
        with self._lock:
            self._database.close()

    @contextlib.contextmanager
    def transaction(self) -> Iterator[None]:
        """Do all of the block, or nothing of it where it raises; no other process writes meanwhile."""
        with self._lock:
            self._database.execute("BEGIN IMMEDIATE")
            try:
                yield
            except BaseException:
                self._database.execute("ROLLBACK")
                raise
            self._database.execute("COMMIT")

    def find(self, identity: str) -> Row | None:
        """Return the picture with this id; None where there is none."""
        with self._lock:
            found = self._database.execute(f"SELECT {_COLUMNS} FROM pictures WHERE id = ?", (identity,)).fetchone()
        return Row(*found) if found else None

    def known(self, identities: Sequence[str]) -> set[str]:
        """Return which of these ids are in the index."""
        with self._lock:
            return {
                identity
                for identity in identities
                if self._database.execute("SELECT 1 FROM pictures WHERE id = ?", (identity,)).fetchone()
            }

    def add(self, new: New) -> None:
        """Add a picture, or more reasons to one that is there; and a draw, where it is of the random share.

        Of several suggestions the last one stays.
        """
        reasons = [int(reason in new.reasons) for reason in REASONS]
        also = ", ".join(f"{reason} = max({reason}, excluded.{reason})" for reason in REASONS)
        with self._lock:
            self._database.execute(
                f"INSERT INTO pictures (id, suffix, bytes, kept, answer, suggested, {', '.join(REASONS)}) "
                f"VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?) ON CONFLICT (id) DO UPDATE SET {also}, "
                f"suggested = coalesce(excluded.suggested, suggested) WHERE state != '{REVIEWED}'",
                (new.id, new.suffix, new.size, new.kept, new.answer, new.suggested, *reasons),
            )
            if RANDOM in new.reasons:
                self._database.execute(
                    "INSERT INTO draws SELECT ?, ?, ?, ?, 1 "
                    f"WHERE EXISTS (SELECT 1 FROM pictures WHERE id = ? AND state != '{REVIEWED}') "
                    "ON CONFLICT DO UPDATE SET times = times + 1",
                    (new.id, new.model, new.version, new.label, new.id),
                )

    def evict(self, *, before: float, bytes_left: int) -> list[Row]:
        """Take out what was kept before a time, and the oldest until all others take ``bytes_left`` at most."""
        with self._lock:
            evicted = self._take_out("kept < ?", before)
            (total,) = self._one(f"SELECT coalesce(sum(bytes), 0) FROM pictures WHERE state != '{REVIEWED}'")
            while total > bytes_left:
                oldest = f"SELECT id, bytes FROM pictures WHERE state != '{REVIEWED}' ORDER BY kept LIMIT 1"
                identity, size = self._one(oldest)
                evicted += self._take_out("id = ?", identity)
                total -= size
        return evicted

    def remove(self, identity: str) -> None:
        """Take out a picture whose file is gone."""
        with self._lock:
            self._take_out("id = ?", identity)

    def lease(self, reviewer: str, count: int, now: float, until: float) -> list[Row]:
        """Give ``reviewer`` up to ``count`` pictures that nobody else has, until a time; those that he has come first.

        Those of the random share come before others, and the oldest first: never by what they show, or by what anybody
        says of them, or the share that is reviewed would be no fair one. Of the others those come first that somebody
        reported.
        """
        with self._lock:
            select, order = (
                f"SELECT {_COLUMNS} FROM pictures WHERE state = '{WAITING}'",
                f"{RANDOM} DESC, {RANDOM} = 0 AND {REPORTED} DESC, kept",
            )
            held = self._database.execute(
                f"{select} AND leased_by = ? AND leased_until >= ? ORDER BY {order} LIMIT ?", (reviewer, now, count)
            ).fetchall()
            free = self._database.execute(
                f"{select} AND leased_until < ? ORDER BY {order} LIMIT ?", (now, count - len(held))
            ).fetchall()
            rows = [Row(*row) for row in (*held, *free)]
            self._database.executemany(
                "UPDATE pictures SET leased_by = ?, leased_until = ? WHERE id = ?",
                [(reviewer, until, row.id) for row in rows],
            )
        return rows

    def lend(self, identity: str, reviewer: str) -> None:
        """Give a picture that nobody has to ``reviewer``."""
        with self._lock:
            self._database.execute("UPDATE pictures SET leased_by = ? WHERE id = ?", (reviewer, identity))

    def extend(self, identity: str, until: float) -> None:
        """Let whoever has a picture keep it until a time."""
        with self._lock:
            self._database.execute("UPDATE pictures SET leased_until = ? WHERE id = ?", (until, identity))

    def settle(self, identity: str, state: str, label: str | None, reviewer: str | None, now: float) -> None:
        """Note what became of a picture; ``reviewer`` is whose token it was."""
        with self._lock:
            self._database.execute(
                "UPDATE pictures SET state = ?, label = ?, reviewer = ?, reviewed = ? WHERE id = ?",
                (state, label, reviewer, now, identity),
            )

    def counts(self) -> dict[str, dict[str, int]]:
        """Return how many pictures are in each state: in all, and of each reason."""
        sums = ", ".join(f"sum({reason})" for reason in REASONS)
        with self._lock:
            found = self._database.execute(f"SELECT state, count(*), {sums} FROM pictures GROUP BY state").fetchall()
        counted = {state: dict(zip(("all", *REASONS), numbers, strict=True)) for state, *numbers in found}
        none = dict.fromkeys(("all", *REASONS), 0)
        return {state: counted.get(state, none) for state in (WAITING, REVIEWED, SKIPPED)}

    def extent(self) -> tuple[int, float | None]:
        """Return the bytes that pictures take that were not reviewed, and when the oldest of them was kept."""
        with self._lock:
            size, oldest = self._one(
                f"SELECT coalesce(sum(bytes), 0), min(kept) FROM pictures WHERE state != '{REVIEWED}'"
            )
        return size, oldest

    def drawn(self) -> list[Drawn]:
        """Return what each version answered to the random share, as far as it was reviewed; the newest first."""
        with self._lock:
            found = self._database.execute(
                "SELECT model, version, sum(times), sum(times * (draws.label = pictures.label)) "
                f"FROM draws JOIN pictures ON picture = id WHERE state = '{REVIEWED}' "
                "GROUP BY model, version ORDER BY model, version DESC"
            ).fetchall()
        return [Drawn(*row) for row in found]

    def places(self) -> list[Place]:
        """Return where every picture should lie."""
        with self._lock:
            found = self._database.execute("SELECT id, suffix, state, label FROM pictures").fetchall()
        return [Place(*row) for row in found]

    def _take_out(self, condition: str, value: object) -> list[Row]:
        """Delete what meets ``condition`` and was not reviewed, with its draws."""
        where = f"WHERE state != '{REVIEWED}' AND {condition}"
        rows = [Row(*row) for row in self._database.execute(f"SELECT {_COLUMNS} FROM pictures {where}", (value,))]
        for row in rows:
            self._database.execute("DELETE FROM draws WHERE picture = ?", (row.id,))
            self._database.execute("DELETE FROM pictures WHERE id = ?", (row.id,))
        return rows

    def _one(self, statement: str) -> tuple[int, ...]:
        row: tuple[int, ...] = self._database.execute(statement).fetchone()
        return row
