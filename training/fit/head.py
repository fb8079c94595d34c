"""The linear head on a frozen backbone: multinomial logistic regression, its strength chosen by cross-validation.

scikit-learn fits it, which takes seconds where training the same layer by steps takes minutes. Each picture stands in
it twice, as it is and mirrored. What the folds answer to the pictures that they did not see stands in for a validation
split: it has all pictures, of which a split would have a tenth.
"""

import warnings
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.special import log_softmax
from threadpoolctl import threadpool_limits

from training.data.dataset import Classes
from training.fit.features import Vectors
from training.progress import bar

_STRENGTHS = (0.03, 0.1, 0.3, 1.0, 3.0, 10.0, 30.0, 100.0)
_UNTRIED = 1.0  # where there is nothing to choose it by
_NORM = 10.0  # of a picture's features once they are scaled, so that the same strengths suit every backbone
_MOST_FOLDS = 5
_MUCH_WORK = 20_000  # pictures times classes, from which three folds do
_STEPS, _TOLERANCE = 300, 1e-3
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

    A class of one picture is in every fold's training, so that picture is in none of ``unseen``.
    """

    strength: float
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


def cross_validate(
    features: Vectors,
    classes: Classes,
    labels: int,
    groups: Rows | None = None,
    learned: NDArray[np.bool_] | None = None,
) -> CrossValidation:
    """Choose the strength (scikit-learn's C) whose folds find ``classes`` int64 [N] likeliest, given the features.

    ``features`` are float32 [N, D]. There are five folds, fewer where no class has as many pictures or the work is
    much, and none where no class has two; larger strengths are no longer tried once they have become worse. Pictures of
    one of the ``groups`` int64 [N] are in one fold, so that none is answered by what learned its copy. Those that are
    not ``learned``, bool [N], are answered all the same, and the strength does not go by them.
    """
    learned = np.ones(len(classes), bool) if learned is None else learned
    folds = [(seen[learned[seen]], unseen) for seen, unseen in _folds(classes, labels, groups)]
    folds = [(seen, unseen) for seen, unseen in folds if len(unseen) and len(np.unique(classes[seen])) > 1]
    fits = [Fit(labels) for _ in folds]
    least, best = np.inf, CrossValidation(_UNTRIED, (), ())
    with bar(len(_STRENGTHS) * len(folds), "Cross-validation", "fit") as shown:
        for strength in _STRENGTHS if folds else ():
            heads = []
            for (seen, _), fit in zip(folds, fits, strict=True):
                heads.append(fit(features[seen], classes[seen], strength))
                shown.update(1)
            found = CrossValidation(strength, tuple(heads), tuple(unseen for _, unseen in folds))
            answers = log_softmax(found.logits(features), axis=1)
            likely = answers[np.arange(len(answers)), classes[found.rows]]
            loss = float(-likely[learned[found.rows]].mean())
            if loss >= least:
                break
            least, best = loss, found
    return best


def fit_head(features: Vectors, mirrored: Vectors, classes: Classes, labels: int, strength: float) -> Linear:
    """Fit the head to pictures and to their mirror images, float32 [N, D] each, which count for half."""
    both = np.concatenate([features, mirrored])
    return Fit(labels)(both, np.concatenate([classes, classes]), strength / 2)


class Fit:
    """Fits linear layers, each beginning with the weights of the one before."""

    def __init__(self, labels: int) -> None:
        from sklearn.linear_model import LogisticRegression

        self._labels = labels
        self._regression = LogisticRegression(max_iter=_STEPS, tol=_TOLERANCE, warm_start=True)

    def __call__(self, features: Vectors, classes: Classes, strength: float) -> Linear:
        """Return the layer for ``features`` float32 [N, D] of pictures of ``classes`` int64 [N].

        The features are centred and brought to a norm of 10 on average, which the layer has in its weights afterwards.
        """
        from sklearn.exceptions import ConvergenceWarning

        mean = features.mean(axis=0)
        centred = features - mean
        scale = np.float32(_NORM / max(float(np.sqrt((centred**2).sum(axis=1).mean())), 1e-12))
        regression = self._regression.set_params(C=strength)
        # Threads that wait for one another take longer than such small products: twenty times, beside other work.
        threads = 1 if centred.size * self._labels < _SHARED_WORK else None
        quiet = warnings.catch_warnings(action="ignore", category=ConvergenceWarning)  # near enough by then
        with quiet, threadpool_limits(threads, "blas"):
            regression.fit(scale * centred, classes)
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
