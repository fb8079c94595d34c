"""The folder of kept pictures: bounded, shared, each picture once and with one person; and what a crash leaves."""

import hashlib
import json
import os
import sqlite3
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import msgspec
import pytest

from service.captures.choice import KeptAnswer, Ranked
from service.captures.errors import TakenByAnother, UnknownCapture
from service.captures.folder import LEASE_SECONDS, CaptureFolder, Kept, suffix_of
from service.captures.labels import folder_name, labels_in
from service.inference.errors import InvalidRequest
from tests.service.pictures import plain

Open = Callable[..., CaptureFolder]

ANNA, BEN = "anna-1234", "ben-12345"
DAY = 86_400.0
STRAY = 700.0  # seconds, after which a file that nobody knows is swept away


class Clock:
    """The time of the calendar, set by the test."""

    now = 1_800_000_000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    """Return a clock that stands still."""
    return Clock()


@pytest.fixture
def open_folder(tmp_path: Path, clock: Clock) -> Iterator[Open]:
    """Opens the test's folder, as each worker does."""
    with ExitStack() as stack:

        def begin(most_bytes: int = 10**6, days: float = 30.0) -> CaptureFolder:
            folder = CaptureFolder(tmp_path, tmp_path / "reviewed", most_bytes, days * DAY, clock)
            stack.callback(folder.close)
            return folder

        yield begin


def kept(
    content: bytes, *reasons: str, at: float = Clock.now, label: str = "red", version: int = 1, second: str = "blue"
) -> Kept:
    """Return a picture to keep, which was answered with ``label``."""
    ranked = [Ranked(label, 0.5), Ranked(second, 0.4)]
    answer = KeptAnswer("colours", version, ranked, None, None, list(reasons or ("random",)), at, "an-id")
    return Kept(hashlib.sha256(content).hexdigest(), content, answer)


def files(folder: Path) -> set[str]:
    """Return the paths of all pictures and answers below ``folder``."""
    return {str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file() and "sqlite" not in path.name}


def waiting(pictures: list[Kept], suffix: str = ".png") -> set[str]:
    """Return the files of pictures that wait."""
    return {f"waiting/{picture.id}{ending}" for picture in pictures for ending in (suffix, ".json")}


def test_a_picture_lies_as_it_was_sent_with_the_answer_beside_it(open_folder: Open, tmp_path: Path) -> None:
    """The file is the one that came, byte by byte, under a name of its real format; nobody else may look."""
    picture = kept(plain("red", "WEBP"), "random", "unfamiliar")
    assert open_folder().keep([picture]) == 0
    assert files(tmp_path) == waiting([picture], ".webp")
    assert (tmp_path / "waiting" / f"{picture.id}.webp").read_bytes() == picture.content
    answer = json.loads((tmp_path / "waiting" / f"{picture.id}.json").read_bytes())
    assert answer["predictions"][0] == {"label": "red", "probability": 0.5}
    assert answer["reasons"] == ["random", "unfamiliar"]
    assert answer["request_id"] == "an-id"
    assert (tmp_path / "waiting").stat().st_mode & 0o077 == 0
    assert (tmp_path / "index.sqlite").stat().st_mode & 0o077 == 0


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF", "AVIF"])
def test_names_end_as_the_format_says(kind: str) -> None:
    """Whatever the client called it."""
    assert suffix_of(plain("red", kind)) == {"JPEG": ".jpg", "TIFF": ".tif"}.get(kind, f".{kind.lower()}")


def test_no_picture_is_kept_twice(open_folder: Open, tmp_path: Path) -> None:
    """The same bytes are one picture, in one call, in another, and for another worker; reasons add up."""
    first, second = open_folder(), open_folder()
    content = plain("red")
    assert first.keep([kept(content, "random"), kept(content, "unfamiliar")]) == 1
    assert second.keep([kept(content, "small_margin")]) == 1
    assert files(tmp_path) == waiting([kept(content)])
    [row] = first.lease(ANNA, 5)
    assert row.reasons == ["random", "unfamiliar", "small_margin"]


def test_the_oldest_go_where_the_room_is_needed(open_folder: Open, tmp_path: Path) -> None:
    """Never do all together take more than is allowed, and each takes whole blocks of the disk."""
    folder = open_folder(most_bytes=3 * 8192)
    pictures = [kept(plain(f"rgb({n}, 0, 0)"), at=Clock.now + n) for n in range(5)]
    for picture in pictures:
        folder.keep([picture])
        assert folder.summary().bytes <= 3 * 8192
    assert files(tmp_path) == waiting(pictures[2:])
    assert [row.id for row in folder.lease(ANNA, 9)] == [picture.id for picture in pictures[2:]]


def test_days_pass(open_folder: Open, clock: Clock, tmp_path: Path) -> None:
    """What is too old goes, skipped or not; what was labelled stays, and so does its place in the accuracy."""
    folder = open_folder(days=2.0)
    pictures = [kept(plain(f"rgb({n}, 0, 0)")) for n in range(3)]
    folder.keep(pictures)
    folder.lease(ANNA, 3)
    folder.confirm(pictures[0].id, "red", ANNA, "anna")
    folder.skip(pictures[1].id, ANNA, "anna")
    clock.now += 3 * DAY
    folder.expire()
    assert [path.split("/")[:2] for path in files(tmp_path)] == [["reviewed", "red"]]
    summary = folder.summary()
    assert {state: counted["all"] for state, counted in summary.counts.items()} == {
        "waiting": 0,
        "reviewed": 1,
        "skipped": 0,
    }
    assert [(drawn.answers, drawn.right) for drawn in summary.drawn] == [(1, 1)]


def test_each_person_gets_other_pictures(open_folder: Open, clock: Clock) -> None:
    """Several at once never see the same one; who goes away leaves them to others, and takes his up again meanwhile."""
    folder, other = open_folder(), open_folder()
    pictures = [kept(plain(f"rgb({n}, 0, 0)"), at=Clock.now + n) for n in range(6)]
    folder.keep(pictures)
    found: dict[str, list[str]] = {}
    people = [
        threading.Thread(target=take, args=(place, name, found)) for place, name in ((folder, ANNA), (other, BEN))
    ]
    for person in people:
        person.start()
    for person in people:
        person.join()
    assert len(found[ANNA]) == len(found[BEN]) == 3
    assert not set(found[ANNA]) & set(found[BEN])
    assert [row.id for row in folder.lease(ANNA, 3)] == found[ANNA]
    with pytest.raises(TakenByAnother):
        folder.confirm(found[BEN][0], "red", ANNA, None)
    clock.now += LEASE_SECONDS + 1
    assert {row.id for row in folder.lease(ANNA, 6)} == {picture.id for picture in pictures}
    with pytest.raises(TakenByAnother):
        other.skip(found[BEN][0], BEN, None)


def take(folder: CaptureFolder, reviewer: str, found: dict[str, list[str]]) -> None:
    """Take three pictures."""
    found[reviewer] = [row.id for row in folder.lease(reviewer, 3)]


def test_the_random_share_comes_first_and_by_its_age_alone(open_folder: Open) -> None:
    """Or the pictures that are reviewed would be no fair part of it."""
    folder = open_folder()
    pictures = [
        kept(plain(f"rgb({n}, 0, 0)"), reason, at=Clock.now + n)
        for n, reason in enumerate(["unfamiliar", "random", "small_margin", "random"])
    ]
    folder.keep(list(reversed(pictures)))
    assert [row.id for row in folder.lease(ANNA, 4)] == [pictures[place].id for place in (1, 3, 0, 2)]


def test_a_confirmed_picture_lies_in_the_folder_of_its_label(open_folder: Open, tmp_path: Path) -> None:
    """Under a name that tells where it came from, and nowhere else; taking it back makes all as it was."""
    folder, picture = open_folder(), kept(plain("red"))
    folder.keep([picture])
    before = files(tmp_path)
    folder.lease(ANNA, 1)
    assert folder.confirm(picture.id, " Käse  ", ANNA, "anna") == "Käse"
    assert files(tmp_path) == {f"reviewed/Käse/reviewed-{picture.id[:32]}.png"}
    assert folder.labels() == ["Käse"]
    assert folder.content(picture.id) == picture.content
    with pytest.raises(TakenByAnother):
        folder.confirm(picture.id, "red", BEN, "ben")
    with pytest.raises(TakenByAnother):
        folder.undo(picture.id, BEN)
    assert folder.undo(picture.id, ANNA).id == picture.id
    assert files(tmp_path) == before
    assert folder.labels() == [], "an empty class would end a training"
    assert folder.confirm(picture.id, "green", ANNA, "anna") == "green"
    assert files(tmp_path) == {f"reviewed/green/reviewed-{picture.id[:32]}.png"}


def test_a_skipped_picture_does_not_come_back(open_folder: Open, tmp_path: Path) -> None:
    """Unless whoever skipped it takes that back."""
    folder, picture = open_folder(), kept(plain("red"))
    folder.keep([picture])
    folder.lease(ANNA, 1)
    folder.skip(picture.id, ANNA, "anna")
    assert folder.lease(BEN, 5) == folder.lease(ANNA, 5) == []
    folder.undo(picture.id, ANNA)
    assert [row.id for row in folder.lease(ANNA, 5)] == [picture.id]
    assert files(tmp_path) == waiting([picture])


def test_what_is_gone_is_told(open_folder: Open, tmp_path: Path) -> None:
    """A picture that nobody knows, and one whose file somebody took away."""
    folder, picture = open_folder(), kept(plain("red"))
    for ask in (folder.content, lambda identity: folder.confirm(identity, "red", ANNA, None)):
        with pytest.raises(UnknownCapture):
            ask("0" * 64)
    folder.keep([picture])
    (tmp_path / "waiting" / f"{picture.id}.png").unlink()
    folder.lease(ANNA, 1)
    with pytest.raises(UnknownCapture):
        folder.confirm(picture.id, "red", ANNA, None)
    assert folder.summary().counts["waiting"]["all"] == 1, "nothing of it was done"


def test_the_accuracy_counts_draws(open_folder: Open) -> None:
    """A picture counts as often as chance drew it before it was labelled, by version; others do not count."""
    folder = open_folder()
    red, green, odd = plain("red"), plain("lime"), plain("blue")
    for _ in range(3):
        folder.keep([kept(red, "random", label="red")])
    folder.keep([kept(red, "random", label="blue", version=2), kept(green, "random", label="red")])
    folder.keep([kept(red, "unfamiliar"), kept(odd, "unfamiliar")])
    for row in folder.lease(ANNA, 9):
        folder.confirm(row.id, {kept(red).id: "red", kept(green).id: "green"}.get(row.id, "blue"), ANNA, None)
    by_version = {drawn.version: (drawn.answers, drawn.right) for drawn in folder.summary().drawn}
    assert by_version == {1: (4, 3), 2: (1, 0)}
    folder.keep([kept(red, "random", label="red", version=3)])
    assert {drawn.version for drawn in folder.summary().drawn} == {1, 2}, "version 3 may have learned it"


@pytest.mark.parametrize(
    "label",
    [
        "",
        "  ",
        "a/b",
        "..",
        ".",
        ".hidden",
        "a\\b",
        "a\nb",
        "a\0b",
        "a.",
        "x" * 101,
        "ü" * 101,
        "Thumbs.db",
        "a\u202eb",
    ],
)
def test_what_cannot_be_a_folder_is_no_label(open_folder: Open, tmp_path: Path, label: str) -> None:
    """No label leads out of the folder or hides, and the picture stays where it is."""
    folder, picture = open_folder(), kept(plain("red"))
    folder.keep([picture])
    folder.lease(ANNA, 1)
    with pytest.raises(InvalidRequest, match="The label"):
        folder.confirm(picture.id, label, ANNA, None)
    assert files(tmp_path) == waiting([picture])


def test_labels_are_compared_in_one_form(open_folder: Open, tmp_path: Path) -> None:
    """However Unicode writes an accent, it is one class, and the same as the model's."""
    folder = open_folder()
    folder.keep([kept(plain("red"), "random", label="Ka\u0308se")])
    [row] = folder.lease(ANNA, 1)
    assert folder.confirm(row.id, "Ka\u0308se", ANNA, None) == "K\u00e4se" == folder_name("K\u00e4se ")
    assert labels_in(tmp_path / "reviewed") == ["K\u00e4se"]
    assert [drawn.right for drawn in folder.summary().drawn] == [1]


def test_a_crash_leaves_what_can_be_swept(open_folder: Open, tmp_path: Path) -> None:
    """Files without a row and rows without a file go; what was confirmed half is confirmed, or waits again."""
    folder = open_folder()
    pictures = [kept(plain(f"rgb({n}, 0, 0)")) for n in range(5)]
    folder.keep(pictures)
    lost, done, half, other, fine = pictures
    folder.lease(ANNA, 5)
    place = tmp_path / "waiting"
    (place / f"{lost.id}.png").unlink()
    for picture in (done, half):
        content, answer = (place / f"{picture.id}.png").read_bytes(), (place / f"{picture.id}.json").read_bytes()
        folder.confirm(picture.id, "red", ANNA, None)
        (place / f"{picture.id}.png").write_bytes(content)  # as if the machine had stopped before they were removed
        (place / f"{picture.id}.json").write_bytes(answer)
    (tmp_path / "reviewed" / "red" / f"reviewed-{half.id[:32]}.png").unlink()  # or while it was taken back
    for name in (f"{'0' * 64}.png", f".draft-1-{other.id}.png"):
        (place / name).write_bytes(b"stray")
    fresh = place / f"{'1' * 64}.png"
    fresh.write_bytes(b"another worker is about to tell the index")
    for path in place.iterdir():
        if path != fresh:
            os.utime(path, (time.time() - STRAY, time.time() - STRAY))
    folder.sweep()
    assert files(tmp_path) == {
        *waiting([half, other, fine]),
        f"reviewed/red/reviewed-{done.id[:32]}.png",
        f"waiting/{fresh.name}",
    }
    counts = folder.summary().counts
    assert (counts["waiting"]["all"], counts["reviewed"]["all"]) == (3, 1)


def test_what_the_index_does_not_take_leaves_no_files(
    open_folder: Open, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A full disk is not kept full by pictures that nobody will ever find."""
    folder = open_folder()
    known = kept(plain("red"))
    folder.keep([known])

    def full(*_: object) -> None:
        raise sqlite3.OperationalError("database or disk is full")

    monkeypatch.setattr(folder._index, "add", full)
    with pytest.raises(sqlite3.OperationalError):
        folder.keep([known, kept(plain("blue"))])
    assert files(tmp_path) == waiting([known])


def test_a_folder_of_another_release_is_left_alone(open_folder: Open, tmp_path: Path) -> None:
    """Its index says of which tables it is."""
    open_folder().close()
    with sqlite3.connect(tmp_path / "index.sqlite") as database:
        database.execute("PRAGMA user_version = 99")
    with pytest.raises(sqlite3.DatabaseError, match="99"):
        open_folder()


def test_a_folder_of_before_is_taken_over(open_folder: Open, tmp_path: Path) -> None:
    """Its tables get what is new, and what waits in it can be labelled and reported."""
    picture = kept(plain("red"))
    open_folder().keep([picture])
    with sqlite3.connect(tmp_path / "index.sqlite") as database:
        for column in ("reported", "suggested"):
            database.execute(f"ALTER TABLE pictures DROP COLUMN {column}")
        database.execute("PRAGMA user_version = 1")
    folder = open_folder()
    folder.keep([reported(plain("red"), "blue")])
    [row] = folder.lease(ANNA, 1)
    assert (row.id, row.reasons, row.suggested) == (picture.id, ["random", "reported"], "blue")
    assert open_folder().summary().counts["waiting"]["reported"] == 1


def reported(content: bytes, suggested: str | None, at: float = Clock.now) -> Kept:
    """Return a picture whose answer somebody calls wrong."""
    picture = kept(content, "reported", at=at)
    return picture._replace(answer=msgspec.structs.replace(picture.answer, suggested=suggested))


def test_what_was_reported_comes_before_other_doubts_but_not_among_the_random(open_folder: Open, clock: Clock) -> None:
    """Those drawn by chance stay in the order of their age, whatever anybody says of them; the last hint stays."""
    drawn, late, odd, wrong = (plain(colour) for colour in ("red", "lime", "blue", "yellow"))
    folder = open_folder()
    for at, picture in enumerate([kept(drawn), kept(late), kept(odd, "unfamiliar"), reported(wrong, "green")]):
        folder.keep([picture._replace(answer=msgspec.structs.replace(picture.answer, time=clock.now + at))])
    folder.keep([reported(late, "blue")])
    folder.keep([reported(wrong, None)])
    rows = folder.lease(ANNA, 9)
    assert [row.id for row in rows] == [hashlib.sha256(one).hexdigest() for one in (drawn, late, wrong, odd)]
    assert [row.suggested for row in rows] == [None, "blue", "green", None]


def test_reports_are_no_draws(open_folder: Open) -> None:
    """The accuracy is that of the random share: what people call wrong is no part of it, and weighs nothing in it."""
    folder = open_folder()
    folder.keep([kept(plain("red")), reported(plain("blue"), None)])
    for _ in range(3):
        folder.keep([reported(plain("red"), "blue")])
    for row in folder.lease(ANNA, 9):
        folder.confirm(row.id, "blue", ANNA, None)
    [drawn] = folder.summary().drawn
    assert (drawn.answers, drawn.right) == (1, 0)
