"""Quantising publishes what it costs, and nothing where it costs too much."""

import dataclasses
import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import keras
import numpy as np
import openvino
import pytest

import artifact
from artifact import Input
from artifact.layout import INT8_MODEL, METADATA, MODEL_CARD, REPORT
from tests.training.backbones import blots, pooled, share_nearest_to_their_own, small_on_backbone
from tests.training.conftest import SMOKE, call
from training.cli import main
from training.data import synthetic
from training.data.dataset import Dataset, Split, hold_out
from training.errors import AccuracyLost
from training.evaluation.inference import openvino_answer, openvino_predict, openvino_score
from training.evaluation.paired import Paired
from training.fit.head import cross_validate
from training.publish import export, quantization
from training.publish.model_card import int8_accuracy

pytestmark = pytest.mark.keras


@pytest.fixture
def version(smoke: tuple[Path, str], tmp_path: Path) -> Path:
    """Return a copy of the smoke version, in a model folder of the test's own."""
    return shutil.copytree(smoke[0], tmp_path / "models" / "smoke" / "1")


@pytest.fixture
def shapes() -> Dataset:
    """Return pictures like those that the smoke version was trained on, 100 of them for validation."""
    labels, training, test = synthetic.load(300, 10, seed=1)
    return hold_out("shapes", labels, training, test, validation_images=100)


def edit(version: Path, **changes: Any) -> None:
    """Change parts of a version's metadata in place."""
    record = json.loads((version / METADATA).read_text())
    for name, change in changes.items():
        record[name].update(change)
    (version / METADATA).write_text(json.dumps(record))


@pytest.mark.slow
def test_the_next_version_carries_int8_as_well(version: Path, tmp_path: Path) -> None:
    """Quantising leaves the version alone and publishes one with its files, its metadata and the int8 network."""
    before = artifact.validate(version)
    code, printed, errors = call(["quantize", version])
    assert code == 0, errors
    assert artifact.validate(version) == before
    quantized = version.with_name("2")
    after = artifact.validate(quantized)
    int8 = after.int8
    assert int8 is not None
    assert (int8.measured_on, int8.images, int8.calibration_images) == ("made-up validation", 200, 1000)
    assert int8.float32_accuracy - int8.accuracy <= 0.002
    assert after.libraries["nncf"]
    same = dataclasses.replace(
        after, version=1, int8=None, created=before.created, files=before.files, libraries=before.libraries
    )
    assert same == before
    assert {name for name, sha in before.files.items() if after.files[name] != sha} == {MODEL_CARD, REPORT}
    report = (quantized / REPORT).read_text(encoding="utf-8")
    assert f"{int8.accuracy:.2%} of 200 images" in report
    assert "<img " in report
    assert f"| accuracy in int8 | {int8.accuracy:.2%} of 200 images" in (quantized / MODEL_CARD).read_text()
    assert printed == f"accuracy in int8 {int8_accuracy(int8)}\nPublished {quantized}.\n"
    code, printed, errors = call(["quantize", quantized])
    assert (code, printed) == (1, "")
    assert errors == f"training: error: {quantized} carries an int8 network already\n"


@pytest.mark.slow
@pytest.mark.parametrize("held_out", [1, 8])
def test_a_few_pictures_do_not_decide(
    version: Path, shapes: Dataset, held_out: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Below fifty held-out pictures int8 has to answer as float32 does, and what it loses of these does not count."""
    monkeypatch.setattr(quantization, "loses_too_much", lambda _paired: True)
    int8 = quantization.add_int8(version, shapes, held_out_images=held_out)
    assert int8.images == held_out
    assert int8.agreement_images == len(shapes.train) + held_out
    assert int8.agreement is not None
    assert int8.agreement > 0.95
    assert (version / INT8_MODEL).exists()


@pytest.mark.slow
def test_a_broken_network_is_found_without_held_out_pictures(version: Path, shapes: Dataset) -> None:
    """One that gives other labels than float32 is not kept, however few pictures were held out."""
    black = Split(np.zeros_like(shapes.train.images), shapes.train.classes)
    with pytest.raises(AccuracyLost, match=r"int8 gives more than 5% of the images another label: .* of 40 images"):
        quantization.add_int8(version, dataclasses.replace(shapes, train=black), held_out_images=40)
    artifact.validate(version)
    assert not (version / INT8_MODEL).parent.exists()


@pytest.mark.parametrize(
    ("others", "images", "expected"),
    [(1, 8, False), (1, 10, False), (2, 10, False), (3, 10, True), (7, 80, False), (8, 80, True), (66, 1000, True)],
)
def test_another_label_counts_where_it_is_beyond_noise(others: int, images: int, expected: bool) -> None:
    """Of a few pictures one that gets another label is more than 5%, and no sign of anything."""
    assert quantization.differs_too_often(others, images) is expected


@pytest.mark.slow
def test_the_int8_network_keeps_the_contract(version: Path, shapes: Dataset) -> None:
    """It takes uint8 ``images`` of any number, gives float32 outputs near the network's, and is quantised."""
    assert quantization.add_int8(version, shapes, held_out_images=50).images == 50
    network = openvino.Core().read_model(version / INT8_MODEL)
    (taken,) = network.inputs
    assert (taken.any_name, taken.element_type, str(taken.partial_shape)) == ("images", openvino.Type.u8, "[?,32,32,3]")
    assert {output.any_name: output.element_type for output in network.outputs} == {
        "probabilities": openvino.Type.f32,
        "familiarity": openvino.Type.f32,
    }
    quantized = {op.get_type_name() for op in network.get_ordered_ops()}
    assert {"FakeQuantize", "Convolution"} <= quantized
    operations = [op.get_type_name() for op in network.get_ordered_ops()]
    behind_the_head = operations[len(operations) - operations[::-1].index("MatMul") :]
    assert "Exp" in behind_the_head
    assert "FakeQuantize" not in behind_the_head, "the logits were rounded"
    answers = openvino_predict(version / INT8_MODEL)(shapes.validation.images)
    assert answers.shape == (100, 3)
    np.testing.assert_allclose(answers, openvino_predict(version)(shapes.validation.images), atol=0.1)
    # On average, since the network is trained here, with other weights on another kind of processor: its eight to
    # sixteen channels round a few pictures' scores further than others'.
    scores = openvino_score(version / INT8_MODEL)(shapes.validation.images)
    differences = np.abs(scores - openvino_score(version)(shapes.validation.images))
    assert differences.mean() < 0.05
    assert differences.max() < 0.3


@pytest.mark.slow
def test_the_embedding_comes_through(on_backbone: Path) -> None:
    """In int8 a network on a backbone gives its embedding as it is pooled, while the head works on it in int8."""
    network = openvino.Core().read_model(on_backbone / INT8_MODEL)
    source = network.output("embedding").get_node().input_value(0)
    while source.get_node().get_type_name() in ("Transpose", "Reshape"):
        source = source.get_node().input_value(0)
    assert source.get_node().get_type_name() == "ReduceMean", "the embedding was rounded"
    head = [op for op in network.get_ordered_ops() if op.get_type_name() == "MatMul"][-1]
    assert head.input_value(0).get_node().get_type_name() == "FakeQuantize"
    images = blots(20)
    found, expected = (openvino_answer(path)(images)["embedding"] for path in (on_backbone / INT8_MODEL, on_backbone))
    assert share_nearest_to_their_own(found, expected) > 0.8, "it is that of other pictures"
    assert found.dtype == np.float32


@pytest.fixture(scope="module")
def on_photographs(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, keras.Model, Split]:
    """Return a version on a backbone, its network, and 60 pictures in three classes that differ in colour."""
    model = small_on_backbone()
    images, classes = blots(60), np.arange(60) % 3
    images[np.arange(60), ..., classes] = images[np.arange(60), ..., classes] // 4 + 190
    path = tmp_path_factory.mktemp("version") / "1"
    export.save(model, Input(64, 64), path)
    return path, model, Split(images, classes)


@pytest.mark.slow
@pytest.mark.parametrize("count", [60, 30])
def test_int8_is_measured_by_the_folds(
    on_photographs: tuple[Path, keras.Model, Split], count: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Every picture is answered by the head that did not see it, once on float32 features and once on those of int8.

    Of fewer than fifty pictures it counts how often both give the same label.
    """
    path, model, split = on_photographs
    version, split = shutil.copytree(path, tmp_path / "1"), split[:count]
    features = pooled(model, split.images)
    folds = cross_validate(features, split.classes, 3)
    monkeypatch.setattr(quantization, "_fault", lambda *_: "")
    int8 = quantization.add_int8_by_folds(version, split, features, folds, "blots")
    assert (int8.measured_on, int8.images) == ("blots, 5-fold cross-validation", count)
    quantized = openvino_answer(version / INT8_MODEL)(split.images)["embedding"]
    before, after = (folds.logits(each).argmax(axis=1) for each in (features, quantized))
    right = split.classes[folds.rows]
    assert int8.float32_accuracy == (before == right).mean()
    assert int8.accuracy == pytest.approx((after == right).mean(), abs=2.1 / count)  # in other batches
    if count < 50:
        assert int8.agreement == pytest.approx((before == after).mean(), abs=2.1 / count)
        assert int8.agreement_images == count
    else:
        assert int8.agreement is None
    monkeypatch.setattr(quantization, "_fault", lambda *_: "is broken")
    with pytest.raises(AccuracyLost, match="int8 is broken"):
        quantization.add_int8_by_folds(version, split, features, folds, "blots")
    assert not (version / INT8_MODEL).exists()


@pytest.mark.slow
def test_only_some_of_many_pictures_are_asked(
    on_photographs: tuple[Path, keras.Model, Split], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of more than the most, evenly spread ones are answered, and only these count."""
    path, model, split = on_photographs
    version = shutil.copytree(path, tmp_path / "1")
    features = pooled(model, split.images)
    folds = cross_validate(features, split.classes, 3)
    monkeypatch.setattr(quantization, "_fault", lambda *_: "")
    monkeypatch.setattr(quantization, "_MOST_ASKED", 20)
    assert quantization.add_int8_by_folds(version, split, features, folds, "blots").images == 20


@pytest.mark.slow
def test_shortcuts_of_a_backbone_are_quantised(smoke: tuple[Path, str], on_photographs: tuple[Path, Any, Any]) -> None:
    """What adds the two ways around a block is in int8 there; in the project's own network all additions stay in float.

    So do, in both, what normalises and what comes after the logits.
    """
    core = openvino.Core()
    for path, shortcuts in ((smoke[0], False), (on_photographs[0], True)):
        network = core.read_model(path)
        left = set(quantization._left_in_float(network))
        additions = [op for op in network.get_ops() if op.get_type_name() == "Add"]
        of_maps = {op.get_friendly_name() for op in additions if len(op.get_output_partial_shape(0)) == 4}
        assert of_maps
        assert of_maps.isdisjoint(left) is shortcuts
        assert {op.get_friendly_name() for op in additions} - of_maps <= left
        assert {op.get_friendly_name() for op in network.get_ops() if op.get_type_name() == "Multiply"} <= left


@pytest.mark.slow
def test_a_network_that_loses_too_much_is_not_kept(version: Path, shapes: Dataset) -> None:
    """Ranges taken from black pictures ruin it; the error says how far, and nothing of it stays in the draft."""
    black = Split(np.zeros_like(shapes.train.images), shapes.train.classes)
    with pytest.raises(
        AccuracyLost, match=r"more than 0\.2 points of accuracy: .* of 100 images \(shapes validation; "
    ):
        quantization.add_int8(version, dataclasses.replace(shapes, train=black), held_out_images=100)
    artifact.validate(version)
    assert not (version / INT8_MODEL).parent.exists()


@pytest.mark.parametrize(
    ("lost", "gained", "images", "expected"),
    [
        (0, 2, 1000, False),
        (1, 0, 50, False),
        (4, 0, 50, False),
        (5, 0, 50, True),
        (6, 0, 1000, False),
        (7, 0, 1000, True),
        (24, 16, 1000, False),
        (40, 16, 1000, True),
    ],
)
def test_a_loss_counts_where_it_is_beyond_noise(lost: int, gained: int, images: int, expected: bool) -> None:
    """Few pictures do not tell, nor do some more that are lost than gained where many are both."""
    paired = Paired(images - lost - gained, lost, gained, 0)
    assert quantization.loses_too_much(paired) is expected


def test_more_may_be_lost_where_more_is_tolerated() -> None:
    """At two points instead of 0.2, of 1,000 pictures 29 are within noise."""
    assert not quantization.loses_too_much(Paired(971, 29, 0, 0), 0.02)
    assert quantization.loses_too_much(Paired(970, 30, 0, 0), 0.02)


@pytest.mark.slow
def test_what_loses_too_much_is_not_published(
    version: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    """``quantize`` then ends with exit code 1 and leaves no version."""
    monkeypatch.setattr(quantization, "loses_too_much", lambda _paired: True)
    assert main(["quantize", str(version)]) == 1
    assert "int8 loses more than" in capfd.readouterr().err.splitlines()[-1]
    assert artifact.versions(version.parent.parent, "smoke") == [1]


@pytest.mark.slow
def test_a_training_publishes_int8_where_it_is_good(tmp_path: Path) -> None:
    """With --int8 the version that a training ends in carries the int8 network."""
    places = ("--models", tmp_path / "m", "--run", tmp_path / "r")
    code, printed, errors = call([*SMOKE, "--epochs", "1", "--int8", *places])
    assert code == 0, errors
    metadata = artifact.validate(tmp_path / "m" / "smoke" / "1")
    assert metadata.int8 is not None
    assert "nncf" in metadata.libraries
    assert f"accuracy in int8 {metadata.int8.accuracy:.2%} of 200 images" in printed


@pytest.mark.slow
def test_a_training_is_published_without_int8_where_it_is_not(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    """A training is not lost over int8: it publishes the rest, and says so."""
    monkeypatch.setattr(quantization, "loses_too_much", lambda _paired: True)
    arguments = ["--models", str(tmp_path / "m"), "--run", str(tmp_path / "r"), "--precision", "float32", "--int8"]
    assert main(["--preset", "smoke", "--epochs", "1", *arguments]) == 0
    assert "Publishing without int8, since int8 loses more than" in capfd.readouterr().out
    assert artifact.validate(tmp_path / "m" / "smoke" / "1").int8 is None


@pytest.mark.slow
def test_without_held_out_images_there_is_no_int8(version: Path, tmp_path: Path) -> None:
    """Where every training image was trained on, both commands say so before they do anything."""
    edit(version, training={"validation_images": 0})
    folders = ("--models", tmp_path / "m", "--run", tmp_path / "r")
    train = (*SMOKE, "--int8", "--validation-images", "0", *folders)
    for arguments in (("quantize", version), train):
        code, printed, errors = call(arguments)
        assert (code, printed) == (1, "")
        assert "there are no held-out images to measure that on" in errors.splitlines()[-1]


def test_other_data_is_refused(version: Path) -> None:
    """Of other data nobody knows which images were held out, so they are no measure."""
    edit(version, dataset={"sha256": "0" * 64})
    code, printed, errors = call(["quantize", version])
    assert (code, printed) == (1, "")
    assert errors == f"training: error: {version} was trained on other data; give the same with --data\n"


def test_a_network_that_was_imported_needs_photographs_for_it(version: Path) -> None:
    """No data is on record that it was trained on, and the command that takes photographs is named."""
    record = json.loads((version / METADATA).read_text())
    record["dataset"] = {"name": "ImageNet"}
    (version / METADATA).write_text(json.dumps(record))
    code, printed, errors = call(["quantize", version])
    assert (code, printed) == (1, "")
    assert errors.startswith(f"training: error: {version} has no data on record")
    assert "darkroom import takes photographs for that, with --int8 and --data" in errors


@pytest.mark.process
@pytest.mark.slow
def test_nothing_is_reported(root: Path, tmp_path: Path) -> None:
    """NNCF does without the package that reports its use to its maker, also where that is installed."""
    (tmp_path / "openvino_telemetry.py").write_text("class Telemetry: pass\n")
    code = f"""
import sys
sys.path.insert(0, {str(tmp_path)!r})
import openvino_telemetry
from training.publish.quantization import libraries
assert libraries()["nncf"]
import nncf.telemetry.wrapper
assert not hasattr(nncf.telemetry.wrapper, "Telemetry"), "NNCF found it"
"""
    subprocess.run([sys.executable, "-c", code], cwd=root, check=True)


@pytest.mark.parametrize(
    ("pictures", "noise", "kept"), [(400, 0.0, True), (400, 0.02, True), (400, 1.0, False), (20, 1.0, False)]
)
def test_several_labels_are_kept_where_they_stay_right(tmp_path: Path, pictures: int, noise: float, kept: bool) -> None:
    """A little noise changes labels near their thresholds, in both directions; much of it loses what was right."""
    rng = np.random.default_rng(0)
    has = rng.random((pictures, 4)) < 0.3
    before = np.clip(0.2 + 0.6 * has + 0.1 * rng.normal(size=has.shape), 0, 1).astype(np.float32)
    after = (before + noise * rng.normal(size=has.shape)).astype(np.float32)
    network = tmp_path / "int8" / "model.xml"
    network.parent.mkdir()
    network.touch()
    arguments = ("drawn", before, after, has, np.full(4, 0.5), 10, network)
    if not kept:
        with pytest.raises(AccuracyLost, match=r"(all labels right of more than|tells more than 5% of the labels)"):
            quantization._of_labels(*arguments)
        assert not network.parent.exists()
        return
    int8 = quantization._of_labels(*arguments)
    assert network.exists()
    assert int8.agreement is not None
    assert int8.agreement > 0.9
    assert (int8.images, int8.agreement_images) == (pictures, pictures)
    assert "it tells the same labels as float32 of" in int8_accuracy(int8)
