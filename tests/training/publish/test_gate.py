"""A version that is worse than the one before is not published, noise is not taken for worse, and nothing is lost."""

import json
import re
import shutil
from pathlib import Path

import numpy as np
import pytest

import artifact
from artifact import Input
from artifact.layout import METADATA
from tests.models import publish
from tests.training.conftest import Refused
from training.data import synthetic
from training.data.dataset import Split
from training.errors import TrainingError, WorseVersion
from training.evaluation.accuracy import Evaluation
from training.evaluation.inference import openvino_predict
from training.evaluation.multi_label import MultiLabelEvaluation
from training.evaluation.paired import Paired
from training.evaluation.tasks import AnyEvaluation
from training.publish.gate import Verdict, compare, pass_gate

pytestmark = pytest.mark.keras

DIGEST = "of other data"


@pytest.fixture
def models(smoke: tuple[Path, str], tmp_path: Path) -> Path:
    """Return a model folder of the test's own that holds a copy of the smoke version."""
    shutil.copytree(smoke[0], tmp_path / "models" / "smoke" / "1")
    return tmp_path / "models"


@pytest.fixture(scope="module")
def answered(smoke: tuple[Path, str]) -> Evaluation:
    """Return what the smoke version answers to 200 pictures."""
    labels, _, test = synthetic.load(1, 200, seed=5)
    return Evaluation(labels, "shapes test", test, openvino_predict(smoke[0])(test.images))


def with_mistakes(evaluation: Evaluation, count: int) -> Evaluation:
    """Return the answers of a version that gets ``count`` more pictures wrong."""
    right = np.flatnonzero(evaluation.right)[:count]
    probabilities = evaluation.probabilities.copy()
    probabilities[right] = np.roll(probabilities[right], 1, axis=1)
    return Evaluation(evaluation.labels, evaluation.measured_on, evaluation.split, probabilities)


def edit(version: Path, **changes: object) -> None:
    """Change the metadata of a version in place."""
    record = json.loads((version / METADATA).read_text())
    (version / METADATA).write_text(json.dumps({**record, **changes}))


def few(evaluation: Evaluation, count: int) -> Evaluation:
    """Return the answers to the first ``count`` pictures only."""
    return Evaluation(
        evaluation.labels, evaluation.measured_on, evaluation.split[:count], evaluation.probabilities[:count]
    )


def hold(models: Path, evaluation: AnyEvaluation, *, publish_anyway: bool = False) -> None:
    """Hold ``evaluation`` against the latest version in ``models``, for which pictures of 32x32 can be had."""

    def split_for(picture: Input) -> Split:
        if picture.height != 32:
            raise TrainingError(f"there are no pictures of {picture.height} pixels")
        return evaluation.split

    pass_gate(models, "smoke", evaluation, DIGEST, split_for, publish_anyway=publish_anyway)


@pytest.mark.slow
def test_a_worse_training_is_not_published_and_not_lost(refused: Refused) -> None:
    """Exit code 3 and the last line say so with both accuracies, and the run's checkpoint stays."""
    assert refused.code == 3
    assert artifact.versions(refused.models, "smoke") == [1]
    assert [entry.name for entry in (refused.models / "smoke").iterdir()] == ["1"]
    assert (refused.run / "epoch-1").is_dir()
    before = artifact.validate(refused.models / "smoke" / "1").metrics.accuracy
    last = refused.errors.splitlines()[-1]
    assert last.startswith("training: not published: ")
    assert " of 500 images (made-up test; 95%: " in last
    assert f"), where {refused.models}/smoke/1 has {before:.2%} (95%: " in last
    assert "McNemar's exact test, one-sided: p = " in last
    assert "--publish-anyway" in last
    assert "Published" not in refused.printed


@pytest.mark.slow
def test_the_same_command_publishes_it_anyway_without_training(worse: tuple[Path, str]) -> None:
    """With --publish-anyway the run goes straight from its checkpoint to publishing, and says that it is worse."""
    version, printed = worse
    assert artifact.validate(version).metrics.accuracy < 0.9
    assert "after epoch 1 of 1" in printed
    assert "epoch 1/1" not in printed
    assert "Worse than the version before, and published anyway: " in printed
    assert re.search(rf"smoke version 2, after \S+ \S+: {re.escape(str(version))}", printed)


def test_noise_is_not_worse(models: Path, answered: Evaluation, capsys: pytest.CaptureFixture[str]) -> None:
    """Four mistakes more have a chance of 1 in 16 among equals and pass; five have 1 in 32 and do not."""
    hold(models, with_mistakes(answered, 4))
    printed = capsys.readouterr().out
    assert printed.startswith("No worse than the version before: ")
    assert "; 4 that it got right are wrong now, 0 the other way round" in printed
    assert "p = 0.062, not below 0.05" in printed
    with pytest.raises(WorseVersion, match=r"; 5 that it got right are wrong now, 0 .*p = 0.031, below 0.05"):
        hold(models, with_mistakes(answered, 5))


def test_too_few_pictures_are_not_called_no_worse(
    models: Path, answered: Evaluation, capsys: pytest.CaptureFixture[str]
) -> None:
    """One of nine more is wrong: what that may mean is said with the interval, and the version is published."""
    hold(models, with_mistakes(few(answered, 9), 1))
    printed = capsys.readouterr().out
    assert printed.startswith("Too few pictures to tell whether it is worse than the version before: ")
    assert " of 9 images (shapes test; 95%: " in printed
    assert "; the difference is between -39.5 and +21.3 points, at a confidence of 95%, and only more " in printed
    assert "o worse" not in printed
    hold(models, few(answered, 9))
    assert capsys.readouterr().out.startswith("Too few pictures to tell")


@pytest.mark.parametrize(
    ("paired", "expected"),
    [
        (Paired(both=6, only_first=2, only_second=1, neither=0), "too few"),
        (Paired(both=9, only_first=0, only_second=0, neither=0), "too few"),
        (Paired(both=4, only_first=5, only_second=0, neither=0), "worse"),  # which even nine can show
        (Paired(both=0, only_first=0, only_second=9, neither=0), "no worse"),
        (Paired(both=155, only_first=45, only_second=26, neither=11), "worse"),  # 237, 8 points, p = 0.016
        (Paired(both=50, only_first=0, only_second=0, neither=3), "too few"),
        (Paired(both=50, only_first=0, only_second=0, neither=4), "no worse"),
        (Paired(both=9_500, only_first=0, only_second=0, neither=500), "no worse"),
        (Paired(both=9_300, only_first=100, only_second=100, neither=500), "no worse"),
    ],
)
def test_there_are_three_verdicts(paired: Paired, expected: str) -> None:
    """Worse is what the test shows; no worse only what leaves no room for a loss of 5 points."""
    verdict = Verdict(Path("models/pets/1"), paired, "pets test", "")
    found = "worse" if verdict.worse else "too few" if verdict.too_few_to_tell else "no worse"
    assert found == expected


@pytest.mark.slow
def test_a_version_is_held_against_the_latest_one(models: Path, answered: Evaluation, worse: tuple[Path, str]) -> None:
    """What would be refused after the smoke version is published after one that is worse still."""
    shutil.copytree(worse[0], models / "smoke" / "2")
    hold(models, with_mistakes(answered, 20))


def test_the_first_version_has_nothing_to_pass(
    tmp_path: Path, answered: Evaluation, capsys: pytest.CaptureFixture[str]
) -> None:
    """Where there is no version yet, there is no comparison and no word of one."""
    hold(tmp_path, answered)
    assert capsys.readouterr().out == ""


def test_other_data_is_told(models: Path, answered: Evaluation) -> None:
    """A version that was trained on other data may have seen the test images, which the reader should know."""
    version = models / "smoke" / "1"
    caveat = "; it was trained on other data, which may have held some of these images"
    assert compare(version, answered, DIGEST, lambda _: answered.split).caveat == caveat
    digest = artifact.validate(version).dataset["sha256"]
    assert compare(version, answered, digest, lambda _: answered.split).caveat == ""


def test_labels_are_matched_by_their_names(models: Path, answered: Evaluation) -> None:
    """A version with the same labels in another order is compared by what it says, not by the place of it."""
    version = models / "smoke" / "1"
    first, *others = artifact.validate(version).labels
    edit(version, labels=[*others, first])  # it now says another label wherever it was right
    paired = compare(version, answered, DIGEST, lambda _: answered.split).paired
    assert isinstance(paired, Paired)
    assert (paired.both, paired.only_second) == (0, int(answered.right.sum()))


@pytest.mark.parametrize(
    ("fault", "reason"),
    [
        ("labels", "has other labels (a, b, c), so it does another task"),
        ("damaged", "differs from its sha256"),
        ("size", "there are no pictures of 48 pixels"),
    ],
)
def test_what_cannot_be_compared_is_published(
    models: Path, answered: Evaluation, fault: str, reason: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """Another task, a damaged version and one of another size are no reason not to publish, and are told."""
    version = models / "smoke" / "1"
    if fault == "labels":
        edit(version, labels=["a", "b", "c"], reference=None)
    elif fault == "damaged":
        (version / "saved_model.pb").write_bytes((version / "saved_model.pb").read_bytes()[:-1] + b"\0")
    else:
        publish(models, "smoke", answered.labels, side=48)
    hold(models, with_mistakes(answered, 100))
    printed = capsys.readouterr().out
    assert printed.startswith("Publishing without a comparison with the version before: ")
    assert reason in printed


def test_a_version_of_another_size_gets_the_pictures_in_its_size(models: Path, answered: Evaluation) -> None:
    """Each version classifies the same pictures in the size that it takes; where they are not the same, it is told."""
    older = publish(models, "smoke", answered.labels, side=48)

    def larger(picture: Input) -> Split:
        assert (picture.height, picture.width) == (48, 48)
        return Split(np.pad(answered.split.images, ((0, 0), (8, 8), (8, 8), (0, 0))), answered.split.classes)

    assert compare(older, answered, DIGEST, larger).paired.images == 200
    with pytest.raises(TrainingError, match="not all of the same ones can be read"):
        compare(older, answered, DIGEST, lambda picture: Split(larger(picture).images[1:], answered.split.classes[1:]))


def test_several_labels_are_held_against_their_ranking(
    models: Path, answered: Evaluation, capsys: pytest.CaptureFixture[str]
) -> None:
    """The same answers are no worse; answers of chance are, beyond noise; one label of a picture is another task."""
    labels = answered.labels
    edit(models / "smoke" / "1", task="multi-label", thresholds=dict.fromkeys(labels, 0.5))
    hold(models, answered)
    assert "different tasks" in capsys.readouterr().out
    split = Split(answered.split.images, np.eye(len(labels), dtype=np.int64)[answered.split.classes])
    thresholds = np.full(len(labels), 0.5)
    same = MultiLabelEvaluation(labels, "shapes test", split, answered.probabilities, thresholds)
    hold(models, same)
    told = capsys.readouterr().out
    assert "No worse than the version before: mean average precision" in told
    assert "paired bootstrap, one-sided: p = 1" in told
    chance = np.random.default_rng(0).random(answered.probabilities.shape).astype(np.float32)
    with pytest.raises(WorseVersion, match=r"mean average precision 0\..* below 0\.05"):
        hold(models, MultiLabelEvaluation(labels, "shapes test", split, chance, thresholds))
