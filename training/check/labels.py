"""Pictures whose label is probably wrong, by confident learning (Northcutt et al., arXiv 1911.00068).

A classifier is asked about pictures that it has not learned from, by cross-validation. Where it is as sure of another
class as it is of that class's own pictures on average, the label counts as an error of the confident joint (section 3.1
there). Those are left out, and all pictures are asked about anew, by what has learned from the others alone (section
3.2). The paper's thresholds miss errors where the classifier is unsure of the true class too: of 5% planted in flowers
they found 71 to 77%. So what is reported is decided by the second round: another class is likelier, and the label has
less than 5%. The library cleanlab does the like; its licence, AGPL-3.0, would be the trainer's as well.

Where a picture may have several labels, each is asked about by itself, one against the rest: it has the label or not.
What the first round finds nearly impossible is left out of the second for that label alone.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.special import expit, softmax

from training.data.dataset import Classes
from training.data.hashes import Groups
from training.fit.features import Vectors
from training.fit.head import CrossValidation, cross_validate

_LEAST_PROBABLE = 0.05
"""The probability of a label below which it is probably wrong; docs/check.md has how it was chosen."""
_LEAST_OF_SEVERAL = 0.01
"""The same where a picture may have several labels, of those that it has; what it lacks goes by the other one."""
_LEAST_KNOWN = 0.5  # of a class's pictures that are answered as it, for a label of it to be called wrong
_MOST_TAKEN = 0.25  # of them that are answered as a certain other class, for a label to be called that instead
_LEAST_TAKEN = 2  # pictures; a single one says nothing of its class

Probabilities = NDArray[np.float64]


@dataclass(frozen=True)
class Answers:
    """What cross-validation answers: ``probabilities`` float64 [N, classes], NaN where a picture was in no fold.

    Where pictures may have several labels, they do not add up to 1.
    ``strength`` is that of the regression (scikit-learn's C).
    """

    probabilities: Probabilities
    strength: float

    @property
    def answered(self) -> NDArray[np.bool_]:
        """Which pictures have an answer, bool [N]."""
        return np.isfinite(self.probabilities[:, 0])

    def likeliest(self) -> Classes:
        """Return the likeliest class of each picture, int64 [N]; -1 where there is no answer."""
        filled = np.nan_to_num(self.probabilities, nan=-1.0)
        return np.where(self.answered, filled.argmax(axis=1), -1)

    def matrix(self, classes: Classes) -> NDArray[np.int64]:
        """Return how many pictures of each class in ``classes`` int64 [N] are answered as each, int64 [K, K]."""
        number = self.probabilities.shape[1]
        counts = np.zeros((number, number), np.int64)
        np.add.at(counts, (classes[self.answered], self.likeliest()[self.answered]), 1)
        return counts

    def of(self, classes: Classes) -> NDArray[np.float64]:
        """Return the probability of each picture's class in ``classes`` int64 [N], float64 [N].

        Of several labels, int64 [N, labels], it is that of having, or lacking, each as it is given, [N, labels].
        """
        if classes.ndim == 2:
            given: NDArray[np.float64] = np.where(classes > 0, self.probabilities, 1 - self.probabilities)
            return given
        chosen: NDArray[np.float64] = self.probabilities[np.arange(len(classes)), classes]
        return chosen


def ask(features: Vectors, classes: Classes, labels: int, groups: Groups) -> Answers:
    """Return the answers of heads that saw neither a picture nor one of its group, nor any that is probably wrong."""
    first = _answers(features, classes, labels, groups, np.ones(classes.shape, bool))
    if classes.ndim == 2:
        likely = ~(first.of(classes) < _LEAST_PROBABLE)  # also where there is no answer
        kept = np.where((likely & (classes > 0)).any(axis=0), likely, True)  # all of a label that would have none
        return first if kept.all() else _answers(features, classes, labels, groups, kept)
    errors = in_confident_joint(first, classes)
    kept = _with_every_class(~errors, classes)
    return _answers(features, classes, labels, groups, kept) if errors.any() else first


def probably_wrong(answers: Answers, classes: Classes) -> list[tuple[int, int, float]]:
    """Return the pictures whose label is probably wrong, most certain first: place, likeliest class, certainty 0..1."""
    own, likeliest = answers.of(classes), answers.likeliest()
    wrong = np.flatnonzero(
        answers.answered & (likeliest != classes) & (own < _LEAST_PROBABLE) & judged(answers, classes)
    )
    order = wrong[np.argsort(own[wrong], kind="stable")]
    return [(int(place), int(likeliest[place]), float(1 - own[place])) for place in order]


def judged(answers: Answers, classes: Classes) -> NDArray[np.bool_]:
    """Return of which pictures it can be told whether their label is wrong, bool [N].

    Where half of a class is taken for others, or a quarter of it for a certain other one, the network cannot tell them,
    as where differences are subtle or the class is rare: then its word is no reason to call a label wrong.
    """
    matrix = answers.matrix(classes)
    totals = matrix.sum(axis=1)
    known = np.diag(matrix) >= _LEAST_KNOWN * totals
    confused = (matrix >= _LEAST_TAKEN) & (matrix > _MOST_TAKEN * totals[:, None])
    np.fill_diagonal(confused, False)
    told: NDArray[np.bool_] = answers.answered & known[classes] & ~confused[classes, answers.likeliest()]
    return told


def doubtful(answers: Answers, classes: Classes) -> list[tuple[int, int, float]]:
    """Return the labels that pictures probably have or lack wrongly, most certain first: place, label, certainty 0..1.

    ``classes`` are int64 [N, labels].
    """
    own = np.nan_to_num(answers.of(classes), nan=1.0)
    wrong = np.argwhere(own < np.where(classes > 0, _LEAST_OF_SEVERAL, _LEAST_PROBABLE))
    order = np.argsort(own[wrong[:, 0], wrong[:, 1]], kind="stable")
    return [(place, label, float(1 - own[place, label])) for place, label in wrong[order].tolist()]


def in_confident_joint(answers: Answers, classes: Classes) -> NDArray[np.bool_]:
    """Return which pictures the confident joint counts off its diagonal, bool [N].

    A class's threshold is the mean probability of its own pictures; of the classes whose threshold a picture reaches,
    the likeliest is not its label.
    """
    answered, probabilities = answers.answered, np.nan_to_num(answers.probabilities)
    own = np.nan_to_num(answers.of(classes))
    number = probabilities.shape[1]
    counts = np.bincount(classes[answered], minlength=number)
    sums = np.bincount(classes[answered], own[answered], minlength=number)
    thresholds = np.where(counts > 0, sums / np.maximum(counts, 1), np.inf)
    reached = np.where(probabilities >= thresholds, probabilities, -1.0)
    off: NDArray[np.bool_] = answered & (reached.max(axis=1) >= 0) & (reached.argmax(axis=1) != classes)
    return off


def _answers(features: Vectors, classes: Classes, labels: int, groups: Groups, learned: NDArray[np.bool_]) -> Answers:
    folds = cross_validate(features, classes, labels, groups, learned)
    return answers_of(folds, features, labels, multi_label=classes.ndim == 2)


def answers_of(folds: CrossValidation, features: Vectors, labels: int, *, multi_label: bool = False) -> Answers:
    """Return what the ``folds`` answer to pictures with these ``features`` float32 [N, D], of ``labels`` classes."""
    probabilities = np.full((len(features), labels), np.nan)
    if len(folds.rows):
        logits = folds.logits(features).astype(np.float64)
        probabilities[folds.rows] = expit(logits) if multi_label else softmax(logits, axis=1)
    return Answers(probabilities, folds.strength)


def _with_every_class(kept: NDArray[np.bool_], classes: Classes) -> NDArray[np.bool_]:
    """Return ``kept``, and all of a class where nearly none of it would be."""
    counts, left = np.bincount(classes), np.bincount(classes[kept], minlength=int(classes.max()) + 1)
    whole: NDArray[np.bool_] = kept | (left < counts / 2)[classes]
    return whole
