"""``import`` publishes a pretrained network with ImageNet's labels, which then serves photographs."""

from pathlib import Path

import numpy as np
import pytest
from prometheus_client import CollectorRegistry

import artifact
from artifact.layout import INT8_MODEL, MODEL_CARD
from service.app import create_app, make_services
from service.observe.metrics import Metrics
from service.settings import Settings
from tests.photographs import paths, photographs
from tests.training.conftest import call
from training.cli import main
from training.data.dataset import Pixels
from training.network.imagenet import labels
from training.publish import pretrained

pytestmark = pytest.mark.keras

NAME = "EfficientNetLite0"


@pytest.fixture(scope="module")
def pieces(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder with 120 pictures cut out of photographs, and a file that is none."""
    folder = tmp_path_factory.mktemp("photographs")
    rng = np.random.default_rng(0)
    for number in range(120):
        photograph = photographs()[number % 3]
        side = int(rng.integers(150, 400))
        left, top = (int(rng.integers(length - side + 1)) for length in photograph.size)
        photograph.crop((left, top, left + side, top + side)).save(folder / f"{number}.jpg")
    (folder / "damaged.jpg").write_bytes(b"damaged")
    return folder


@pytest.fixture(scope="module")
def imported(pieces: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a model folder with an imported version that has an int8 network as well."""
    models = tmp_path_factory.mktemp("imported")
    code, printed, errors = call(["import", NAME, "--models", models, "--int8", "--data", pieces])
    assert (code, errors) == (0, "")
    assert f"Without {pieces / 'damaged.jpg'}: it is not a picture" in printed
    assert printed.endswith(f"Published {models / 'imagenet' / '1'}.\n")
    return models


@pytest.mark.slow
def test_a_version_says_what_is_known_of_it_and_no_more(imported: Path) -> None:
    """It has all labels, the accuracy that its makers state and int8's agreement, but nothing that nobody measured."""
    version = imported / "imagenet" / "1"
    metadata = artifact.validate(version)
    assert metadata.labels == labels()
    assert metadata.metrics == artifact.Metrics("ImageNet validation, as published", 50_000, 0.751)
    assert metadata.training["backbone"] == NAME
    assert (metadata.calibration, metadata.familiarity) == (None, None)
    assert metadata.int8 is not None
    assert (metadata.int8.images, metadata.int8.calibration_images, metadata.int8.float32_accuracy) == (60, 60, 1.0)
    # Most of the cuttings show nothing that has a label, and a processor without VNNI rounds further.
    assert metadata.int8.accuracy > 0.6
    card = (version / MODEL_CARD).read_text(encoding="utf-8")
    assert "| accuracy | 75.10% of 50,000 images (ImageNet validation, as published)" in card
    assert "published as others trained it" in card
    assert "expected calibration error" not in card
    assert "By class" not in card


@pytest.mark.slow
@pytest.mark.parametrize("precision", ["float32", "int8"])
def test_a_service_answers_with_what_is_in_a_photograph(imported: Path, precision: str) -> None:
    """Without any training the service says that a palace is one, and that a dahlia looks like a daisy."""
    services = make_services(
        Settings(model_dir=imported, precision=precision), Metrics(CollectorRegistry()), draining=lambda: False
    )
    services.models.refresh()
    client = create_app(services).test_client()
    china, flower, _ = paths()
    for path, label in ((china, "palace"), (flower, "daisy")):
        answer = client.post("/predict", data=path.read_bytes(), content_type="image/jpeg").get_json()
        assert answer["predictions"][0]["label"] == label, answer
    described = client.get("/model").get_json()
    assert described["metrics"]["accuracy"] == 0.751
    assert described["engine"]["precision"] == precision
    services.models.close()


@pytest.mark.slow
def test_an_int8_network_that_answers_otherwise_is_not_published(
    pieces: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where int8 agrees with float32 on too few photographs, the command says on how many, and nothing is left."""

    def predict(network: Path) -> object:
        first = int(network.name == Path(INT8_MODEL).name)
        return lambda images: np.eye(2)[[first] * len(images)]

    def quantize(_version: Path, images: Pixels, _target: Path) -> None:
        assert images.shape == (60, 224, 224, 3)

    monkeypatch.setattr(pretrained, "quantize", quantize)
    monkeypatch.setattr(pretrained, "openvino_predict", predict)
    code, _, errors = call(["import", NAME, "--models", tmp_path / "m", "--int8", "--data", pieces])
    assert code == 1
    assert "int8 agrees with float32 too seldom: 0.00% of 60 images" in errors
    assert not list((tmp_path / "m").iterdir())


def test_too_few_photographs(tmp_path: Path) -> None:
    """A folder with hardly any photographs gives no ranges, which is told before anything is built."""
    code, _, errors = call(["import", NAME, "--models", tmp_path, "--int8", "--data", paths()[0].parent])
    assert code == 1
    assert "has 2 photographs, and int8 takes at least 100" in errors


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["EfficientNetLite9"], "invalid choice: 'EfficientNetLite9' (choose from "),
        ([NAME, "--int8"], "--int8 and --data go together"),
        ([NAME, "--data", "photographs"], "--int8 and --data go together"),
        ([NAME, "--name", "../x"], "must consist of letters"),
    ],
)
def test_wrong_usage(arguments: list[str], message: str, capsys: pytest.CaptureFixture[str]) -> None:
    """What does not fit together is told in one line."""
    with pytest.raises(SystemExit) as exit_:
        main(["import", *arguments])
    assert exit_.value.code == 2
    assert message in capsys.readouterr().err.splitlines()[-1]
