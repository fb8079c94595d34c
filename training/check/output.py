"""What was found, for a terminal and for a table."""

import csv
import io
from collections.abc import Iterator
from pathlib import Path

from training.check.findings import Kind, Report, Suggestion

COLUMNS = ("path", "kind", "suggestion", "certainty", "why")


def lines(report: Report) -> Iterator[str]:
    """Yield a line for each kind of finding; one in all where nothing is wrong."""
    what = f"{report.folder}: {report.pictures:,} pictures of {len(report.classes):,} classes"
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


def leak_in_words(report: Report) -> str:
    """Say what leaked pictures make of the accuracy."""
    leak = report.leak
    assert leak is not None  # noqa: S101 - for the types: who asks has looked
    without = "no others are left" if leak.accuracy_without is None else f"{leak.accuracy_without:.1%} without them"
    return (
        f"A head on the pretrained network gets {leak.accuracy:.1%} of the {leak.pictures:,} test pictures right, with "
        f"the {leak.leaked:,} that are in the training too; {without}."
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
