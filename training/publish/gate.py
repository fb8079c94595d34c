"""The quality gate: a version that is worse than the one it would replace is not published.

Both classify the same test images. What counts is on how many of them only one is right, so that a difference is told
from noise with far fewer images than two accuracies would need.
"""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

import artifact
from artifact import Input, InvalidVersion, Metadata
from training.data.dataset import Split
from training.errors import TrainingError, WorseVersion
from training.evaluation.accuracy import Evaluation, evaluate
from training.evaluation.few_images import accuracy_beside, accuracy_in_words
from training.evaluation.inference import openvino_predict
from training.evaluation.paired import LEVEL, Paired, Right

SplitFor = Callable[[Input], Split]
"""Gives the test images as a version with this input takes them; TrainingError where there are none of that size."""

_LOSS_THAT_MATTERS = 0.05
"""A loss of accuracy that the images must be able to rule out before a version is called no worse.

Of 54 images that both versions answer alike, the interval of the difference ends there. With less, such as 2 points, a
folder of some hundred pictures would be told so after every training, and nobody would read it any more.
"""


@dataclass(frozen=True)
class Verdict:
    """What the version ``before`` and the new one got right of the same images; ``caveat`` is a sentence or empty."""

    before: Path
    paired: Paired
    measured_on: str
    caveat: str

    @property
    def worse(self) -> bool:
        """Whether the new version is worse beyond noise; by chance, ``LEVEL`` of those that are no worse are."""
        return self.paired.p_second_worse() < LEVEL

    @property
    def too_few_to_tell(self) -> bool:
        """Whether the new version may well be worse by more than 5 points, and the images do not show it."""
        low, _ = self.paired.interval()
        return not self.worse and low < -_LOSS_THAT_MATTERS

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


def pass_gate(
    models: Path, name: str, evaluation: Evaluation, digest: str, split_for: SplitFor, *, publish_anyway: bool
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


def compare(before: Path, evaluation: Evaluation, digest: str, split_for: SplitFor) -> Verdict:
    """Let version ``before`` classify the images of ``evaluation`` and compare.

    Raises:
        InvalidVersion: ``before`` cannot be read.
        TrainingError: it has other labels, the images cannot be had as it takes them, or OpenVINO cannot run it.
    """
    metadata = artifact.validate(before)
    if set(metadata.labels) != set(evaluation.labels):
        raise TrainingError(f"{before} has other labels ({', '.join(metadata.labels)}), so it does another task")
    split = split_for(metadata.input)
    if not np.array_equal(split.classes, evaluation.split.classes):
        raise TrainingError(f"{before} takes pictures of another size, in which not the same ones can be read")
    caveat = ""
    if metadata.dataset.get("sha256") != digest:
        caveat = "; it was trained on other data, which may have held some of these images"
    paired = Paired.count(_right_before(before, metadata, evaluation, split), evaluation.right)
    return Verdict(before, paired, evaluation.measured_on, caveat)


def _right_before(before: Path, metadata: Metadata, evaluation: Evaluation, split: Split) -> Right:
    """Return what version ``before`` gets right of ``split``, whose classes count in the order of the new labels."""
    new_class = np.array([evaluation.labels.index(label) for label in metadata.labels])
    try:
        answered = evaluate(openvino_predict(before), metadata.labels, split, evaluation.measured_on)
    except RuntimeError as error:  # OpenVINO's own
        raise TrainingError(f"{before} cannot be run by OpenVINO ({error})") from error
    hits: Right = new_class[answered.predicted] == split.classes
    return hits
