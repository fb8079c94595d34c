"""Pictures with several labels, from their table to what a service answers, with nothing from anywhere."""

import io
import json
import shutil
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest
from prometheus_client import CollectorRegistry

import artifact
from artifact.layout import EXTRA, REPORT
from service.app import create_app, make_services
from service.observe.metrics import Metrics
from service.settings import Settings
from tests.several_labels import LABELS, drawing, write
from tests.shared import made_once
from tests.training.conftest import call
from training.evaluation.improvement import RankingImprovement
from training.evaluation.inference import openvino_predict
from training.publish import litert

pytestmark = pytest.mark.keras

QUICK = ("--backbone", "EfficientNetLite0", "--image-size", "64", "--precision", "float32")


class Trained(NamedTuple):
    """What a training of several labels printed, and where its table, its model and its run folder lie."""

    printed: str
    table: Path
    models: Path
    run: Path

    @property
    def version(self) -> Path:
        """The folder of the version."""
        return self.models / "shapes" / "1"


@pytest.fixture(scope="module")
def head(tmp_path_factory: pytest.TempPathFactory) -> Trained:
    """A training that ends with the head; not to be changed."""

    def train(folder: Path) -> None:
        table = write(folder / "shapes", 160)
        places = ("--labels", table, "--models", folder / "models", "--run", folder / "run")
        code, printed, errors = call([*QUICK, *places, "--minutes", "0"])
        assert code == 0, errors
        (folder / "printed").write_text(printed, encoding="utf-8")

    folder = made_once(tmp_path_factory, "several-labels", train)
    printed = (folder / "printed").read_text(encoding="utf-8")
    return Trained(printed, folder / "shapes" / "labels.csv", folder / "models", folder / "run")


@pytest.mark.slow
def test_a_table_becomes_a_version_with_all_that_one_has(head: Trained) -> None:
    """Task, thresholds, calibration, averages with intervals and a report; the shapes are told apart."""
    metadata = artifact.validate(head.version)
    assert metadata.labels == LABELS
    assert metadata.task == "multi-label"
    assert metadata.thresholds is not None
    assert metadata.thresholds.keys() == set(LABELS)
    assert metadata.multi_label is not None
    assert metadata.multi_label.mean_average_precision > 0.9
    low, high = metadata.multi_label.intervals_95["micro_f1"]
    assert low <= metadata.multi_label.micro_f1 <= high
    assert "cross-validation" in metadata.multi_label.thresholds_chosen_on
    assert metadata.calibration is not None
    assert metadata.familiarity is not None
    assert metadata.training["head"].startswith("logistic regression of each label, C = ")
    assert metadata.metrics.per_class["disc"]["average_precision"] > 0.9
    report = (head.version / REPORT).read_text(encoding="utf-8")
    assert "Labels that stand together" in report
    assert "Pictures that are there more than once" in report, "what was told on the terminal stands in it"
    card = (head.version / EXTRA / "MODEL_CARD.md").read_text(encoding="utf-8")
    assert "| label | threshold | average precision |" in card
    assert "a mean average precision of" in head.printed


@pytest.mark.slow
def test_a_service_tells_every_label_over_its_threshold(head: Trained) -> None:
    """What was drawn is what is told, by the network that was published; none where nothing was drawn."""
    settings = Settings(model_dir=head.models, model_name="shapes", precision="float32")
    services = make_services(settings, Metrics(CollectorRegistry()), draining=lambda: False)
    services.models.refresh()
    client, rng = create_app(services).test_client(), np.random.default_rng(9)
    try:
        right = 0
        for drawn in [(), ("disc",), ("square",), ("disc", "stripes"), ("disc", "square", "stripes")] * 2:
            content = io.BytesIO()
            drawing(drawn, rng).save(content, "PNG")
            answer = client.post("/predict?top=1", data=content.getvalue(), content_type="image/png").get_json()
            assert len(answer["predictions"]) == 1, "the list by probability is as long as it was asked to be"
            told = [each["label"] for each in answer["labels"]]
            assert [each["probability"] for each in answer["labels"]] == sorted(
                (each["probability"] for each in answer["labels"]), reverse=True
            )
            right += set(told) == set(drawn)
        assert right >= 8
        model = client.get("/model").get_json()
        assert model["task"] == "multi-label"
        assert model["thresholds"].keys() == set(LABELS)
    finally:
        services.models.close()


@pytest.mark.slow
def test_int8_is_judged_by_the_folds_afterwards_as_well(head: Trained, tmp_path: Path) -> None:
    """Quantised later, all labels of a picture count in the folds; what a training does not keep is not kept then."""
    run, models = shutil.copytree(head.run, tmp_path / "run"), tmp_path / "models"
    places = ("--labels", head.table, "--models", models, "--run", run)
    code, _, errors = call([*QUICK, *places, "--minutes", "0", "--no-int8"])
    assert code == 0, errors
    code, _, errors = call(["quantize", models / "shapes" / "1", "--labels", head.table])
    lost = "int8 has all labels right of more than 0.2 points fewer pictures"
    assert f"Publishing without int8, since {lost}" in head.printed
    assert code == 1
    assert f"training: error: {lost}" in errors
    assert "of 144 images (shapes, 5-fold cross-validation" in errors
    assert artifact.versions(models, "shapes") == [1]


@pytest.mark.slow
def test_the_commands_know_it(head: Trained, tmp_path: Path) -> None:
    """It is evaluated, compared with itself, asked about files and shown, also beside another one."""
    code, printed, errors = call(["evaluate", head.version, "--labels", head.table, "--json"])
    assert code == 0, errors
    figures = json.loads(printed)
    metadata = artifact.read_metadata(head.version)
    assert metadata.multi_label is not None
    assert figures["mean_average_precision"] == pytest.approx(metadata.multi_label.mean_average_precision)
    assert figures["micro_f1_95"][0] <= figures["micro_f1"]
    code, printed, errors = call(["compare", head.version, head.version, "--labels", head.table])
    assert code == 0, errors
    assert "p = 1; no difference beyond noise" in printed
    code, printed, errors = call(["predict", head.version, head.table.parent / "0.png", "--json"])
    assert code == 0, errors
    thresholds = metadata.thresholds or {}
    told = json.loads(printed)["labels"]
    assert all(each["probability"] >= thresholds[each["label"]] for each in told)
    output = tmp_path / "report.html"
    code, printed, errors = call(["report", head.version, "--labels", head.table, "--output", output])
    assert code == 0, errors
    assert "Labels that stand together" in output.read_text(encoding="utf-8")
    beside: list[str | Path] = ["--compare", head.version, "--labels", head.table, "--output", tmp_path / "two.html"]
    code, printed, errors = call(["report", head.version, *beside])
    assert code == 0, errors
    page = (tmp_path / "two.html").read_text(encoding="utf-8")
    assert "They tell other labels of 0 pictures." in page
    assert "Average precision of each label" in page


@pytest.mark.slow
def test_a_phone_tells_several_labels_too(head: Trained, tmp_path: Path) -> None:
    """In int8 by LiteRT, read back and compared: it ranks as the version does, and has a sigmoid for each label."""
    output = tmp_path / "shapes.tflite"
    code, printed, errors = call(["export", head.version, "--to", "litert", "--labels", head.table, "--output", output])
    assert code == 0, errors
    assert "mean average precision in int8 " in printed
    assert "; all labels right " in printed
    images, rng = np.empty((40, 64, 64, 3), np.uint8), np.random.default_rng(5)
    drawn = [tuple(label for label in LABELS if rng.random() < 0.45) for _ in images]
    for image, labels in zip(images, drawn, strict=True):
        image[:] = np.asarray(drawing(labels, rng))
    probabilities = litert.predict(output)(images)
    metadata = artifact.read_metadata(head.version)
    told = probabilities >= np.array([(metadata.thresholds or {})[label] for label in LABELS])
    has = np.array([[label in labels for label in LABELS] for labels in drawn])
    assert (told == has).mean() > 0.9
    assert (np.abs(probabilities - openvino_predict(head.version)(images)) < 0.25).mean() > 0.9


@pytest.mark.slow
def test_a_version_teaches_several_labels(head: Trained, tmp_path: Path) -> None:
    """The project's own network learns the probabilities that the version gives, and says so in its metadata."""
    places = ("--labels", head.table, "--models", tmp_path / "models", "--run", tmp_path / "run")
    arguments = ("--preset", "smoke", "--image-size", "64", "--epochs", "2", "--precision", "float32")
    code, printed, errors = call([*places, *arguments, "--teacher", head.version])
    assert code == 0, errors
    assert "accuracy 0.0000" not in printed, "what is learned is neither 0 nor 1, and is still right or wrong"
    metadata = artifact.validate(tmp_path / "models" / "shapes" / "1")
    assert metadata.task == "multi-label"
    assert [teacher["name"] for teacher in metadata.training["teachers"]] == ["shapes"]


@pytest.mark.slow
def test_tuning_goes_on_from_the_head(head: Trained, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A few steps of the loss of all labels; the verdict is that of the ranking, and what is published is valid."""
    places = ("--labels", head.table, "--models", tmp_path / "models", "--run", tmp_path / "run")
    for better, told in ((False, "no better, so the version before stays: "), (True, "better: ")):
        monkeypatch.setattr(RankingImprovement, "is_one", better)
        code, printed, errors = call([*QUICK, *places, "--epochs", "1", "--validation-images", "50", "--no-int8"])
        assert code == 0, errors
        assert "mean average precision" in printed.partition(f"Tuning has made it {told}")[2]
        numbers = artifact.versions(tmp_path / "models", "shapes")
        assert f"shapes version {numbers[-1]}, after " in printed
        assert numbers == ([1, 2] if better else [1])
    for number in numbers:
        assert artifact.validate(artifact.version_path(tmp_path / "models", "shapes", number)).task == "multi-label"


@pytest.mark.slow
def test_the_projects_own_network_learns_several_labels_too(tmp_path: Path) -> None:
    """From random weights, by the same loss, with thresholds chosen on the pictures held out."""
    table = write(tmp_path / "shapes", 300, side=32, labels=LABELS[:2])
    places = ("--labels", table, "--models", tmp_path / "models", "--run", tmp_path / "run")
    arguments = ("--preset", "smoke", "--epochs", "12", "--validation-images", "60", "--precision", "float32")
    code, _, errors = call([*places, *arguments])
    assert code == 0, errors
    metadata = artifact.validate(tmp_path / "models" / "shapes" / "1")
    assert metadata.multi_label is not None
    assert metadata.multi_label.mean_average_precision > 0.75
    assert metadata.multi_label.thresholds_chosen_on == "shapes validation"
    assert metadata.training["label_smoothing"] == 0.0
