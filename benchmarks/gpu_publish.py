"""Publish a network that benchmarks/gpu.py gave back, as any training's: calibrated, quantised, held against the last.

    python benchmarks/gpu_publish.py results standard --data cifar-10-python.tar.gz --models models --name cifar10

``results`` is the folder that came back, with ``results.json`` and the weights. The network and what it learned from
are on record there; its teachers have a version of 0 in the record of the new one, since they are not published.
"""

import argparse
import io
import json
import sys
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import numpy as np
from numpy.typing import NDArray

from training.data import sources
from training.data.dataset import Dataset, size_in_words
from training.errors import Interruption, TrainingError
from training.evaluation.few_images import why_not_calibrated
from training.evaluation.post_hoc import fit_post_hoc
from training.fit.lineage import Lineage, Origin, Record, RunSettings
from training.fit.recipe import Recipe
from training.network.model import build, in_float32, set_weights
from training.publish import configuration
from training.publish.quantization import add_int8
from training.publish.version import Candidate, Place, publish

RESULTS = "results.json"
_VALIDATION_IMAGES = 2500  # what benchmarks/gpu.py holds out
_ENVIRONMENT = {"backend": "jax", "precision": "bfloat16"}


def main() -> int:
    """Publish what the command line names, or say why not."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("results", type=Path, help="the folder that came back")
    parser.add_argument("part", help="best, standard or fast")
    parser.add_argument("--data", type=Path, required=True, metavar="PATH", help="CIFAR-10, an archive or its folder")
    parser.add_argument("--models", type=Path, default=Path("models"), help="default: %(default)s")
    parser.add_argument("--name", required=True, help="the model of which this is the next version")
    parser.add_argument("--publish-anyway", action="store_true", help="even where it is worse than the version before")
    options = parser.parse_args()
    try:
        found = json.loads((options.results / RESULTS).read_text(encoding="utf-8"))
        dataset = sources.load(options.data, _VALIDATION_IMAGES, smoke=False)
        candidate = candidate_of(found, options.part, read_weights(options.results, options.part), dataset)
        place = Place(options.models, options.name, lambda _: dataset.test, options.publish_anyway)
        published = publish(candidate, dataset, place, Interruption())
    except (TrainingError, OSError) as error:
        print(f"Nothing is published: {error}.", file=sys.stderr)
        return 1
    there = found[options.part]["test"]
    print(
        f"Published {published.path}: {published.metadata.metrics.accuracy:.2%}, where it had {there:.2%} in bfloat16."
    )
    return 0


def read_weights(folder: Path, part: str) -> list[NDArray[np.float32]]:
    """Return the weights that came back in pieces, in the order of the network's.

    Raises:
        TrainingError: there are none, or a piece is missing.
    """
    pieces = sorted(folder.glob(f"{part}.npz.*"), key=lambda piece: int(piece.suffix[1:]))
    if [piece.suffix for piece in pieces] != [f".{number}" for number in range(1, len(pieces) + 1)] or not pieces:
        raise TrainingError(f"{folder} lacks pieces of {part}.npz: {len(pieces)} are there")
    try:
        with np.load(io.BytesIO(b"".join(piece.read_bytes() for piece in pieces))) as weights:
            return [weights[name].astype(np.float32) for name in weights.files]
    except Exception as error:  # zipfile and NumPy raise nearly anything of a file that is cut short
        raise TrainingError(f"{part}.npz cannot be read ({error}); a piece is missing or damaged") from error


def candidate_of(results: dict[str, Any], part: str, weights: list[NDArray[np.float32]], dataset: Dataset) -> Candidate:
    """Return the network of a part, calibrated on the held-out images of ``dataset``, ready to be published.

    Raises:
        TrainingError: the results have no such part, or the weights are of another network.
    """
    if "recipe" not in results.get(part, {}):
        raise TrainingError(f"the results have no training {part}; they have {', '.join(results)}")
    found = results[part]
    recipe = _recipe(found)
    model = build(dataset.input_shape, len(dataset.labels), recipe.widths, recipe.seed, recipe.convolutions)
    if [weight.shape for weight in model.get_weights()] != [weight.shape for weight in weights]:
        raise TrainingError(f"the weights of {part} are of another network than its recipe, or of other data")
    set_weights(model, weights)
    model = in_float32(model)
    record = record_of(results, part, dataset)
    lineage = Lineage.read(record)
    held_out = lineage.held_out()
    environment = {**_ENVIRONMENT, "hardware": f"1 {results['card']['device']}, {results['card']['host']}"}
    options = {"validation-images": _VALIDATION_IMAGES, "int8": True, "precision": "bfloat16"}
    return Candidate(
        model=model,
        post_hoc=fit_post_hoc(model, dataset, held_out, lineage.smoothing()),
        not_calibrated=why_not_calibrated(held_out),
        record=record,
        environment=environment,
        history=[],
        seconds=found["seconds"],
        learned=len(dataset.train),
        held_out=held_out,
        quantize=lambda version: add_int8(version, dataset, held_out),
        configuration=configuration.write(options, recipe, "benchmarks/gpu.py trained it, with the teachers on record"),
    )


def record_of(results: dict[str, Any], part: str, dataset: Dataset) -> Record:
    """Return what a part was trained by, as a training's own record says it."""
    found = results[part]
    teachers = tuple(_origin(results, name) for name in found["teachers"].get("names", ()))
    digest, pictures = dataset.digest(), size_in_words(dataset.picture)
    return RunSettings(_recipe(found), None, digest, pictures, _VALIDATION_IMAGES, teachers=teachers).record()


def _origin(results: dict[str, Any], name: str) -> Origin:
    """Return the record of a teacher, such as ``teacher`` or, of three seeds, ``to96-1``."""
    part, _, seed = name.partition("-")
    found = results[part]
    run = found["runs"][int(seed)] if seed else found
    training = {**found["recipe"], "validation_images": _VALIDATION_IMAGES}
    return Origin(name, 0, run["test"], run["seconds"], training)


def _recipe(found: dict[str, Any]) -> Recipe:
    return Recipe(**{**found["recipe"], "widths": tuple(found["recipe"]["widths"])})


if __name__ == "__main__":
    sys.exit(main())
