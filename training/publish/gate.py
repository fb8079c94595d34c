"""The quality gate: a version that is worse than the one it would replace is not published.

Both classify the same test images. What counts is on how many of them only one is right, so that a difference is told
from noise with far fewer images than two accuracies would need. Where a picture may have several labels, it is the
difference of their mean average precision on the same draws of the bootstrap, which needs no thresholds.
"""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Generic

import numpy as np

import artifact
from artifact import Input, InvalidVersion, Metadata
from artifact.accuracy import accuracy_beside, accuracy_in_words
from training.data.dataset import Split
from training.errors import TrainingError, WorseVersion
from training.evaluation.accuracy import Evaluation
from training.evaluation.average_precision import Pair, RankedPair
from training.evaluation.inference import openvino_predict
from training.evaluation.multi_label import MultiLabelEvaluation
from training.evaluation.paired import LEVEL, Paired, Right
from training.evaluation.tasks import AnyEvaluation

SplitFor = Callable[[Input], Split]
"""Gives the test images as a version with this input takes them; TrainingError where there are none of that size."""

_LOSS_THAT_MATTERS = 0.05
"""A loss of accuracy that the images must be able to rule out before a version is called no worse.

Of 54 images that both versions answer alike, the interval of the difference ends there. With less, such as 2 points, a
folder of some hundred pictures would be told so after every training, and nobody would read it any more.
"""


@dataclass(frozen=True)
class _Verdict(Generic[Pair]):
    """What the version ``before`` and the new one made of the same images; ``caveat`` is a sentence or empty."""

    before: Path
    paired: Pair
    measured_on: str
    caveat: str

    @property
    def worse(self) -> bool:
        """Whether the new version is worse beyond noise; by chance, ``LEVEL`` of those that are no worse are."""
        return self.paired.p_second_worse() < LEVEL

    @property
    def too_few_to_tell(self) -> bool:
        """Whether the new version may well be worse by more than 0.05, and the images do not show it."""
        low, _ = self.paired.interval()
        return not self.worse and low < -_LOSS_THAT_MATTERS


class Verdict(_Verdict[Paired]):
    """Of versions that tell one label: what both got right."""

    def __str__(self) -> str:
        paired = self.paired
        before, now = paired.accuracies
        p = paired.p_second_worse()
        return (
            f"{accuracy_in_words(now, paired.images, self.measured_on)}, "
            f"where {self.before} has {accuracy_beside(before, paired.images)}; "
            f"{paired.only_first:,} that it got right are wrong now, {paired.only_second:,} the other way round "
            f"(McNemar's exact test, one-sided: p = {p:.2g}, {'below' if self.worse else 'not below'} {LEVEL:g})"
            f"{self.caveat}"
        )

    def interval_in_words(self) -> str:
        """Return between which differences the true one lies, and what would narrow that down."""
        low, high = (100 * end for end in self.paired.interval())
        return (
            f"the difference is between {low:+.1f} and {high:+.1f} points, at a confidence of 95%, "
            "and only more test images would tell"
        )


class RankingVerdict(_Verdict[RankedPair]):
    """Of versions that tell several labels: how well both rank; the interval is that of the difference of the means."""

    def __str__(self) -> str:
        paired = self.paired
        p = paired.p_second_worse()
        return (
            f"mean average precision {paired.second:.4f} on {paired.images:,} images ({self.measured_on}), "
            f"where {self.before} has {paired.first:.4f} "
            f"(paired bootstrap, one-sided: p = {p:.2g}, {'below' if self.worse else 'not below'} {LEVEL:g})"
            f"{self.caveat}"
        )

    def interval_in_words(self) -> str:
        """Return between which differences the true one lies, and what would narrow that down."""
        low, high = self.paired.interval()
        return (
            f"the difference is between {low:+.3f} and {high:+.3f}, at a confidence of 95%, "
            "and only more test images would tell"
        )


def pass_gate(
    models: Path, name: str, evaluation: AnyEvaluation, digest: str, split_for: SplitFor, *, publish_anyway: bool
) -> None:
    """Compare a new version with the one that it would replace, the latest of ``name`` under ``models``, and say so.

    ``evaluation`` is that of the new version on the test images of the data with this ``digest``. A version with other
    labels does another task, and one that cannot be read has nothing to compare with: those are no reason not to
    publish. Nor are images that are too few to tell, or a folder of few pictures could never be trained on again.

    Raises:
        WorseVersion: the new version is worse beyond noise, and it is not to be published anyway.
    """
    number = artifact.latest(models, name)
    if number is None:
        return
    before = artifact.version_path(models, name, number)
    try:
        verdict = compare(before, evaluation, digest, split_for)
    except (TrainingError, InvalidVersion) as reason:
        print(f"Publishing without a comparison with the version before: {reason}.")
        return
    if verdict.too_few_to_tell:
        print(
            f"Too few pictures to tell whether it is worse than the version before: {verdict}; "
            f"{verdict.interval_in_words()}."
        )
    elif not verdict.worse:
        print(f"No worse than the version before: {verdict}.")
    elif publish_anyway:
        print(f"Worse than the version before, and published anyway: {verdict}.")
    else:
        raise WorseVersion(
            f"{verdict}; nothing is lost: the same command with --publish-anyway publishes it without training again"
        )


def compare(before: Path, evaluation: AnyEvaluation, digest: str, split_for: SplitFor) -> Verdict | RankingVerdict:
    """Let version ``before`` classify the images of ``evaluation`` and compare.

    Raises:
        InvalidVersion: ``before`` cannot be read.
        TrainingError: it has other labels, the images cannot be had as it takes them, or OpenVINO cannot run it.
    """
    metadata = artifact.validate(before)
    if set(metadata.labels) != set(evaluation.labels):
        raise TrainingError(f"{before} has other labels ({', '.join(metadata.labels)}), so it does another task")
    if (metadata.task == "multi-label") != isinstance(evaluation, MultiLabelEvaluation):
        raise TrainingError(f"it and {before} do different tasks: one gives a picture one label, the other several")
    split = split_for(metadata.input)
    if not np.array_equal(split.classes, evaluation.split.classes):
        raise TrainingError(f"{before} takes pictures of another size, at which not all of the same ones can be read")
    caveat = ""
    if metadata.dataset.get("sha256") != digest:
        caveat = "; it was trained on other data, which may have held some of these images"
    answered = _answered_before(before, metadata, split, evaluation.measured_on)
    if isinstance(evaluation, MultiLabelEvaluation):
        columns = [metadata.labels.index(label) for label in evaluation.labels]
        ranked = RankedPair.of(answered.probabilities[:, columns], evaluation.probabilities, evaluation.has)
        return RankingVerdict(before, ranked, evaluation.measured_on, caveat)
    paired = Paired.count(_right_before(answered, evaluation), evaluation.right)
    return Verdict(before, paired, evaluation.measured_on, caveat)


def _answered_before(before: Path, metadata: Metadata, split: Split, measured_on: str) -> Evaluation:
    """Return what version ``before`` answers to ``split``."""
    try:
        return Evaluation(metadata.labels, measured_on, split, openvino_predict(before)(split.images))
    except RuntimeError as error:  # OpenVINO's own
        raise TrainingError(f"{before} cannot be run by OpenVINO ({error})") from error


def _right_before(answered: Evaluation, evaluation: Evaluation) -> Right:
    """Return which answers of the version before are right; classes count in the order of the new labels."""
    new_class = np.array([evaluation.labels.index(label) for label in answered.labels])
    hits: Right = new_class[answered.predicted] == answered.split.classes
    return hits
