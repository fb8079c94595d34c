"""How well a version of the project's own network tells photographs of other things, and which score would do better.

``python benchmarks/other_photographs.py VERSION FOLDER... --data DATA`` has VERSION, which was trained on DATA, score
the test pictures of DATA and the photographs below each FOLDER, brought to its size as the service does. It prints two
tables: what is served, in int8 where there is that, and what other scores of the network would tell, which are fitted
to 10,000 pictures that it was trained on. AUROC, and the share of the photographs that pass where 95% of the held-out
pictures do. The last column is the share of test pictures that pass once they are sharpened: a score that looks at how
a picture was made calls those unfamiliar.
"""

from __future__ import annotations

import argparse
import itertools
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageFilter
from scipy.special import softmax

ROOT = Path(__file__).resolve().parents[1]
if str(ROOT) not in sys.path:  # run as a file, the folder of the packages is not on the path
    sys.path.insert(0, str(ROOT))

from artifact import Input, read_metadata  # noqa: E402
from artifact.pictures import has_suffix  # noqa: E402
from imaging import open_picture, to_input  # noqa: E402
from machine import import_openvino, openvino_core, usable_cores  # noqa: E402
from service.inference.engine import load  # noqa: E402
from training.commands.labelled import of_training  # noqa: E402
from training.data.batching import in_batches  # noqa: E402
from training.data.dataset import Classes, Pixels, evenly_spaced  # noqa: E402
from training.data.pictures import Reading  # noqa: E402
from training.evaluation.familiarity import Scores, auroc, find_threshold, score_of  # noqa: E402

Vectors = NDArray[np.float32]  # [N, D]
Maps = dict[str, Vectors]  # what is taken of the maps of N pictures, by name

_FITTED_TO = 10_000
_SHARPENED = 2000
_BATCH = 250
_SURE = 0.8
_RIDGE = 1e-3  # of the mean variance
_NEAREST = 10
_BANK = 5000
_PRINCIPAL = 64
_REACT = 0.99
_GEN = 0.1
_LEAST_VARIANCE = 1e-6


class Pictures(NamedTuple):
    """Pictures uint8 [N, H, W, 3]: to fit scores to, with their classes; held out; of the test; sharpened; others."""

    fitted: Pixels
    classes: Classes
    held_out: Pixels
    test: Pixels
    sharpened: Pixels
    others: dict[str, Pixels]


def read(version: Path, data: Path | None, folders: Sequence[Path]) -> Pictures:
    """Read the data and all photographs."""
    metadata = read_metadata(version)
    dataset = of_training(version, metadata, data, Reading())
    chosen = evenly_spaced(len(dataset.train), _FITTED_TO)
    return Pictures(
        dataset.train.images[chosen],
        dataset.train.classes[chosen],
        dataset.validation.images,
        dataset.test.images,
        np.stack([_sharpened(dataset.test.images[each]) for each in evenly_spaced(len(dataset.test), _SHARPENED)]),
        {"/".join(folder.parts[-2:]): _photographs(folder, metadata.input) for folder in folders},
    )


def _photographs(folder: Path, size: Input) -> Pixels:
    files = sorted(file for file in folder.rglob("*") if file.is_file() and has_suffix(file.name))
    return np.stack([to_input(open_picture(file.read_bytes()), size) for file in files])


def _sharpened(image: Pixels) -> Pixels:
    return np.asarray(Image.fromarray(image).filter(ImageFilter.UnsharpMask(radius=1, percent=50, threshold=0)))


def served(version: Path, pictures: Pictures) -> list[str]:
    """Return the rows of what the service tells."""
    metadata = read_metadata(version)
    if metadata.familiarity is None:
        sys.exit(f"{version} has no threshold, since too few pictures were held out of its training.")
    threshold, classes = metadata.familiarity.threshold, len(metadata.labels)
    engine = load("openvino", version, "int8" if metadata.int8 else "float32", usable_cores())

    def answers(images: Pixels) -> Vectors:
        return np.concatenate([engine.predict(batch) for batch in in_batches(images, _BATCH)])

    known = answers(pictures.test)[:, classes]
    rows = [f"| test pictures | {len(known):,} | | {(known >= threshold).mean():.0%} | |"]
    for name, images in pictures.others.items():
        outputs = answers(images)
        scores, sure = outputs[:, classes], outputs[:, :classes].max(axis=1) > _SURE
        passing = scores >= threshold
        rows.append(
            f"| {name} | {len(images):,} | {auroc(known, scores):.3f} | {passing.mean():.0%} | "
            f"{(passing & sure).mean():.0%} |"
        )
    return rows


def maps_of(version: Path) -> Callable[[Pixels], Maps]:
    """Return what gives the logits [N, K] of pictures, and of the maps of each activation mean, square and maximum.

    An activation is named after its group, the stem being 0, and its place in there: ``1a``.
    """
    network = openvino_core().read_model(version)
    ov, op = import_openvino(), sys.modules["openvino"].opset8
    axes = np.array([2, 3])
    taken: dict[str, Any] = {}
    sizes: list[int] = []
    for silu in filter(_is_silu, network.get_ordered_ops()):
        size = silu.get_output_partial_shape(0)[2].get_length()
        sizes.append(size)
        maps = silu.output(0)
        name = f"{len(set(sizes)) - 1}{'abcdefgh'[sizes.count(size) - 1]}"
        taken |= {
            f"{name} mean": op.reduce_mean(maps, axes, False),
            f"{name} square": op.reduce_mean(op.multiply(maps, maps), axes, False),
            f"{name} max": op.reduce_max(maps, axes, False),
        }
    # The first operation after the head that is a softmax, the correction's, takes the logits.
    correction = next(each for each in network.get_ordered_ops() if each.get_type_name() == "Softmax")
    taken["logits"] = correction.input_value(0).get_node()
    results = [op.result(each.output(0)) for each in taken.values()]
    whole = ov.Model(results, network.get_parameters(), "maps")
    compiled = openvino_core().compile_model(whole, "CPU", {"INFERENCE_PRECISION_HINT": "f32"})

    def answer(images: Pixels) -> Maps:
        parts = [[np.array(each) for each in compiled(batch).values()] for batch in in_batches(images, _BATCH)]
        return {name: np.concatenate(part) for name, part in zip(taken, zip(*parts, strict=True), strict=True)}

    return answer


def _is_silu(operation: Any) -> bool:
    before = [value.get_node().get_type_name() for value in operation.input_values()]
    return operation.get_type_name() == "Multiply" and "Sigmoid" in before


Part = Callable[[Maps], Vectors]


def groups_of(maps: Maps) -> list[list[str]]:
    """Return the names of the activations, group by group, the stem's first."""
    names = sorted(name.removesuffix(" mean") for name in maps if name.endswith(" mean"))
    return [list(names_of) for _, names_of in itertools.groupby(names, key=lambda name: name[0])]


def embedding(maps: Maps) -> Vectors:
    """Take what the head works on, [N, C]."""
    return maps[f"{groups_of(maps)[-1][-1]} max"]


def last_means(maps: Maps) -> Vectors:
    """Take the means of the last maps, [N, C]."""
    return maps[f"{groups_of(maps)[-1][-1]} mean"]


def inner_means(maps: Maps) -> Vectors:
    """Take the means of the last maps but one, inside of the last group, [N, C]."""
    return maps[f"{groups_of(maps)[-1][-2]} mean"]


def look(maps: Maps) -> Vectors:
    """Take means and logarithms of the variances of the maps that the groups between end with, [N, 2C].

    They are about how a picture looks more than about what is in it.
    """
    taken = []
    for *_, name in groups_of(maps)[1:-1]:
        means, squares = maps[f"{name} mean"], maps[f"{name} square"]
        taken += [means, np.log(np.maximum(squares - means**2, _LEAST_VARIANCE))]
    return np.concatenate(taken, axis=1)


def unit(part: Part) -> Part:
    """Take it at a length of 1."""
    return lambda maps: part(maps) / np.linalg.norm(part(maps), axis=1, keepdims=True)


Score = Callable[[Maps], Scores]
Fit = Callable[[Maps, Classes], Score]


def of_logits(score: Callable[[Vectors], Scores]) -> Fit:
    """Return a score that nothing is fitted for."""
    return lambda _maps, _classes: lambda maps: score(maps["logits"])


def _gen(logits: Vectors) -> Scores:
    """Return the generalised entropy of Liu et al. (GEN, CVPR 2023), negative."""
    p = softmax(logits, axis=1)
    found: Scores = -(p**_GEN * (1 - p) ** _GEN).sum(axis=1)
    return found


def react(maps: Maps, _classes: Classes) -> Score:
    """Return the energy of the embedding cut off above (ReAct, arXiv 2111.12797)."""
    kernel = np.linalg.lstsq(embedding(maps), maps["logits"], rcond=None)[0]
    highest = np.quantile(embedding(maps), _REACT)
    return lambda asked: score_of(np.minimum(embedding(asked), highest) @ kernel)


def _whitened(vectors: Vectors) -> Vectors:
    """Return what brings the covariance of centred ``vectors`` [N, D] to the identity, [D, D]."""
    covariance = np.cov(vectors.T, bias=True)
    variances, axes = np.linalg.eigh(
        covariance + _RIDGE * np.trace(covariance) / len(covariance) * np.eye(len(covariance))
    )
    whitened: Vectors = (axes / np.sqrt(variances)).astype(np.float32)
    return whitened


def mahalanobis(part: Part, *, relative: bool = False) -> Fit:
    """Return minus the distance to the nearest class; squared, and less that to all pictures, where it is relative."""

    def fit(maps: Maps, classes: Classes) -> Score:
        vectors = part(maps)
        centre = vectors.mean(axis=0)
        means = np.stack([vectors[classes == kind].mean(axis=0) for kind in np.unique(classes)])
        within, overall = _whitened(vectors - means[classes]), _whitened(vectors - centre)
        places = means @ within

        def score(asked: Maps) -> Scores:
            inside = part(asked) @ within
            squares = (inside**2).sum(axis=1)[:, np.newaxis] - 2 * inside @ places.T + (places**2).sum(axis=1)
            to_class = np.maximum(squares.min(axis=1), 0)
            to_all = (((part(asked) - centre) @ overall) ** 2).sum(axis=1)
            found: Scores = to_all - to_class if relative else -np.sqrt(to_class)
            return found

        return score

    return fit


def nearest(part: Part) -> Fit:
    """Return the likeness to the tenth nearest of 5,000 pictures (arXiv 2204.06507)."""

    def fit(maps: Maps, _classes: Classes) -> Score:
        bank = unit(part)(maps)[evenly_spaced(len(part(maps)), _BANK)]

        def score(asked: Maps) -> Scores:
            vectors = unit(part)(asked)
            likeness = (vectors[begin : begin + _BATCH] @ bank.T for begin in range(0, len(vectors), _BATCH))
            return np.concatenate([np.partition(each, -_NEAREST, axis=1)[:, -_NEAREST] for each in likeness])

        return score

    return fit


def residual(maps: Maps, _classes: Classes) -> Score:
    """Return minus what of the embedding lies outside of its 64 main directions (arXiv 2203.10807)."""
    vectors = embedding(maps)
    centre = vectors.mean(axis=0)
    outside = np.linalg.eigh(np.cov(vectors.T))[1][:, :-_PRINCIPAL]
    return lambda asked: -np.linalg.norm((embedding(asked) - centre) @ outside, axis=1)


_ENERGY = of_logits(score_of)
_INNER = mahalanobis(unit(inner_means))
_LOOK = mahalanobis(look)

SCORES: dict[str, tuple[Fit, ...]] = {
    "energy, in float32": (_ENERGY,),
    "largest probability": (of_logits(lambda logits: softmax(logits, axis=1).max(axis=1)),),
    "GEN": (of_logits(_gen),),
    "ReAct": (react,),
    "Mahalanobis of the embedding": (mahalanobis(embedding),),
    "the same, at length 1": (mahalanobis(unit(embedding)),),
    "relative Mahalanobis of the embedding": (mahalanobis(embedding, relative=True),),
    "nearest neighbour of the embedding": (nearest(embedding),),
    "nearest neighbour of the last maps' means": (nearest(last_means),),
    "energy + residual": (_ENERGY, residual),
    "energy + relative Mahalanobis of the embedding": (_ENERGY, mahalanobis(embedding, relative=True)),
    "energy + inner means": (_ENERGY, _INNER),
    "energy + look": (_ENERGY, _LOOK),
    "energy + inner means + look": (_ENERGY, _INNER, _LOOK),
}
"""What is added up, each in units of its spread over the held-out pictures."""


def compared(version: Path, pictures: Pictures) -> list[str]:
    """Return the rows of all scores."""
    answer = maps_of(version)
    fitted, held_out = answer(pictures.fitted), answer(pictures.held_out)
    asked = {"test": answer(pictures.test), "sharpened": answer(pictures.sharpened)}
    asked |= {name: answer(images) for name, images in pictures.others.items()}
    rows = []
    for name, fits in SCORES.items():
        scores = [fit(fitted, pictures.classes) for fit in fits]
        units = [float(score(held_out).std()) for score in scores]

        def total(maps: Maps, scores: list[Score] = scores, units: list[float] = units) -> Scores:
            added: Scores = np.sum([score(maps) / one for score, one in zip(scores, units, strict=True)], axis=0)
            return added

        threshold = find_threshold(total(held_out), "").threshold
        found = {each: total(maps) for each, maps in asked.items()}
        cells = [
            f"{auroc(found['test'], found[other]):.3f}, {(found[other] >= threshold).mean():.0%}"
            for other in pictures.others
        ]
        cells += [f"{(found[each] >= threshold).mean():.0%}" for each in ("test", "sharpened")]
        rows.append(f"| {name} | {' | '.join(cells)} |")
    return rows


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("version", type=Path, help="folder of the version, e.g. models/cifar10/5")
    parser.add_argument("folders", type=Path, nargs="+", metavar="FOLDER", help="photographs of other things")
    parser.add_argument("--data", type=Path, help="the data that it was trained on (default: download CIFAR-10)")
    options = parser.parse_args()
    pictures = read(options.version, options.data, options.folders)
    print("| pictures | number | AUROC | called familiar | and above 80% sure |\n|---|---|---|---|---|")
    print(*served(options.version, pictures), sep="\n")
    columns = [*pictures.others, "test pictures", "sharpened"]
    print(f"\n| score | {' | '.join(columns)} |\n|{'---|' * (1 + len(columns))}")
    print(*compared(options.version, pictures), sep="\n")


if __name__ == "__main__":
    main()
