"""What was found, for a terminal and for a table."""

import csv
import io
from collections.abc import Iterator
from pathlib import Path

from artifact.accuracy import accuracy_beside
from training.check.findings import Kind, Report, Suggestion
from training.names import printable

COLUMNS = ("path", "kind", "suggestion", "certainty", "why")


def lines(report: Report) -> Iterator[str]:
    """Yield a line for each kind of finding; one in all where nothing is wrong."""
    yield from map(printable, _lines(report))


def _lines(report: Report) -> Iterator[str]:
    what = f"{report.folder}: {pictures_in_words(report)}"
    if report.nothing:
        yield f"{what}, and nothing is wrong with them."
        return
    yield f"{what}."
    for kind in Kind:
        found = report.of(kind)
        if found:
            yield f"  {len(found):,} {kind.one if len(found) == 1 else kind.many}, such as {_shown(found[0])}."
    if report.leak:
        yield f"  {leak_in_words(report)}"
    yield from (f"  {note}" for note in report.notes)


def pictures_in_words(report: Report) -> str:
    """Say how many pictures there are, and of how many classes or labels."""
    of = "with any of {:,} labels" if report.multi_label else "of {:,} classes"
    return f"{report.pictures:,} pictures {of.format(len(report.classes))}"


def leak_in_words(report: Report) -> str:
    """Say what leaked pictures make of the accuracy."""
    leak = report.leak
    assert leak is not None  # noqa: S101 - for the types: who asks has looked
    several = leak.measure != "accuracy"
    found, others = (
        None if value is None else f"{value:.3f}" if several else accuracy_beside(value, pictures)
        for value, pictures in ((leak.accuracy, leak.pictures), (leak.accuracy_without, leak.pictures - leak.leaked))
    )
    reaches = (
        f"has a {leak.measure} of {found} on the {leak.pictures:,} test pictures"
        if several
        else f"gets {found} of the {leak.pictures:,} test pictures right"
    )
    without = "no others are left" if others is None else f"{others} without them"
    return (
        f"A head on the pretrained network {reaches}, with the {leak.leaked:,} that are in the training too; {without}."
    )


def formats_in_words(report: Report) -> str:
    """Say in which formats and sizes the pictures are."""
    formats = ", ".join(f"{number:,} {name}" for name, number in report.formats.items())
    smallest, middle, largest = report.sides
    return f"{formats}; the shorter side has {smallest} to {largest} pixels, and {middle} in the middle."


def write_csv(report: Report, file: Path) -> None:
    """Write a suggestion a line.

    Raises:
        OSError: the file cannot be written.
    """
    text = io.StringIO(newline="")
    writer = csv.writer(text)
    writer.writerow(COLUMNS)
    for found in report.suggestions:
        writer.writerow((found.path, found.kind.word, found.suggestion, f"{found.certainty:.4f}", found.why))
    # Names of files need not be text, and --apply has to find them again.
    file.write_text(text.getvalue(), encoding="utf-8", errors="surrogateescape", newline="")


def _shown(found: Suggestion) -> str:
    return f"{found.path} ({found.why})"
