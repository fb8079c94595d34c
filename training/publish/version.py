"""From a trained network to a published version: exported, measured, held against the version before, quantised."""

import dataclasses
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import keras
import numpy as np
from numpy.typing import NDArray

import artifact
from artifact import Draft, Int8, Metadata, Reference
from artifact.layout import MODEL_CARD
from artifact.store import Store
from training.data.dataset import Dataset
from training.data.findings import Finding
from training.errors import AccuracyLost, Interruption
from training.evaluation.calibration import Correction
from training.evaluation.familiarity import measure
from training.evaluation.inference import Outputs, answers_to, openvino_score
from training.evaluation.multi_label import MultiLabelEvaluation
from training.evaluation.plots import save_plots
from training.evaluation.post_hoc import OfLabels, PostHoc, logits_of
from training.evaluation.reference import reference_of, write_embedding
from training.evaluation.tasks import AnyEvaluation, evaluation_of, table
from training.fit.checkpoints import History
from training.fit.lineage import Record
from training.network.model import megaflops
from training.progress import stage
from training.publish import configuration, provenance
from training.publish.gate import SplitFor, pass_gate
from training.publish.model_card import (
    calibration_in_words,
    familiarity_in_words,
    int8_accuracy,
    model_card,
)
from training.publish.report import Shown, before_calibration, write_history, write_report
from training.publish.stores import bring_newest

_CHECKED_IMAGES = 100
_CHECKED_PIXELS = 2**18  # 5 pictures of 224x224: three runtimes keep the memory that they have taken for them


@dataclass(frozen=True)
class Unseen:
    """All ``outputs`` to pictures that were not learned from, by name, and in words which pictures they are."""

    outputs: Outputs
    measured_on: str


@dataclass(frozen=True)
class Candidate:
    """A trained network that is ready to be published.

    ``model`` computes in float32. ``record`` says what it was trained by, ``environment`` where, in words, and
    ``seconds`` for how long. ``learned`` and ``held_out`` are the numbers of pictures that it was trained on and that
    were kept from it. ``quantize`` adds the int8 network to the draft in a folder and measures it, None where none is
    wanted. ``configuration`` is the file that repeats the training. Without ``pictures`` none of them is published, nor
    the names of their files; ``findings`` are what a check of the data found. ``answers`` are what the network, or
    others like it, answered to pictures that these had not learned from; None where only the test tells.
    """

    model: keras.Model
    post_hoc: PostHoc
    not_calibrated: str
    """Why ``post_hoc`` has nothing, where it has nothing."""
    record: Record
    environment: dict[str, str]
    history: History
    seconds: float
    learned: int
    held_out: int
    quantize: Callable[[Path], Int8] | None
    configuration: str
    pictures: bool = True
    findings: Sequence[Finding] = ()
    answers: Unseen | None = None


@dataclass(frozen=True)
class Place:
    """Where a version goes, and what it is held against there: see ``pass_gate``.

    With a ``store`` it goes there, and ``models`` has a copy.
    """

    models: Path
    name: str
    test_images: SplitFor
    publish_anyway: bool
    store: Store | None = None


@dataclass(frozen=True)
class Published:
    """A version in its folder, and what is on record of it."""

    path: Path
    metadata: Metadata


def publish(candidate: Candidate, dataset: Dataset, place: Place, interruption: Interruption) -> Published:
    """Publish ``candidate``, which was trained on ``dataset``, as the next version of its name.

    Raises:
        WorseVersion: it is worse than the version that it would replace.
        SourceFails: the store cannot be read or written; nothing is published.
        TrainingError: the SavedModel does not answer as the network does.
        Interrupted: a signal came; nothing is published.
        OSError: the folder cannot be written.
    """
    post_hoc, digest, anyway = candidate.post_hoc, candidate.record["data"], place.publish_anyway
    with artifact.draft(place.models, place.name, place.store) as draft:
        _export(candidate, dataset, draft)
        with stage(f"Measuring on {len(dataset.test):,} test images"):
            answers = answers_to(draft.path, dataset.test.images)
        of_labels = post_hoc.of_labels
        evaluation = evaluation_of(
            dataset.labels,
            f"{dataset.name} test",
            dataset.test,
            answers["probabilities"],
            of_labels.thresholds if of_labels else None,
        )
        print(table(evaluation))
        if place.store is not None:
            bring_newest(place.store, place.models, place.name)  # another trainer may have published meanwhile
        pass_gate(place.models, place.name, evaluation, digest, place.test_images, publish_anyway=anyway)
        with stage("Measuring how well pictures of something else are told from them"):
            score = openvino_score(draft.path)
            others = measure(score, answers["familiarity"], dataset.test.images, post_hoc.threshold)
        int8 = _int8(candidate, draft)
        reference = _reference(candidate, dataset, answers, draft)
        metadata = Metadata(
            name=place.name,
            version=draft.next_version(),
            labels=dataset.labels,
            input=dataset.picture,
            metrics=dataclasses.replace(evaluation.metrics(), out_of_distribution=others),
            parameters=candidate.model.count_params(),
            megaflops=round(megaflops(candidate.model), 1),
            created=provenance.now(),
            training={**candidate.record, **candidate.environment},
            dataset={
                "name": dataset.name,
                "sha256": digest,
                "train": candidate.learned,
                "validation": candidate.held_out,
                "test": len(dataset.test),
            },
            revision=provenance.revision(),
            libraries=provenance.libraries(),
            hardware=candidate.environment["hardware"],
            training_seconds=round(candidate.seconds, 1),
            int8=int8,
            calibration=post_hoc.calibration,
            familiarity=post_hoc.familiarity,
            **_of_labels(evaluation, of_labels),
            reference=reference,
        )
        with stage("Drawing the plots"):
            uncalibrated = _uncalibrated(candidate, dataset, evaluation)
            plots = save_plots(evaluation, candidate.history, draft.extra, uncalibrated, pictures=candidate.pictures)
        (draft.path / MODEL_CARD).write_text(model_card(metadata, plots), encoding="utf-8")
        (draft.extra / configuration.FILE).write_text(candidate.configuration, encoding="utf-8")
        write_history(draft.path, candidate.history)
        with stage("Writing the report"):
            shown = Shown(dataset, candidate.pictures, candidate.findings)
            write_report(draft.path, metadata, evaluation, shown, uncalibrated)
        interruption.check()
        return Published(draft.publish(metadata), metadata)


def _of_labels(evaluation: AnyEvaluation, of_labels: OfLabels | None) -> dict[str, Any]:
    """Return what the metadata say of a version that tells several labels; of any other, nothing."""
    if of_labels is None or not isinstance(evaluation, MultiLabelEvaluation):
        return {}
    summary = dataclasses.replace(evaluation.summary(of_labels.chosen_on), scales=of_labels.scales or None)
    thresholds = dict(zip(evaluation.labels, of_labels.thresholds.tolist(), strict=True))
    return {"task": "multi-label", "thresholds": thresholds, "multi_label": summary}


def _export(candidate: Candidate, dataset: Dataset, draft: Draft) -> None:
    """Write the network as a SavedModel, and prove that this answers as the network does."""
    from training.publish.export import check, save  # which need TensorFlow

    post_hoc = candidate.post_hoc
    if post_hoc.calibration and post_hoc.familiarity:
        print(f"Calibrated: {calibration_in_words(post_hoc.calibration)}.")
        print(f"A picture is familiar {familiarity_in_words(post_hoc.familiarity)}.")
    else:
        print(candidate.not_calibrated)
    with stage("Exporting the network"):
        save(candidate.model, dataset.picture, draft.path, post_hoc.correction, post_hoc.score)
    height, width, _ = dataset.input_shape
    pictures = dataset.train.images[: min(max(_CHECKED_PIXELS // (height * width), 1), _CHECKED_IMAGES)]
    gap = check(candidate.model, draft.path, pictures, post_hoc.correction, post_hoc.score)
    print(f"The SavedModel answers as the network does, within {gap:.1e}, under TensorFlow and OpenVINO.")


def _reference(candidate: Candidate, dataset: Dataset, answers: Outputs, draft: Draft) -> Reference | None:
    """Return what the answers look like that are to be expected, and write that of the embeddings into the draft.

    They are those of cross-validation, or ``answers`` to the test images, or where there are more of them, those to
    the held-out images.
    """
    unseen, calibration = candidate.answers, candidate.post_hoc.calibration
    if unseen is None and calibration and calibration.images > len(dataset.test):
        held_out = dataset.validation[-calibration.images :].images
        unseen = Unseen(answers_to(draft.path, held_out), calibration.measured_on)
    unseen = unseen or Unseen(answers, f"{dataset.name} test")
    reference = reference_of(dataset.labels, unseen.outputs, unseen.measured_on)
    if reference and "embedding" in unseen.outputs:
        write_embedding(draft.path, unseen.outputs["embedding"])
    return reference


def _uncalibrated(candidate: Candidate, dataset: Dataset, evaluation: AnyEvaluation) -> NDArray[np.float32] | None:
    """Return the probabilities before the calibration, float32 [N, classes]; None where there is none."""
    calibration = candidate.post_hoc.calibration
    if calibration and calibration.label_smoothing:
        return Correction().probabilities(logits_of(candidate.model, dataset.test.images))
    return before_calibration(evaluation, calibration)


def _int8(candidate: Candidate, draft: Draft) -> Int8 | None:
    """Add the int8 network to the draft, or say that the version is published without."""
    if candidate.quantize is None:
        return None
    try:
        with stage("Quantising to int8"):
            int8 = candidate.quantize(draft.path)
    except AccuracyLost as lost:
        print(f"Publishing without int8, since {lost}.")
        return None
    print(f"accuracy in int8 {int8_accuracy(int8)}")
    return int8
