"""Pictures of a user's own on a pretrained network: a new head at once, then both tuned, with nothing from anywhere."""

import re
import shutil
import signal
import socket
from pathlib import Path
from typing import Any, NamedTuple

import keras
import numpy as np
import pytest

import artifact
from artifact import Metadata
from artifact.layout import EXTRA, INT8_MODEL, REFERENCE_EMBEDDING
from tests.peak import peak_of
from tests.photographs import photographs
from tests.training.conftest import Train, call
from tests.training.fit.test_defaults import data
from training import run as run_module
from training.commands import train
from training.errors import Interrupted, WorseVersion
from training.evaluation.improvement import Improvement
from training.evaluation.inference import openvino_answer
from training.fit import pretrained
from training.fit.checkpoints import RunFolder, RunState
from training.fit.choice import choose
from training.fit.precision import Pace
from training.fit.train import Job
from training.publish.version import Candidate, Published
from training.publish.version import publish as publish_version
from training.run import _with_backbone

pytestmark = pytest.mark.keras

QUICK = ("--backbone", "EfficientNetLite0", "--image-size", "64", "--precision", "float32")
LABELS = ("flower", "portrait", "temple")
NOWHERE = "http://127.0.0.1:9"


def write_photographs(folder: Path, temple: int, flower: int, portrait: int, *, side: int = 80) -> Path:
    """Write so many parts of three photographs, of 300 pixels and scaled to ``side``, and return the folder."""
    rng = np.random.default_rng(0)
    counts = {"temple": temple, "flower": flower, "portrait": portrait}
    for (label, count), photograph in zip(counts.items(), photographs(), strict=True):
        for number in range(count):
            left, top = int(rng.integers(photograph.width - 300)), int(rng.integers(photograph.height - 300))
            file = folder / label / f"{number}.jpg"
            file.parent.mkdir(parents=True, exist_ok=True)
            photograph.resize((side, side), box=(left, top, left + 300, top + 300)).save(file)
    return folder


@pytest.fixture(autouse=True)
def offline(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let every connection fail, so that whatever looks for the network is found out."""

    def refuse(_socket: socket.socket, address: object) -> None:
        raise AssertionError(f"something asks the network for {address}")

    monkeypatch.setattr(socket.socket, "connect", refuse)


class Trained(NamedTuple):
    """A training that is over: its exit code, what it printed, and its folders."""

    code: int
    printed: str
    errors: str
    models: Path
    run: Path
    pictures: Path

    def versions(self) -> list[int]:
        """Return the numbers of the versions that were published."""
        return artifact.versions(self.models, self.pictures.name)

    def version(self, number: int) -> tuple[Path, Metadata]:
        """Return a version's folder and its metadata, once it is validated."""
        path = artifact.version_path(self.models, self.pictures.name, number)
        return path, artifact.validate(path)


def trained(folder: Path, pictures: Path, *arguments: str) -> Trained:
    """Train on ``pictures`` into ``folder``."""
    models, run = folder / "models", folder / "run"
    places = ("--data", pictures, "--models", models, "--run", run)
    return Trained(*call([*QUICK, *places, *arguments]), models, run, pictures)


@pytest.fixture(scope="module")
def places(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder with pictures enough to tune by: 234 beside those of the test."""
    folder = tmp_path_factory.mktemp("places")
    write_photographs(folder / "places", 90, 90, 80)
    return folder


@pytest.fixture(scope="module")
def head(places: Path) -> Trained:
    """A training that ends with the head; not to be changed."""
    return trained(places, places / "places", "--minutes", "0")


@pytest.mark.slow
def test_a_head_is_published_with_all_that_a_version_has(head: Trained) -> None:
    """Calibration, threshold and int8 come from cross-validation, so that no picture is lost to a split for them."""
    assert head.code == 0, head.errors
    assert head.versions() == [1]
    path, metadata = head.version(1)
    assert metadata.labels == LABELS
    assert metadata.metrics.accuracy > 0.9
    assert (metadata.dataset["train"], metadata.dataset["validation"], metadata.dataset["test"]) == (234, 0, 26)
    assert metadata.calibration is not None
    assert metadata.familiarity is not None
    assert metadata.int8 is not None
    assert metadata.reference is not None
    for measured in (metadata.calibration, metadata.familiarity, metadata.int8, metadata.reference):
        assert (measured.measured_on, measured.images) == ("places, 5-fold cross-validation", 234)
    assert metadata.reference.labels.keys() == set(LABELS)
    assert len(np.fromfile(path / REFERENCE_EMBEDDING, np.float32)) == 2 * 1280
    assert metadata.int8.float32_accuracy - metadata.int8.accuracy < 0.02
    assert metadata.training["head"].startswith("logistic regression, C = ")
    assert (metadata.training["epochs"], metadata.training["validation_images"]) == (0, 0)
    images = np.random.default_rng(0).integers(256, size=(3, 64, 64, 3), dtype=np.uint8)
    for network in (path, path / INT8_MODEL):
        outputs = openvino_answer(network)(images)
        assert {name: output.shape for name, output in outputs.items()} == {
            "probabilities": (3, 3), "familiarity": (3,), "embedding": (3, 1280),
        }  # fmt: skip
    assert "Not tuned, since --minutes is 0." in head.printed
    assert "in 5-fold cross-validation" in head.printed
    assert re.search(r"make it better .* or more time: the same command with --minutes 8\n", head.printed)


@pytest.mark.slow
def test_a_head_gets_int8_afterwards_as_well(head: Trained, tmp_path: Path) -> None:
    """Quantised later, it is measured by the folds that it has in a training, since nothing was held out."""
    shutil.copytree(head.run, tmp_path / "run")
    without = trained(tmp_path, head.pictures, "--minutes", "0", "--no-int8")
    assert without.version(1)[1].int8 is None
    code, printed, errors = call(["quantize", without.version(1)[0], "--data", head.pictures])
    assert code == 0, errors
    path, metadata = without.version(2)
    assert f"Published {path}." in printed
    expected = head.version(1)[1].int8
    assert metadata.int8 is not None
    assert expected is not None
    assert (metadata.int8.measured_on, metadata.int8.images) == (expected.measured_on, expected.images)
    assert metadata.int8.float32_accuracy == pytest.approx(expected.float32_accuracy, abs=0.01)
    assert metadata.int8.accuracy == pytest.approx(expected.accuracy, abs=0.02)
    assert (path / INT8_MODEL).exists()


@pytest.mark.slow
def test_a_head_is_repeated_from_its_file_without_a_look_at_the_pictures(
    head: Trained, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The file that the version carries makes the same one, and from the same run folder computes no feature anew."""
    shutil.copytree(head.run, tmp_path / "run")
    monkeypatch.setattr(pretrained, "embedder", None)
    file = head.version(1)[0] / EXTRA / "config.toml"
    code, printed, errors = call(
        ["--config", file, "--models", tmp_path / "models", "--run", tmp_path / "run", "--no-int8"]
    )
    assert code == 0, errors
    again, first = artifact.validate(tmp_path / "models" / "places" / "1"), head.version(1)[1]
    assert again.training == first.training
    assert again.metrics == first.metrics
    assert (again.calibration, again.dataset) == (first.calibration, first.dataset)
    assert "Not tuned, since --minutes is 0." in printed
    text = file.read_text(encoding="utf-8")
    assert 'backbone = "EfficientNetLite0"' in text


@pytest.mark.slow
def test_tuning_goes_on_and_is_published_where_it_is_better(
    head: Trained, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Stopped after the first epoch, the same command finds the head among the versions and goes on from there.

    The tuned network is the next version. What was logged stays in the run folder, checkpoints do not.
    """
    shutil.copytree(head.run, tmp_path / "run")
    monkeypatch.setattr(pretrained, "embedder", None)
    monkeypatch.setattr(Improvement, "is_one", property(lambda _self: True))
    save = RunFolder.save

    def save_and_stop(folder: RunFolder, model: keras.Model, state: RunState) -> None:
        save(folder, model, state)
        raise Interrupted(signal.SIGTERM)

    arguments = ("--epochs", "2", "--learning-rate", "1e-5")
    with monkeypatch.context() as stopping:
        stopping.setattr(RunFolder, "save", save_and_stop)
        run = trained(tmp_path, head.pictures, *arguments)
    assert (run.code, run.versions()) == (128 + signal.SIGTERM, [1])
    assert "Tuning it from that head: " in run.printed
    assert re.search(r"Head: .*\nPublished .*/places/1; a running service answers", run.printed, re.DOTALL)
    run = trained(tmp_path, head.pictures, *arguments)
    assert run.code == 0, run.errors
    assert "after epoch 1 of 2" in run.printed
    assert "epoch 2/2" in run.printed
    assert run.versions() == [1, 2]
    _, metadata = run.version(2)
    assert (metadata.dataset["train"], metadata.dataset["validation"]) == (184, 50)
    assert metadata.training["epochs"] == 2
    assert metadata.calibration is not None
    assert metadata.calibration.measured_on == "places validation"
    assert metadata.int8 is None or metadata.int8.images == 50
    assert metadata.reference is not None  # of more pictures than the 26 of the test
    assert (metadata.reference.measured_on, metadata.reference.images) == ("places validation", 50)
    assert "Tuning has made it better: " in run.printed
    assert "places version 2, after " in run.printed
    assert list((run.run / "tensorboard").glob("*/events.*"))
    table = (run.run / "tensorboard" / "results.csv").read_text(encoding="utf-8").splitlines()
    assert len(table) == 2  # the first epoch was stopped before it was logged
    assert "val_loss" in table[0]
    assert not list(run.run.glob("epoch-*"))
    assert list(run.run.glob("features-EfficientNetLite0-64x64-*.npz"))


@pytest.mark.parametrize("preset", ["", 'preset = "from the data"\n'])
@pytest.mark.parametrize(("option", "expected"), [((), "VGG16"), (("--backbone", "none"), None), (QUICK[:2], QUICK[1])])
def test_a_backbone_on_the_command_line_wins_over_a_file(
    tmp_path: Path, preset: str, option: tuple[str, ...], expected: str | None
) -> None:
    """It takes the place of the one in the [recipe] of a file, also where it says that there is to be none."""
    (tmp_path / "run.toml").write_text(f'[recipe]\n{preset}backbone = "VGG16"\n')
    settings = _with_backbone(train.parse(["--config", str(tmp_path / "run.toml"), *option]))
    assert choose(settings.recipe, data([100, 100]), taught=False).backbone == expected


@pytest.mark.parametrize(
    ("asked", "pictures", "expected"),
    [("auto", 50_000, "measured"), ("auto", 100, "auto"), ("float32", 50_000, "float32")],
)
def test_long_trainings_measure_the_precision(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, asked: Any, pictures: int, expected: str
) -> None:
    """Where the precision is left open and much is to be trained, the faster one is found out; else nothing is run."""
    monkeypatch.setattr(run_module, "choose_precision", lambda *_: Pace("measured", 1.0))  # type: ignore[arg-type]
    dataset = data([pictures // 2, pictures // 2])
    job = Job(dataset, choose(train.parse([]).recipe, dataset, taught=False), RunFolder(tmp_path))
    assert run_module._precision(asked, job) == expected


def test_a_run_that_goes_on_keeps_its_precision(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """What was measured at its start holds to the end, whatever the machine is good at now."""
    dataset = data([25_000, 25_000])
    job = Job(dataset, choose(train.parse([]).recipe, dataset, taught=False), RunFolder(tmp_path))
    monkeypatch.setattr(RunFolder, "saved", lambda _: RunState({}, {"precision": "bfloat16"}))
    assert run_module._precision("auto", job) == "bfloat16"


@pytest.mark.slow
def test_a_head_that_is_worse_than_the_version_before_is_tuned(
    head: Trained, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The version before may be a tuned one. Where tuning does not help, nothing is published; where it does, that is.

    The checkpoint of the first is kept, so the second publishes what was tuned then.
    """
    shutil.copytree(head.run, tmp_path / "run")
    shutil.copytree(head.models, tmp_path / "models")
    monkeypatch.setattr(pretrained, "embedder", None)
    monkeypatch.setattr(run_module, "_learned_from_the_same", lambda _run: None)

    def publish(candidate: Candidate, *arguments: Any) -> Published:
        if "head" in candidate.record:
            raise WorseVersion("it has fewer right")
        return publish_version(candidate, *arguments)

    monkeypatch.setattr("training.run.publish", publish)
    for better in (False, True):
        with monkeypatch.context() as judged:
            judged.setattr(Improvement, "is_one", better)
            run = trained(tmp_path, head.pictures, "--epochs", "1", "--no-int8")
        told = "The head alone is not published, since it is worse than the version before: it has fewer"
        assert told in run.printed
        assert run.code == (0 if better else 3)
        assert run.versions() == ([1, 2] if better else [1])
        assert bool(list(run.run.glob("epoch-*"))) is not better


@pytest.mark.slow
def test_a_few_pictures_make_a_version_and_no_promises(tmp_path: Path) -> None:
    """Of 20 pictures nobody can tell a temperature or whether tuning helps, and this is said."""
    run = trained(tmp_path, write_photographs(tmp_path / "few", 10, 10, 0))
    assert run.code == 0, run.errors
    assert run.versions() == [1]
    _, metadata = run.version(1)
    assert metadata.labels == ("flower", "temple")
    assert (metadata.calibration, metadata.familiarity) == (None, None)
    assert (
        "Not calibrated, and no threshold for familiar pictures: 18 cross-validated images are too few" in run.printed
    )
    assert "Not tuned: with 4 images held out nobody could tell whether it is better; it takes 50" in run.printed
    assert metadata.int8 is None or metadata.int8.agreement_images == 18
    assert run.printed.count("make it better") == 1
    assert "or more time" not in run.printed


@pytest.mark.slow
def test_a_class_of_one_picture_is_learned(tmp_path: Path) -> None:
    """Its picture is trained on; the test has none of it, nor do the folds."""
    run = trained(tmp_path, write_photographs(tmp_path / "rare", 8, 1, 0), "--no-int8")
    assert run.code == 0, run.errors
    _, metadata = run.version(1)
    assert metadata.labels == ("flower", "temple")
    assert (metadata.dataset["train"], metadata.dataset["test"]) == (8, 1)
    assert metadata.int8 is None


def test_one_class_is_an_error_of_one_sentence(tmp_path: Path) -> None:
    """There is nothing to tell apart; nor can a picture be tested where each class has but one."""
    run = trained(tmp_path / "first", write_photographs(tmp_path / "one", 1, 0, 0))
    assert (run.code, run.errors.count("\n")) == (1, 1)
    assert run.errors.startswith("training: error: ")
    run = trained(tmp_path / "second", write_photographs(tmp_path / "singles", 1, 1, 0))
    assert run.code == 1
    assert "one picture in each class, so none is left for the test; put in more" in run.errors


@pytest.mark.slow
@pytest.mark.process
def test_a_machine_of_four_gigabytes_does(run_training: Train, tmp_path: Path) -> None:
    """300 pictures of 224x224 through head, publishing and int8 take less than 3 GB, in a process without a network."""
    pictures = write_photographs(tmp_path / "places", 100, 100, 100, side=224)
    done = run_training(
        *("--data", pictures, "--minutes", "0", "--backbone", "EfficientNetLite0", "--models", tmp_path / "models"),
        *("--run", tmp_path / "run"),
        peak=tmp_path / "peak",
        https_proxy=NOWHERE,
        http_proxy=NOWHERE,
    )
    assert done.returncode == 0, done.stderr
    peak, _ = peak_of(tmp_path / "peak")
    print(f"at most {peak / 1e9:.2f} GB")
    assert artifact.validate(tmp_path / "models" / "places" / "1").int8 is not None
    assert peak < 3e9
