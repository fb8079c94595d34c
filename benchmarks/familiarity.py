"""How well scores tell photographs of other things from those of the kind that a head on a backbone was trained on.

``python benchmarks/familiarity.py FOLDER OTHER`` fits a head to the pictures of each folder, has it score those of the
other, and fits it again without a third of its classes, three times, whose pictures are then the others. It prints the
table of docs/design.md: AUROC, and the share of the others that passes where 95% of the test pictures do. The features
are kept in ``runs/bench-familiarity``.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy.special import softmax

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from training.fit.device import quiet_start

with quiet_start():
    from training.data import sources
    from training.data.dataset import Classes
    from training.data.pictures import Reading
    from training.evaluation.embedding_score import Distances, fit_distances
    from training.evaluation.familiarity import Scores, auroc
    from training.fit.features import Features, Vectors, embedder
    from training.fit.head import Linear, fit_head
    from training.network.backbone import build_on_backbone
    from training.network.registry import BACKBONES, IMAGENET_WEIGHTS

_CACHE = Path(__file__).resolve().parent.parent / "runs" / "bench-familiarity" / "features.npz"
_BACKBONE = "EfficientNetLite2"
_FOLDS = 5
_STRENGTH = 1.0
_PASSES = 0.95
_MOST_OTHERS = 1000

Score = Callable[[Vectors], Scores]


class Pictures(NamedTuple):
    """The features float32 [N, D] and the classes of pictures to train on and to test with."""

    train: Vectors
    classes: Classes
    test: Vectors
    test_classes: Classes


def read(folder: Path, cache: Path) -> Pictures:
    """Return what the backbone makes of the pictures in ``folder``."""
    side = BACKBONES[_BACKBONE].side
    dataset = sources.load(folder, None, smoke=False, reading=Reading((side, side)))
    shape = (side, side, 3)
    features = Features(cache, lambda: embedder(build_on_backbone(shape, 2, _BACKBONE, IMAGENET_WEIGHTS, seed=0)))
    train = [split for split in (dataset.train, dataset.validation) if len(split)]
    return Pictures(
        np.concatenate([features.of(split.images) for split in train]),
        np.concatenate([split.classes for split in train]),
        features.of(dataset.test.images),
        dataset.test.classes,
    )


class Fitted(NamedTuple):
    """A head, how the embeddings lie that it learned from, and those embeddings at a length of 1."""

    head: Linear
    distances: Distances
    bank: Vectors

    def parts(self, features: Vectors) -> dict[str, Scores]:
        """Return the single scores of pictures by name, each float32 [N]."""
        logits = self.head.logits(features)
        energy, relative, residual = self.distances.parts(features, logits).T
        main = (features - self.distances.mean) @ self.distances.directions @ self.distances.within
        square = (main**2).sum(axis=1)[:, np.newaxis]
        to_classes = square - 2 * main @ self.distances.classes.T + (self.distances.classes**2).sum(axis=1)
        return {
            "largest probability": softmax(logits, axis=1).max(axis=1),
            "largest logit": logits.max(axis=1),
            "energy": energy,
            "nearest neighbour": (_unit(features) @ self.bank.T).max(axis=1),
            "Mahalanobis": -to_classes.min(axis=1),
            "relative Mahalanobis": relative,
            "residual": residual,
        }


SUMS = (
    ("energy", "residual"),
    ("energy", "nearest neighbour"),
    ("energy", "relative Mahalanobis"),
    ("energy", "relative Mahalanobis", "nearest neighbour"),
    ("energy", "relative Mahalanobis", "residual"),
)
"""What is added up, each in units of its spread over pictures that were not learned from."""


def _unit(vectors: Vectors) -> Vectors:
    unit: Vectors = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
    return unit


def _fit(features: Vectors, classes: Classes) -> Fitted:
    head = fit_head(features, classes, int(classes.max()) + 1, _STRENGTH)
    return Fitted(head, fit_distances(features, classes), _unit(features))


def scores(features: Vectors, classes: Classes) -> Callable[[Vectors], dict[str, Scores]]:
    """Return what gives all scores by name, of a head that is fitted to ``features``."""
    fold = np.random.default_rng(0).integers(_FOLDS, size=len(features))
    unseen: dict[str, list[Scores]] = {}
    for number in range(_FOLDS):
        seen = fold != number
        for name, part in _fit(features[seen], classes[seen]).parts(features[~seen]).items():
            unseen.setdefault(name, []).append(part)
    spread = {name: float(np.concatenate(parts).std()) for name, parts in unseen.items()}
    fitted = _fit(features, classes)

    def score(asked: Vectors) -> dict[str, Scores]:
        parts = fitted.parts(asked)
        added = {" + ".join(names): sum(parts[name] / spread[name] for name in names) for names in SUMS}
        return {**parts, **added}  # type: ignore[dict-item]  # a sum of arrays is one

    return score


Figures = dict[str, NDArray[np.float64]]
"""AUROC and the share that passes, [2], by the name of the score."""


def compare(known: dict[str, Scores], others: dict[str, Scores]) -> Figures:
    """Say of each score how well it tells the ``others``."""

    def passing(name: str) -> float:
        return float((others[name] >= np.quantile(known[name], 1 - _PASSES)).mean())

    return {name: np.array([auroc(known[name], others[name]), passing(name)]) for name in known}


def of_another_kind(pictures: Pictures, others: Pictures) -> Figures:
    """Compare the test pictures with pictures of other things."""
    score = scores(pictures.train, pictures.classes)
    return compare(score(pictures.test), score(np.concatenate([others.test, others.train])[:_MOST_OTHERS]))


def left_out(pictures: Pictures) -> Figures:
    """Compare the test pictures with those of classes that the head does not know, a third of them, three times."""
    classes = int(pictures.classes.max()) + 1
    found = []
    for unknown in np.array_split(np.arange(classes), 3):
        place = np.cumsum(~np.isin(np.arange(classes), unknown)) - 1
        known = ~np.isin(pictures.classes, unknown)
        asked = ~np.isin(pictures.test_classes, unknown)
        score = scores(pictures.train[known], place[pictures.classes[known]])
        others = np.concatenate([pictures.test[~asked], pictures.train[~known]])
        found.append(compare(score(pictures.test[asked]), score(others)))
    return {name: np.mean([figures[name] for figures in found], axis=0) for name in found[0]}


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("folders", type=Path, nargs=2, metavar="FOLDER", help="photographs, a folder for each class")
    folders = parser.parse_args().folders
    one, other = (read(folder, _CACHE) for folder in folders)
    first, second = (folder.name for folder in folders)
    columns = {
        f"{first}, left out": left_out(one),
        f"{first}, {second}": of_another_kind(one, other),
        f"{second}, {first}": of_another_kind(other, one),
        f"{second}, left out": left_out(other),
    }
    print(f"| score | {' | '.join(columns)} |\n|{'---|' * (1 + len(columns))}")
    for name in next(iter(columns.values())):
        cells = (f"{figures[name][0]:.3f}, {figures[name][1]:.0%}" for figures in columns.values())
        print(f"| {name} | {' | '.join(cells)} |")


if __name__ == "__main__":
    main()
