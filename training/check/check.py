"""All checks of a folder of pictures, from looking at them to what is suggested for each."""

import statistics
import time
from collections import Counter, defaultdict
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from training.check import classes, duplicates, labels, quality
from training.check.duplicates import Duplicates
from training.check.findings import ADD, LEAVE_OUT, LOOK_AT, MOVE_TO, REMOVE, Kind, Leak, Report, Suggestion
from training.check.labels import Answers
from training.check.neighbours import centred, directions, far_from_all, nearest, reduced
from training.check.pictures import Pictures, look
from training.data import label_table
from training.data.dataset import Classes
from training.data.folders import File, few, find
from training.evaluation.average_precision import mean_average_precision
from training.fit.features import Features, Vectors
from training.fit.head import fit_head
from training.network.registry import BACKBONES, DEFAULT
from training.progress import stage

_COMPANY = 10  # pictures that one should have some likeness to


def check(folder: Path, features: Features, labels_in: Path | None = None) -> Report:
    """Look for whatever is wrong with the pictures in ``folder``, whose labels a table may have.

    Raises:
        TrainingError: it does not hold classes of pictures, the table cannot be read, or no picture can.
        OSError: a folder cannot be read, or the file of the features not be written.
    """
    begun = time.monotonic()
    found = label_table.find(labels_in, folder, fewest_classes=1) if labels_in else find(folder, fewest_classes=1)
    pictures = look(found, features, BACKBONES[DEFAULT].side)
    with stage("Comparing them"):
        copies = duplicates.find(pictures, nearest(directions(centred(pictures.features)), duplicates.NEIGHBOURS))
        company = nearest(directions(pictures.features), _COMPANY)
    main = reduced(pictures.features)
    answers = labels.ask(main, pictures.classes, len(pictures.labels), copies.groups)
    paths = [_relative(file.path, folder) for file in pictures.files]
    told = _Teller(folder, pictures, paths, answers)
    suggestions = [
        *told.damaged(),
        *told.duplicates(copies),
        *told.wrong_labels(),
        *told.outliers(far_from_all(company, copies.groups)),
        *told.quality(),
    ]
    counts = Counter(label for file in pictures.files for label in _labels_of(file))
    every = {label: counts[label] for label in pictures.labels}
    sides = sorted(min(facts.width, facts.height) for facts in pictures.facts)
    # Labels that a picture may have at the same time are not taken for one another.
    mixed = [] if pictures.multi_label else classes.confused(answers, pictures.classes, pictures.labels)
    order = list(Kind)
    return Report(
        folder=folder,
        pictures=len(pictures),
        classes=every,
        suggestions=tuple(sorted(suggestions, key=lambda each: (order.index(each.kind), -each.certainty, each.path))),
        notes=(
            *found.notes,
            *classes.in_words(every),
            *_confused_in_words(mixed),
            *told.not_judged(),
            *quality.range_in_words(pictures.facts),
        ),
        formats=dict(Counter(facts.format for facts in pictures.facts).most_common()),
        sides=(sides[0], statistics.median_low(sides), sides[-1]),
        confused=tuple(mixed),
        leak=_leak(pictures, main, answers.strength, copies),
        multi_label=pictures.multi_label,
        seconds=time.monotonic() - begun,
    )


class _Teller:
    """Makes suggestions of what was found, each picture by its path from the folder."""

    def __init__(self, folder: Path, pictures: Pictures, paths: list[str], answers: Answers) -> None:
        self._folder, self._pictures, self._paths, self._answers = folder, pictures, paths, answers
        own = np.nan_to_num(answers.of(pictures.classes))
        self._own = own.prod(axis=1) if pictures.multi_label else own  # [N]

    def damaged(self) -> Iterator[Suggestion]:
        for file, fault in self._pictures.faults.items():
            yield Suggestion(_relative(file.path, self._folder), Kind.DAMAGED, LEAVE_OUT, 1.0, fault)

    def duplicates(self, copies: Duplicates) -> Iterator[Suggestion]:
        """Suggest one fate for each group: of pictures that are there more than once, the best one stays."""
        members: defaultdict[int, list[int]] = defaultdict(list)
        for place, group in enumerate(copies.groups.tolist()):
            members[group].append(place)
        likeness = _likeness_of(copies, len(self._pictures))
        for group in members.values():
            if len(group) > 1:
                yield from self._of_group(group, copies, likeness)

    def _of_group(self, group: list[int], copies: Duplicates, likeness: NDArray[np.float32]) -> Iterator[Suggestion]:
        kept = self._best(group)
        for place in group:
            if place == kept:
                continue
            same = copies.exact[place] == copies.exact[kept]
            kind, why = self._kind(place, kept, same=bool(same))
            beside = (self._paths[kept], *(self._paths[other] for other in group if other not in (place, kept)))
            yield Suggestion(self._paths[place], kind, LEAVE_OUT, float(likeness[place]), why, beside[:4])

    def _best(self, group: list[int]) -> int:
        """Return which one to keep: the one whose label is likelier, then one of the test, then the largest."""
        roles, facts = self._pictures.roles, self._pictures.facts
        several = len({_labels_of(self._pictures.files[place]) for place in group}) > 1

        def rank(place: int) -> tuple[float, bool, int, str]:
            likely = float(self._own[place]) if several else 0.0
            size = facts[place].width * facts[place].height
            return -likely, roles[place] == "train", -size, self._paths[place]

        return min(group, key=rank)

    def _kind(self, place: int, kept: int, *, same: bool) -> tuple[Kind, str]:
        pictures = self._pictures
        what = "the same picture" if same else "nearly the same picture"
        labels, others = (_labels_of(pictures.files[each]) for each in (place, kept))
        if labels != others:
            return Kind.ACROSS_CLASSES, f"{what} is under {_in_words(others)}, which is likelier"
        if pictures.roles[place] != pictures.roles[kept]:
            return Kind.ACROSS_SPLITS, f"{what} is in {pictures.roles[kept]}"
        return (Kind.EXACT if same else Kind.NEAR), f"{what} as {self._paths[kept]}"

    def wrong_labels(self) -> Iterator[Suggestion]:
        pictures = self._pictures
        if pictures.multi_label:
            yield from self._doubtful_labels()
            return
        for place, class_, certainty in labels.probably_wrong(self._answers, pictures.classes):
            label = pictures.labels[class_]
            likely = self._answers.probabilities[place, class_]
            why = f"{label} is {likely:.0%} probable, {pictures.files[place].label} {self._own[place]:.1%}"
            yield Suggestion(self._paths[place], Kind.WRONG_LABEL, f"{MOVE_TO}{label}", certainty, why)

    def not_judged(self) -> Iterator[str]:
        """Say of which labels none is called wrong, since the network takes too many for others."""
        pictures = self._pictures
        if pictures.multi_label:
            return
        judged = labels.judged(self._answers, pictures.classes)
        left = sorted({pictures.labels[class_] for class_ in pictures.classes[self._answers.answered & ~judged]})
        if left:
            yield f"Not looked for wrong labels among those that are taken for others too often: {few(left)}."

    def _doubtful_labels(self) -> Iterator[Suggestion]:
        for place, number, certainty in labels.doubtful(self._answers, self._pictures.classes):
            label, has = self._pictures.labels[number], _labels_of(self._pictures.files[place])
            kind, suggestion = (
                (Kind.LABEL_TOO_MANY, f"{REMOVE}{label}") if label in has else (Kind.MISSING_LABEL, f"{ADD}{label}")
            )
            why = f"{label} is {self._answers.probabilities[place, number]:.1%} probable; it has {_in_words(has)}"
            yield Suggestion(self._paths[place], kind, suggestion, certainty, why)

    def outliers(self, far: list[tuple[int, float]]) -> Iterator[Suggestion]:
        for place, distance in far:
            why = f"its cosine to the nearest others is {1 - distance:.2f} on average"
            yield Suggestion(self._paths[place], Kind.OUTLIER, LOOK_AT, min(max(distance, 0.0), 1.0), why)

    def quality(self) -> Iterator[Suggestion]:
        files = [file.path for file in self._pictures.files]
        for place, kind, suggestion, certainty, why in quality.find(self._pictures.facts, files):
            yield Suggestion(self._paths[place], kind, suggestion, certainty, why)


def _likeness_of(copies: Duplicates, number: int) -> NDArray[np.float32]:
    """Return how like each picture is to the one that it is most like, float32 [N]."""
    likeness = np.zeros(number, np.float32)
    for side in range(2):
        np.maximum.at(likeness, copies.pairs[:, side], copies.likeness)
    return likeness


def _labels_of(file: File) -> tuple[str, ...]:
    return (file.label,) if file.labels is None else file.labels


def _in_words(labels_: tuple[str, ...]) -> str:
    return " and ".join(labels_) or "no label"


def _relative(path: Path, folder: Path) -> str:
    return path.relative_to(folder).as_posix()


def _confused_in_words(mixed: list[classes.Confused]) -> Iterator[str]:
    for one, other, share in mixed:
        yield f"Hard to tell apart: {one} and {other}; {share:.0%} of each, on average, are answered as the other one."


def _leak(pictures: Pictures, main: Vectors, strength: float, copies: Duplicates) -> Leak | None:
    """Measure what pictures of the given test that are in the training too make of the figures; None without any."""
    test = np.array([role == "test" for role in pictures.roles])
    learned = np.isin(copies.groups, copies.groups[~test])
    leaked = test & learned
    if not leaked.any() or test.all() or len(np.unique(pictures.classes[~test], axis=0)) < 2:
        return None
    measure = _average_precision if pictures.multi_label else _accuracy
    clean = test & ~learned
    answers = fit_head(main[~test], pictures.classes[~test], len(pictures.labels), strength).logits(main)
    found, without = (
        measure(answers[chosen], pictures.classes[chosen]) if chosen.any() else None for chosen in (test, clean)
    )
    assert found is not None  # noqa: S101 - for the types: there is a picture that leaked
    name = "mean average precision" if pictures.multi_label else "accuracy"
    return Leak(int(test.sum()), int(leaked.sum()), found, without, name)


def _accuracy(logits: NDArray[np.float32], classes_: Classes) -> float:
    return float((logits.argmax(axis=1) == classes_).mean())


def _average_precision(logits: NDArray[np.float32], classes_: Classes) -> float:
    return mean_average_precision(logits, classes_ > 0)
