"""The pages on versions that tell several labels of a picture, like those on any others: report and comparison."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from training.evaluation.average_precision import Has
from training.evaluation.multi_label import MultiLabelComparison, MultiLabelEvaluation
from training.evaluation.sigmoids import decision_bins
from training.report import charts
from training.report.contents import Contents
from training.report.page import (
    Picture,
    album_for,
    changes,
    picture_of,
    render,
    sections,
    short,
    shown_findings,
    summary_of,
)
from training.report.thumbnails import Album

_LARGEST_MATRIX = 20  # labels; above that, the pairs that most pictures have are listed
_LISTED_PAIRS = 100
_LISTED_LABELS = 1_000
_OF_A_LABEL = 8
_LEVELS = 9


def label_page(contents: Contents, evaluation: MultiLabelEvaluation) -> str:
    """Return the page on one version, whose answers are ``evaluation``; the same contents give the same page."""
    album = album_for(contents)
    mistakes = _mistakes(evaluation, album) if contents.pictures else []
    lines = _lines(evaluation, {label: anchor for anchor, label, *_ in mistakes})
    several = len(evaluation.labels) <= _LARGEST_MATRIX
    names = (("mean_average_precision", "Mean average precision"), ("micro_f1", "Micro F1"), ("macro_f1", "Macro F1"))
    return render(
        "labels.html",
        title=contents.title,
        contents=contents,
        labels=evaluation.labels,
        summary=summary_of(contents),
        averages=[(name, evaluation.averages[field], *evaluation.intervals[field]) for field, name in names],
        labels_shown=lines[:_LISTED_LABELS],
        more_labels=len(lines) - _LISTED_LABELS,
        matrix=_matrix(evaluation) if several else None,
        pairs=[] if several else _pairs(evaluation),
        mistakes=[(anchor, short(label), count, pictures) for anchor, label, count, pictures in mistakes],
        reliability=charts.reliability(decision_bins(evaluation.probabilities, evaluation.has)),
        **sections(contents, shown_findings(contents, album)),
    )


def label_comparison_page(
    title: str, contents: tuple[Contents, Contents], evaluations: tuple[MultiLabelEvaluation, MultiLabelEvaluation]
) -> str:
    """Return the page on what the second version does otherwise; ``evaluations`` are those of the ``contents``."""
    (before, after), (a, b) = contents, evaluations
    album = album_for(after)
    compared = MultiLabelComparison(a, b)
    otherwise = a.told != b.told  # [N, labels]
    from_threshold = np.where(otherwise, np.abs(b.probabilities - b.thresholds), 0.0).max(axis=1)

    def picture(index: int) -> Picture:
        labels = [_labels(each, index, np.array(a.labels)) for each in (a.has, a.told, b.told)]
        lines = (f"has {labels[0]}", f"{before.title}: {labels[1]}", f"{after.title}: {labels[2]}")
        return picture_of(album, b, index, f"A picture that has {labels[0]}", lines)

    return render(
        "label_comparison.html",
        title=title,
        contents=after,
        before=before,
        after=after,
        several=True,
        record=compared.record(),
        verdict=compared.verdict(before.title, after.title),
        intervals=[each.intervals["mean_average_precision"] for each in evaluations],
        summaries=[summary_of(each) for each in contents],
        sections=changes(contents, otherwise.any(axis=1), from_threshold, picture),
        precisions=_precisions(compared, b),
        reliabilities=[charts.reliability(decision_bins(each.probabilities, each.has)) for each in evaluations],
    )


def _labels(chosen: Has, index: int, labels: NDArray[np.str_]) -> str:
    return ", ".join(short(label) for label in labels[chosen[index]].tolist()) or "no label"


def _precisions(
    compared: MultiLabelComparison, evaluation: MultiLabelEvaluation
) -> list[tuple[str, int, float, float, float]]:
    """Return label, pictures, both average precisions and their difference, those that lost most first."""
    pictures = {each.label: each.images for each in evaluation.figures}
    found = compared.record()["average_precisions"]
    lines = [(short(label), pictures[label], a, b, b - a) for label, (a, b) in found.items()]
    return sorted(lines, key=lambda line: line[4])[:_LISTED_LABELS]


def _lines(evaluation: MultiLabelEvaluation, anchors: dict[str, str]) -> list[dict[str, Any]]:
    """Return a line for each label, those that are ranked worst first."""
    worst_first = sorted(
        evaluation.figures, key=lambda each: 2.0 if each.average_precision is None else each.average_precision
    )
    return [{**vars(each), "label": short(each.label), "anchor": anchors.get(each.label)} for each in worst_first]


def _mistakes(evaluation: MultiLabelEvaluation, album: Album) -> list[tuple[str, str, int, list[Picture]]]:
    """Return anchor, label, how many mistakes and the surest of them, filled in turn until the page is full."""
    chosen = [evaluation.confident_mistakes(label, _OF_A_LABEL).tolist() for label in range(len(evaluation.labels))]
    pictures: list[list[Picture]] = [[] for _ in chosen]
    for place in range(_OF_A_LABEL):
        for label, indices in enumerate(chosen):
            if place < len(indices) and (picture := _mistake(evaluation, label, indices[place], album)).address:
                pictures[label].append(picture)
    wrong = (evaluation.told != evaluation.has).sum(axis=0).tolist()
    return [
        (f"label-{number}", label, wrong[number], pictures[number])
        for number, label in enumerate(evaluation.labels)
        if pictures[number]
    ]


def _mistake(evaluation: MultiLabelEvaluation, label: int, index: int, album: Album) -> Picture:
    name = short(evaluation.labels[label])
    probable = f"{name} {evaluation.probabilities[index, label]:.1%}"
    has = [short(each) for each in np.array(evaluation.labels)[evaluation.has[index]]]
    said = "told, but it has it not" if evaluation.told[index, label] else "not told, but it has it"
    is_words = f"has {', '.join(has)}" if has else "has no label"
    return picture_of(album, evaluation, index, f"A picture of which {name} is {said}", (probable, said, is_words))


def _matrix(evaluation: MultiLabelEvaluation) -> list[list[dict[str, int]]]:
    has, told = evaluation.together()
    return [
        [
            {
                "has": int(has[row, column]),
                "told": int(told[row, column]),
                "level": min(-(-_LEVELS * int(has[row, column]) // max(int(has[row, row]), 1)), _LEVELS),
            }
            for column in range(len(has))
        ]
        for row in range(len(has))
    ]


def _pairs(evaluation: MultiLabelEvaluation) -> list[tuple[str, str, int, int]]:
    """Return the pairs that most pictures have or are told."""
    has, told = evaluation.together()
    first, second = np.triu_indices(len(has), 1)
    most = np.maximum(has, told)[first, second]
    order = [place for place in np.argsort(-most, kind="stable")[:_LISTED_PAIRS].tolist() if most[place]]
    labels = [short(label) for label in evaluation.labels]
    return [
        (labels[a], labels[b], int(has[a, b]), int(told[a, b]))
        for a, b in zip(first[order].tolist(), second[order].tolist(), strict=True)
    ]
