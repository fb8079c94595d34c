"""The linear head on a frozen backbone: multinomial logistic regression, its strength chosen by cross-validation.

Where a picture may have several labels, or none, each label has a logistic regression of its own, and all have the same
strength. scikit-learn fits them, which takes seconds where training the same layer by steps takes minutes. What the
folds answer to the pictures that they did not see stands in for a validation split: it has all pictures, of which a
split would have a tenth.
"""

import warnings
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.special import log_expit, log_softmax
from threadpoolctl import threadpool_limits

from machine import usable_cores
from training.data.dataset import Classes
from training.evaluation.embedding_score import Parts, fit_distances
from training.fit.features import Vectors
from training.progress import bar

_STRENGTHS = (0.03, 0.1, 0.3, 1.0, 3.0, 10.0, 30.0, 100.0)
_UNTRIED = 1.0  # where there is nothing to choose it by
_NORM = 10.0  # of a picture's features once they are scaled, so that the same strengths suit every backbone
_MOST_FOLDS = 5
_MUCH_WORK = 20_000  # pictures times classes, from which three folds do
_STEPS = 1000
_TOLERANCE = 1e-4  # of the largest gradient, while strengths are compared
# In the end, by the loss, which is what gradients are measured by: heads that are not where their steps lead to differ
# in the size of their logits, so that the one for all pictures is surer, or less so, than the folds say.
_OF_THE_LOSS = 1e-4
_LEAST_LOSS = 1e-4  # below which float32 tells no gradients
_AT_ONCE = 2**28  # bytes of features in folds that are fitted at once, each of which copies its own
_SHARED_WORK = 200_000_000  # pictures times features times classes, from which several threads compute a product

Rows = NDArray[np.int64]


@dataclass(frozen=True)
class Linear:
    """A linear layer: ``kernel`` float32 [D, classes] and ``bias`` float32 [classes]."""

    kernel: NDArray[np.float32]
    bias: NDArray[np.float32]

    def logits(self, features: Vectors) -> NDArray[np.float32]:
        """Return the logits float32 [N, classes] of ``features`` float32 [N, D]."""
        logits: NDArray[np.float32] = features @ self.kernel + self.bias
        return logits


@dataclass(frozen=True)
class CrossValidation:
    """The heads of all folds, each with the rows of the pictures that it did not see.

    They were fitted with ``strength`` to a largest gradient of ``tolerance``, as a head for all pictures should be. A
    class of one picture is in every fold's training, so that picture is in none of ``unseen``.
    """

    strength: float
    tolerance: float
    heads: tuple[Linear, ...]
    unseen: tuple[Rows, ...]

    @property
    def rows(self) -> Rows:
        """The pictures that were answered, in the order of ``logits``."""
        return np.concatenate([np.empty(0, np.int64), *self.unseen])

    def logits(self, features: Vectors) -> NDArray[np.float32]:
        """Return what the folds answer to pictures that they did not see, float32 [rows, classes].

        ``features`` float32 [N, D] are those of all pictures, by the backbone or by a version of it.
        """
        answers = [head.logits(features[rows]) for head, rows in zip(self.heads, self.unseen, strict=True)]
        return np.concatenate(answers) if answers else np.empty((0, 0), np.float32)

    def parts(self, features: Vectors, classes: Classes) -> Parts:
        """Return what the folds' familiarity of pictures that they did not see is made of, float32 [rows, 3]."""
        found = [np.empty((0, 3), np.float32)]
        for head, rows in zip(self.heads, self.unseen, strict=True):
            seen = np.setdiff1d(np.arange(len(features)), rows)
            distances = fit_distances(features[seen], classes[seen])
            found.append(distances.parts(features[rows], head.logits(features[rows])))
        return np.concatenate(found)


def cross_validate(
    features: Vectors,
    classes: Classes,
    labels: int,
    groups: Rows | None = None,
    learned: NDArray[np.bool_] | None = None,
) -> CrossValidation:
    """Choose the strength (scikit-learn's C) whose folds find ``classes`` likeliest, given the features.

    ``features`` are float32 [N, D], and ``classes`` int64 [N], or [N, labels] of several labels. There are five folds,
    fewer where no class has as many pictures or the work is much, and none where no class has two; larger strengths are
    no longer tried once they have become worse. Pictures of one of the ``groups`` int64 [N] are in one fold, so that
    none is answered by what learned its copy. Those that are not ``learned``, bool [N] or of several labels
    [N, labels], are answered all the same, and the strength does not go by them. A fold's own strength is as much
    larger as its pictures are fewer.
    """
    learned = np.ones(classes.shape, bool) if learned is None else learned
    some = np.asarray(learned.reshape(len(classes), -1).any(axis=1))  # of each picture, for the folds
    strata, number = (classes, labels) if classes.ndim == 1 else (rarest_labels(classes), labels + 1)
    folds = [(seen[some[seen]], unseen) for seen, unseen in _folds(strata, number, groups)]
    folds = [(seen, unseen) for seen, unseen in folds if len(unseen) and len(np.unique(strata[seen])) > 1]
    if not folds:
        return CrossValidation(_UNTRIED, _TOLERANCE, (), ())
    fits = [_fit_for(classes, labels) for _ in folds]
    threads = _threads(features, labels)
    at_once = 1  # where a product has several threads, or the labels of a fold are fitted at once
    if threads and classes.ndim == 1:
        at_once = min(usable_cores(), max(1, _AT_ONCE // features.nbytes))

    with (
        bar((len(_STRENGTHS) + 1) * len(folds), "Cross-validation", "fit") as shown,
        _near_enough(),
        threadpool_limits(threads, "blas"),
        ThreadPoolExecutor(at_once) as pool,
    ):

        def fitted(strength: float, tolerance: float) -> CrossValidation:
            """Fit all folds."""

            def head(fit: Fit | FitEach, fold: tuple[Rows, Rows]) -> Linear:
                seen, _ = fold
                # So that each picture weighs against the penalty what it will in the fit to all of them.
                more = some.sum() / len(seen)
                return fit(features[seen], classes[seen], more * strength, tolerance, learned[seen])

            heads = []
            for fold_head in pool.map(head, fits, folds):
                heads.append(fold_head)
                shown.update(1)
            return CrossValidation(strength, tolerance, tuple(heads), tuple(unseen for _, unseen in folds))

        least, best = np.inf, _UNTRIED
        for strength in _STRENGTHS:
            found = fitted(strength, _TOLERANCE)
            likely = _log_likelihoods(found.logits(features), classes[found.rows])
            loss = float(-likely[learned[found.rows]].mean())
            if loss >= least:
                break
            least, best = loss, strength
        return fitted(best, min(_TOLERANCE, _OF_THE_LOSS * max(least, _LEAST_LOSS)))


def fit_head(
    features: Vectors, classes: Classes, labels: int, strength: float, tolerance: float = _TOLERANCE
) -> Linear:
    """Fit the head to all ``features`` float32 [N, D], of pictures of ``classes`` as in ``cross_validate``."""
    with _near_enough(), threadpool_limits(_threads(features, labels), "blas"):
        return _fit_for(classes, labels)(features, classes, strength, tolerance)


def rarest_labels(classes: Classes) -> Classes:
    """Return the rarest label of each picture, int64 [N], of ``classes`` int64 [N, labels]; where it has none, labels.

    Folds that have these in equal shares have pictures of every label, where there are enough.
    """
    counts = classes.sum(axis=0)
    rarity = np.where(classes > 0, counts, len(classes) + 1)  # [N, labels]
    rarest: Classes = np.where(classes.any(axis=1), rarity.argmin(axis=1), classes.shape[1])
    return rarest


def _log_likelihoods(logits: NDArray[np.float32], classes: Classes) -> NDArray[np.float32]:
    """Return the log-likelihood of each picture's class, float32 [N], or of its labels, [N, labels]."""
    if classes.ndim == 2:
        likely: NDArray[np.float32] = log_expit(np.where(classes > 0, logits, -logits))
        return likely
    answers: NDArray[np.float32] = log_softmax(logits, axis=1)[np.arange(len(logits)), classes]
    return answers


def _fit_for(classes: Classes, labels: int) -> "Fit | FitEach":
    return Fit(labels) if classes.ndim == 1 else FitEach(labels)


class Fit:
    """Fits linear layers, each beginning with the weights of the one before."""

    def __init__(self, labels: int) -> None:
        self._labels = labels
        self._regression = _regression()

    def __call__(
        self,
        features: Vectors,
        classes: Classes,
        strength: float,
        tolerance: float,
        learned: NDArray[np.bool_] | None = None,
    ) -> Linear:
        """Return the layer for ``features`` float32 [N, D] of pictures of ``classes`` int64 [N], by those ``learned``.

        The features are centred and brought to a norm of 10 on average, which the layer has in its weights afterwards.
        """
        if learned is not None:
            features, classes = features[learned], classes[learned]
        scaled, mean, scale = _scaled(features)
        regression = self._regression.set_params(C=strength, tol=tolerance).fit(scaled, classes)
        coefficients, intercept = regression.coef_, regression.intercept_
        if len(coefficients) == 1:  # two classes have one function, which tells the second from the first
            signs = np.array([[-0.5], [0.5]])
            coefficients, intercept = signs * coefficients, signs[:, 0] * intercept
        kernel = np.zeros((features.shape[1], self._labels), np.float32)
        bias = np.full(
            self._labels, intercept.min() - _NORM, np.float32
        )  # without a picture, a class is never answered
        kernel[:, regression.classes_] = scale * coefficients.T
        bias[regression.classes_] = intercept - mean @ kernel[:, regression.classes_]
        return Linear(kernel, bias)


class FitEach:
    """Fits linear layers with a regression for each label, each beginning with the weights of the one before."""

    def __init__(self, labels: int) -> None:
        self._regressions = [_regression() for _ in range(labels)]

    def __call__(
        self,
        features: Vectors,
        classes: Classes,
        strength: float,
        tolerance: float,
        learned: NDArray[np.bool_] | None = None,
    ) -> Linear:
        """Return the layer for ``features`` float32 [N, D] of pictures with labels ``classes`` int64 [N, labels].

        A label that all of them have is always answered, one that none has never. Of each label those pictures are
        left out that are not ``learned``, bool [N, labels].
        """
        scaled, mean, scale = _scaled(features)

        def fit(column: int) -> tuple[NDArray[np.float32], float]:
            rows = slice(None) if learned is None else learned[:, column]
            has = classes[rows, column]
            if not has.any() or has.all():
                return np.zeros(features.shape[1], np.float32), _NORM * (1 if len(has) and has.all() else -1)
            found = self._regressions[column].set_params(C=strength, tol=tolerance).fit(scaled[rows], has)
            return found.coef_[0], float(found.intercept_[0])

        with threadpool_limits(1, "blas"), ThreadPoolExecutor(usable_cores()) as pool:
            coefficients, intercepts = zip(*pool.map(fit, range(classes.shape[1])), strict=True)
        kernel = (scale * np.stack(coefficients, axis=1)).astype(np.float32)  # [D, labels]
        return Linear(kernel, (np.array(intercepts) - mean @ kernel).astype(np.float32))


def _threads(features: Vectors, labels: int) -> int | None:
    """Return how many threads compute a product of ``features`` [N, D] and a layer; None for one on each core.

    Threads that wait for one another take longer than a small product: twenty times, beside other work.
    """
    return 1 if features.size * labels < _SHARED_WORK else None


def _regression() -> Any:
    from sklearn.linear_model import LogisticRegression

    return LogisticRegression(max_iter=_STEPS, warm_start=True)


def _scaled(features: Vectors) -> tuple[Vectors, Vectors, np.float32]:
    """Return ``features`` centred and brought to a norm of 10 on average, with their mean [D] and the scale."""
    mean = features.mean(axis=0)
    centred = features - mean
    scale = np.float32(_NORM / max(float(np.sqrt((centred**2).sum(axis=1).mean())), 1e-12))
    return scale * centred, mean, scale


def _near_enough() -> AbstractContextManager[object]:
    """Keep scikit-learn from warning of a fit that ends before it has converged: it is near enough by then."""
    from sklearn.exceptions import ConvergenceWarning

    return warnings.catch_warnings(action="ignore", category=ConvergenceWarning)


def _folds(classes: Classes, labels: int, groups: Rows | None) -> Iterator[tuple[Rows, Rows]]:
    """Yield the rows that each fold learns from and those that it is asked about."""
    from sklearn.model_selection import StratifiedGroupKFold, StratifiedKFold

    counts = np.bincount(classes, minlength=labels)
    single = np.flatnonzero(counts[classes] == 1)
    several = np.flatnonzero(counts[classes] > 1)
    most = 3 if len(classes) * labels > _MUCH_WORK else _MOST_FOLDS
    number = min(most, int(counts.max()), len(several) if groups is None else len(np.unique(groups[several])))
    if number < 2:
        return
    with warnings.catch_warnings(action="ignore", category=UserWarning):  # that a class has fewer than the folds
        if groups is None:
            split = list(StratifiedKFold(number, shuffle=True, random_state=0).split(several, classes[several]))
        else:
            grouped = StratifiedGroupKFold(number, shuffle=True, random_state=0)
            split = list(grouped.split(several, classes[several], groups[several]))
    for seen, unseen in split:
        yield np.concatenate([several[seen], single]), several[unseen]
