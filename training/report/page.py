"""The report of a version as one HTML page that needs nothing else: no network, no script, no other file.

What is to be seen of a cell of the confusion matrix is there already, and a link to it makes it visible. So the page
works from a disk as well as under a Content-Security-Policy that allows no script.
"""

import base64
import hashlib
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import cache
from typing import Any

import numpy as np
from jinja2 import Environment, PackageLoader
from markupsafe import Markup
from numpy.typing import NDArray

from artifact.accuracy import accuracy_interval
from training.data.findings import Example, Finding
from training.evaluation.accuracy import Bins, Evaluation, by_confidence
from training.evaluation.comparison import Comparison
from training.evaluation.few_images import calibration_error_in_words
from training.evaluation.tasks import AnyEvaluation
from training.report import charts
from training.report.confusion import Cell, Confusion
from training.report.contents import Contents
from training.report.thumbnails import Album

_ROOM = 1_600_000  # bytes of all pictures with their words; the rest is at most 1.3 million, and usually a tenth
_LARGEST_MATRIX = 25  # classes; above that, the cells that have most are listed
_LISTED_CELLS = 100
_LISTED_CLASSES = 1_000
_LISTED_FILES = 200
_MISTAKES = 40
_OF_A_CELL = 12
_OF_A_CHANGE = 200
_FINDINGS, _OF_A_FINDING = 50, 24
_LEVELS = 9
_LONGEST, _LONGEST_NOTE = 60, 200  # characters of a name, and of what is said of a picture
_TINY = 64  # pixels: smaller pictures are shown with sharp edges


@dataclass(frozen=True)
class Picture:
    """A picture on the page: the address of its thumbnail, a sentence for who does not see it, and lines below it."""

    address: str | None
    sentence: str
    lines: tuple[str, ...]
    name: str
    tiny: bool


@dataclass
class Panel:
    """What a cell of the confusion matrix leads to."""

    cell: Cell
    title: str
    count: int
    pictures: list[Picture] = field(default_factory=list)

    @property
    def anchor(self) -> str:
        """The name of its place on the page."""
        return f"cell-{self.cell[0]}-{self.cell[1]}"


def report_page(contents: Contents) -> str:
    """Return the page on one version.

    The same contents give the same page.
    """
    evaluation, album = _of_one_label(contents), album_for(contents)
    confusion = Confusion.of(evaluation)
    gallery = _Gallery(evaluation, album)
    mistakes = [gallery.picture(index) for index in evaluation.confident_mistakes(_MISTAKES).tolist()]
    findings = shown_findings(contents, album)
    shown = _shown_cells(confusion, len(evaluation.labels))
    panels = _panels(evaluation.labels, confusion, shown, gallery) if contents.pictures else {}
    classes = _classes(evaluation, confusion)
    uncalibrated = contents.uncalibrated
    before = None if uncalibrated is None else by_confidence(uncalibrated, evaluation.split.classes)
    return render(
        "report.html",
        title=contents.title,
        contents=contents,
        summary=summary_of(contents),
        classes=classes[:_LISTED_CLASSES],
        more_classes=len(classes) - _LISTED_CLASSES,
        matrix=_matrix(confusion, panels) if len(evaluation.labels) <= _LARGEST_MATRIX else None,
        cells=_cells(evaluation, confusion, shown, panels),
        more_cells=len(confusion.mistakes) - _LISTED_CELLS,
        panels=list(panels.values()),
        mistakes=[picture for picture in mistakes if picture.address],
        wrong=int((~evaluation.right).sum()),
        reliability=charts.reliability(_bins_of(evaluation), before),
        bins=_bins(evaluation),
        **sections(contents, findings),
    )


def album_for(contents: Contents) -> Album:
    """Return what takes the pictures of a page, as many as there is room for."""
    return Album(_ROOM if contents.pictures else 0)


def shown_findings(contents: Contents, album: Album) -> list[tuple[Finding, list[Picture]]]:
    """Return what was found in the data, each with the pictures that there is room for."""
    return [
        (
            finding,
            [_example(album, example) for example in finding.examples[:_OF_A_FINDING]] if contents.pictures else [],
        )
        for finding in contents.findings[:_FINDINGS]
    ]


def sections(contents: Contents, findings: list[tuple[Finding, list[Picture]]]) -> dict[str, Any]:
    """Return what the sections show that the reports of all tasks have."""
    return {
        "curves": _curves(contents),
        "findings": findings,
        "left_out": contents.left_out[:_LISTED_FILES],
        "reasons": _reasons(contents),
    }


def comparison_page(title: str, before: Contents, after: Contents) -> str:
    """Return the page on what ``after`` does otherwise than ``before``; their pictures and labels are the same."""
    a, b = _of_one_label(before), _of_one_label(after)
    album = album_for(after)
    compared = Comparison(a, b)
    confidence = b.probabilities.max(axis=1)

    def picture(index: int) -> Picture:
        return _changed(a, b, index, album, before.title, after.title)

    return render(
        "comparison.html",
        title=title,
        contents=after,
        before=before,
        after=after,
        record=compared.record(),
        verdict=compared.verdict(before.title, after.title),
        summaries=[summary_of(before), summary_of(after)],
        sections=changes((before, after), a.predicted != b.predicted, confidence, picture),
        recalls=_recalls(compared, b),
        reliabilities=[charts.reliability(_bins_of(each)) for each in (a, b)],
    )


def changes(
    contents: tuple[Contents, Contents],
    differ: NDArray[np.bool_],
    confidence: NDArray[np.float32] | NDArray[np.float64],
    picture: Callable[[int], Picture],
) -> list[tuple[str, str, str, int, list[Picture]]]:
    """Return anchor, heading, sentence, number and pictures of what the second version gets right or wrong otherwise.

    ``differ`` [N] says which answers do, and those with the largest ``confidence`` [N] are shown first.
    """
    before, after = contents
    a, b = before.evaluation.right, after.evaluation.right
    kinds = [
        ("fixed", "Fixed", f"Wrong by {before.title}, right by {after.title}", ~a & b),
        ("broken", "Broken", f"Right by {before.title}, wrong by {after.title}", a & ~b),
        ("otherwise", "Wrong in another way", "Wrong by both, with different answers", ~a & ~b & differ),
    ]
    found = []
    for anchor, heading, sentence, chosen in kinds:
        indices = np.flatnonzero(chosen)
        surest = indices[np.argsort(-confidence[indices], kind="stable")][:_OF_A_CHANGE].tolist()
        shown = [each for each in map(picture, surest) if each.address]
        found.append((anchor, heading, sentence, int(chosen.sum()), shown))
    return found


class _Gallery:
    """Makes the pictures of one evaluation."""

    def __init__(self, evaluation: Evaluation, album: Album) -> None:
        self._evaluation, self._album = evaluation, album
        self._predicted = evaluation.predicted
        self._confidence = evaluation.probabilities.max(axis=1)

    def picture(self, index: int) -> Picture:
        """Return a picture with its label and its answer."""
        evaluation = self._evaluation
        true, predicted = evaluation.split.classes[index], self._predicted[index]
        label, answer = short(evaluation.labels[true]), short(evaluation.labels[predicted])
        sure = f"{self._confidence[index]:.1%}"
        lines = (f"{answer} {sure}", f"is {label}") if true != predicted else (f"{answer} {sure}",)
        sentence = f"A picture of {label}, taken for {answer}" if true != predicted else f"A picture of {label}"
        return picture_of(self._album, evaluation, index, sentence, lines)


def _of_one_label(contents: Contents) -> Evaluation:
    assert isinstance(contents.evaluation, Evaluation)  # noqa: S101 - others have a page of their own
    return contents.evaluation


def _bins_of(evaluation: Evaluation) -> Bins:
    return by_confidence(evaluation.probabilities, evaluation.split.classes)


def picture_of(album: Album, evaluation: AnyEvaluation, index: int, sentence: str, lines: tuple[str, ...]) -> Picture:
    """Return picture ``index`` with its name, if the album has room for it."""
    image, names = evaluation.split.images[index], evaluation.split.names
    name = short(names[index]) if names else ""
    address = album.add(image, (sentence, *lines, name))
    return Picture(address, sentence, lines, name, max(image.shape[:2]) < _TINY)


def _example(album: Album, example: Example) -> Picture:
    name, note = short(example.name), short(example.note, _LONGEST_NOTE)
    sentence = f"The picture {name}"
    address = None if example.image is None else album.add(example.image, (sentence, note, name))
    tiny = example.image is not None and max(example.image.shape[:2]) < _TINY
    return Picture(address, sentence, (note,), name, tiny)


def _changed(a: Evaluation, b: Evaluation, index: int, album: Album, before: str, after: str) -> Picture:
    """Return a picture with its label and both answers."""
    label = short(a.labels[a.split.classes[index]])
    answers = []
    for title, evaluation in ((before, a), (after, b)):
        row = evaluation.probabilities[index]
        answers.append(f"{title}: {short(evaluation.labels[row.argmax()])} {row.max():.1%}")
    return picture_of(album, b, index, f"A picture of {label}", (f"is {label}", *answers))


def summary_of(contents: Contents) -> dict[str, Any]:
    """Return the figures at the head of a page."""
    metrics, right = contents.evaluation.metrics(), int(contents.evaluation.right.sum())
    low, high = accuracy_interval(right, metrics.images)
    return {
        "accuracy": metrics.accuracy,
        "interval": f"{100 * low:.1f} to {100 * high:.1f}%",
        "images": metrics.images,
        "right": right,
        "measured_on": metrics.measured_on,
        "error": calibration_error_in_words(metrics.expected_calibration_error, metrics.images),
    }


def _classes(evaluation: Evaluation, confusion: Confusion) -> list[dict[str, Any]]:
    """Return a line for each class that there are pictures or answers of, those with the lowest recall first."""
    pictures, answers = confusion.matrix.sum(axis=1), confusion.matrix.sum(axis=0)
    hits = confusion.matrix.diagonal()
    lines = []
    for number, label in enumerate(evaluation.labels):
        if not pictures[number] and not answers[number]:
            continue
        other = confusion.taken_for(number)
        lines.append({
            "label": short(label),
            "images": int(pictures[number]),
            "precision": hits[number] / answers[number] if answers[number] else None,
            "recall": hits[number] / pictures[number] if pictures[number] else None,
            "taken_for": short(evaluation.labels[other]) if other is not None else "",
            "times": int(confusion.matrix[number, other]) if other is not None else 0,
        })  # fmt: skip
    return sorted(lines, key=lambda line: 2.0 if line["recall"] is None else line["recall"])


def _shown_cells(confusion: Confusion, labels: int) -> list[Cell]:
    """Return the cells whose pictures can be looked at, those of mistakes first."""
    if labels > _LARGEST_MATRIX:
        return confusion.mistakes[:_LISTED_CELLS]
    return [*confusion.mistakes, *sorted(cell for cell in confusion.pictures if cell[0] == cell[1])]


def _panels(labels: Sequence[str], confusion: Confusion, cells: Sequence[Cell], gallery: _Gallery) -> dict[Cell, Panel]:
    """Return the panels of ``cells``, filled in turn, a picture each, until the page is full."""
    panels = {}
    for true, predicted in cells:
        a, b = short(labels[true]), short(labels[predicted])
        title = f"{a}, taken for {b}" if true != predicted else f"{a}, and rightly answered"
        panels[true, predicted] = Panel((true, predicted), title, len(confusion.pictures[true, predicted]))
    for place in range(_OF_A_CELL):
        for cell, panel in panels.items():
            if place >= panel.count:
                continue
            picture = gallery.picture(int(confusion.pictures[cell][place]))
            if picture.address:
                panel.pictures.append(picture)
    return {cell: panel for cell, panel in panels.items() if panel.pictures}


def _matrix(confusion: Confusion, panels: dict[Cell, Panel]) -> list[list[dict[str, Any]]]:
    """Return the cells of the matrix, row by row, each with how dark it is and where it leads."""
    rows = []
    for true, counts in enumerate(confusion.matrix.tolist()):
        whole = max(sum(counts), 1)
        rows.append([
            {
                "count": count,
                "level": min(-(-_LEVELS * count // whole), _LEVELS),
                "right": true == predicted,
                "panel": panels.get((true, predicted)),
            }
            for predicted, count in enumerate(counts)
        ])  # fmt: skip
    return rows


def _cells(
    evaluation: Evaluation, confusion: Confusion, shown: Sequence[Cell], panels: dict[Cell, Panel]
) -> list[dict[str, Any]]:
    """Return the most frequent mistakes as a list."""
    labels = [short(label) for label in evaluation.labels]
    return [
        {
            "true": labels[true],
            "predicted": labels[predicted],
            "count": int(confusion.matrix[true, predicted]),
            "share": confusion.matrix[true, predicted] / confusion.matrix[true].sum(),
            "panel": panels.get((true, predicted)),
        }
        for true, predicted in shown
        if true != predicted
    ][:_LISTED_CELLS]


def _bins(evaluation: Evaluation) -> list[tuple[str, int, float, float]]:
    """Return the bins of the reliability diagram that have pictures: from where to where, how many, sure, right."""
    bins = _bins_of(evaluation)
    number = len(bins.counts)
    return [
        (f"{place / number:.0%} to {(place + 1) / number:.0%}", int(count), float(sure), float(right))
        for place, (count, sure, right) in enumerate(zip(*bins, strict=True))
        if count
    ]


def _curves(contents: Contents) -> list[tuple[Markup, list[str]]]:
    """Return the learning curves, each with the names of its lines; none where nothing was trained in epochs."""
    drawn = []
    for quantity in ("accuracy", "loss") if contents.history else ():
        names = {quantity: "training, augmented", f"val_{quantity}": "validation, before averaging"}
        series = [
            (name, [epoch[key] for epoch in contents.history])
            for key, name in names.items()
            if key in contents.history[0]
        ]
        if series:
            drawn.append((charts.curves(quantity, series), [name for name, _ in series]))
    return drawn


def _reasons(contents: Contents) -> list[tuple[str, int]]:
    """Return why files were left out, and how many for each reason, the most frequent first."""
    counted = Counter(short(each.reason) for each in contents.left_out)
    return sorted(counted.items(), key=lambda pair: (-pair[1], pair[0]))[:_LISTED_FILES]


def _recalls(compared: Comparison, evaluation: Evaluation) -> list[tuple[str, int, float, float, float]]:
    """Return label, pictures, both recalls and their difference, those that lost most first."""
    pictures = dict(zip(evaluation.labels, evaluation.confusion.sum(axis=1).tolist(), strict=True))
    lines = [(short(label), pictures[label], a, b, b - a) for label, (a, b) in compared.record()["recalls"].items()]
    return sorted(lines, key=lambda line: line[4])[:_LISTED_CLASSES]


def short(name: str, longest: int = _LONGEST) -> str:
    """Return a name, cut in its middle to ``longest`` characters, that is text for every encoding of Unicode."""
    text = name.encode(errors="replace").decode()
    half = (longest - 1) // 2
    return text if len(text) <= longest else f"{text[:half]}\N{HORIZONTAL ELLIPSIS}{text[-half:]}"


@cache
def _environment() -> Environment:
    environment = Environment(
        loader=PackageLoader("training.report"), autoescape=True, trim_blocks=True, lstrip_blocks=True
    )
    environment.filters["percent"] = lambda share: "" if share is None else f"{share:.2%}"
    environment.filters["short"] = short
    environment.filters["number"] = lambda number: f"{number:,}"
    return environment


def render(template: str, **values: Any) -> str:
    """Return the page that ``template`` makes of ``values``."""
    style = Markup(_environment().get_template("report.css").render())  # noqa: S704 - our own file
    digest = base64.b64encode(hashlib.sha256(style.encode()).digest()).decode()
    return _environment().get_template(template).render(style=style, style_digest=digest, **values)
