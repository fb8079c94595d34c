"""From a trained network to a published version: export, evaluate, hold against the version before, quantise, publish."""

import dataclasses
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import keras
import numpy as np
from numpy.typing import NDArray

import artifact
from artifact import Draft, Int8, Metadata
from artifact.layout import MODEL_CARD
from training.data.batching import batch_of
from training.data.dataset import Dataset
from training.errors import AccuracyLost, Interruption
from training.evaluation import report
from training.evaluation.accuracy import Evaluation
from training.evaluation.calibration import Correction
from training.evaluation.familiarity import measure
from training.evaluation.inference import answers_to, openvino_answer
from training.evaluation.plots import save_plots
from training.evaluation.post_hoc import PostHoc, logits_of
from training.fit.checkpoints import RunState
from training.network.model import megaflops
from training.progress import stage
from training.publish import configuration, provenance
from training.publish.gate import SplitFor, pass_gate
from training.publish.model_card import int8_accuracy, model_card

_CHECKED_IMAGES, _CHECKED_PIXELS = 100, 2**20


@dataclass(frozen=True)
class Candidate:
    """A trained network that is ready to be published.

    ``model`` computes in float32; ``learned`` and ``held_out`` are the numbers of pictures that it was trained on and
    that were kept from it. ``quantize`` adds the int8 network to a draft and measures it, None where none is wanted.
    ``configuration`` is the file that repeats the training.
    """

    model: keras.Model
    post_hoc: PostHoc
    state: RunState
    learned: int
    held_out: int
    quantize: Callable[[Path], Int8] | None
    configuration: str


@dataclass(frozen=True)
class Place:
    """Where a version goes, and what it is held against there: see ``pass_gate``."""

    models: Path
    name: str
    test_images: SplitFor
    publish_anyway: bool


@dataclass(frozen=True)
class Published:
    """A version in its folder, with what was measured of it."""

    path: Path
    metadata: Metadata
    evaluation: Evaluation


def publish(candidate: Candidate, dataset: Dataset, place: Place, interruption: Interruption) -> Published:
    """Publish ``candidate`` as the next version of its name.

    Raises:
        WorseVersion: it is worse than the version that it would replace.
        TrainingError: the SavedModel does not answer as the network does.
        Interrupted: a signal came; nothing is published.
        OSError: the folder cannot be written.
    """
    with artifact.draft(place.models, place.name) as draft:
        _export(candidate, dataset, draft)
        evaluation, familiarity = _evaluate(dataset, draft)
        print(report.table(evaluation))
        digest = candidate.state.settings["data"]
        anyway = place.publish_anyway
        pass_gate(place.models, place.name, evaluation, digest, place.test_images, publish_anyway=anyway)
        with stage("Measuring how well other pictures are told from these"):
            score = openvino_answer(draft.path)
            threshold = candidate.post_hoc.threshold
            others = measure(lambda images: score(images)["familiarity"], familiarity, dataset.test.images, threshold)
        int8 = _int8(candidate, draft)
        metrics = dataclasses.replace(evaluation.metrics(), out_of_distribution=others)
        metadata = _metadata(candidate, dataset, place, metrics=metrics, int8=int8)
        _write_extras(candidate, dataset, draft, metadata, evaluation)
        interruption.check()
        path = draft.publish(metadata)
    return Published(path, metadata, evaluation)
