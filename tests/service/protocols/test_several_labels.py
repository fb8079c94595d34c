"""A version that tells several labels of a picture is told by every protocol; one that tells one label is as it was."""

import io
import json
from base64 import b64encode
from pathlib import Path

import numpy as np
import pytest
from flask.testing import FlaskClient
from PIL import Image

from artifact import read_metadata
from service.app import create_app
from service.inference.loading import _fault
from tests.models import LABELS, SIDE, copy
from tests.service.conftest import MakeServices
from tests.service.pictures import plain

THRESHOLDS = (0.4, 0.4, 0.005)


def halves() -> bytes:
    """Return a PNG that is red on the left and green on the right: 0.495 of each, 0.009 of blue."""
    pixels = np.zeros((SIDE, SIDE, 3), np.uint8)
    pixels[:, : SIDE // 2, 0] = pixels[:, SIDE // 2 :, 1] = 255
    stream = io.BytesIO()
    Image.fromarray(pixels).save(stream, "PNG")
    return stream.getvalue()


@pytest.fixture
def several(services_of: MakeServices, published: Path, tmp_path: Path) -> FlaskClient:
    """A client of an application whose model tells each colour from its threshold on."""
    copy(published, tmp_path / "several", 1, thresholds=THRESHOLDS)
    return create_app(services_of(model_dir=tmp_path / "several", precision="float32")).test_client()


def told(labels: list[dict[str, object]]) -> list[object]:
    """Return the names of ``labels``."""
    return [each["label"] for each in labels]


def test_every_label_over_its_threshold_is_told(several: FlaskClient) -> None:
    """All of them whatever ``top`` says, by their probability, also one that is improbable; the rest is as ever."""
    answer = several.post("/predict?top=1", data=halves(), content_type="image/png").get_json()
    assert list(answer) == ["success", "predictions", "labels", "model"]
    assert len(answer["predictions"]) == 1
    assert set(told(answer["labels"])[:2]) == {"red", "green"}
    assert told(answer["labels"])[2:] == ["blue"]
    assert answer["labels"][0] == answer["predictions"][0]
    assert told(several.post("/predict", data=plain("lime"), content_type="image/png").get_json()["labels"]) == [
        "green"
    ]
    white = several.post("/predict", data=plain("white"), content_type="image/png").get_json()
    assert told(white["labels"]) == ["blue"], "a third of each"


def test_a_batch_tells_them_of_each_picture(several: FlaskClient) -> None:
    """One that is no picture has its error, and the others their labels."""
    pictures = [b64encode(each).decode() for each in (halves(), b"no picture", plain("blue"))]
    results = several.post("/predict/batch", json={"images": pictures}).get_json()["results"]
    assert [told(result["labels"]) if "labels" in result else result["error"] for result in results][1:] == [
        "unsupported_image", ["blue"],
    ]  # fmt: skip
    assert list(results[0]) == ["index", "filename", "predictions", "labels"]


def test_the_model_says_its_task_and_its_thresholds(several: FlaskClient, client: FlaskClient) -> None:
    """So that a client knows from where on a label is told; of one label there is nothing of it."""
    model = several.get("/model").get_json()
    assert model["task"] == "multi-label"
    assert model["thresholds"] == dict(zip(LABELS, THRESHOLDS, strict=True))
    assert not {"task", "thresholds", "multi_label"} & client.get("/model").get_json().keys()
    answer = client.post("/predict", data=halves(), content_type="image/png").get_json()
    assert list(answer) == ["success", "predictions", "model"]


def test_the_other_protocols_carry_all_probabilities(several: FlaskClient) -> None:
    """TensorFlow Serving's and Open Inference's clients get every label with its probability, in their own form."""
    picture = {"b64": b64encode(halves()).decode()}
    [row] = several.post("/v1/models/colours:predict", json={"instances": [picture]}).get_json()["predictions"]
    assert row == pytest.approx([0.4955, 0.4955, 0.0091], abs=1e-3)
    example = {"examples": [{"image_bytes": picture}]}
    [scores] = several.post("/v1/models/colours:classify", json=example).get_json()["results"]
    assert {label for label, _ in scores} == set(LABELS)
    tensor = {"name": "image_bytes", "datatype": "BYTES", "shape": [1], "data": [picture["b64"]]}
    [output] = several.post("/v2/models/colours/infer", json={"inputs": [tensor]}).get_json()["outputs"]
    assert output["data"] == pytest.approx(row)


def test_the_description_says_so(several: FlaskClient) -> None:
    """The schemas have the labels, which no answer must have."""
    schemas = several.get("/openapi.json").get_json()["components"]["schemas"]
    for name in ("PredictAnswer", "Result"):
        assert "thresholds" in json.dumps(schemas[name]["properties"]["labels"])
        assert "labels" not in schemas[name]["required"]
    assert "thresholds" in schemas["ModelAnswer"]["properties"]


def test_what_is_counted_is_what_is_told(several: FlaskClient) -> None:
    """Each label of a picture counts for the metric of the classes."""
    before = _counted(several)
    several.post("/predict", data=halves(), content_type="image/png")
    after = _counted(several)
    assert {label for label in LABELS if after.get(label, 0) > before.get(label, 0)} == set(LABELS)


def _counted(client: FlaskClient) -> dict[str, float]:
    lines = client.get("/metrics").get_data(as_text=True).splitlines()
    found = [line for line in lines if line.startswith("darkroom_predictions_total{")]
    return {line.partition('label="')[2].partition('"')[0]: float(line.rpartition(" ")[2]) for line in found}


@pytest.mark.parametrize(
    ("row", "right"), [((0.9, 0.9, 0.1), True), ((0, 0, 0), True), ((0.9, 1.5, 0), False), ((np.nan, 0, 0), False)]
)
def test_only_probabilities_are_served(published: Path, tmp_path: Path, row: tuple[float, ...], right: bool) -> None:
    """Those of several labels need not add up to 1, but lie between 0 and 1."""
    metadata = read_metadata(copy(published, tmp_path / "models", 1, thresholds=THRESHOLDS))
    assert (_fault(np.array([row], np.float32), metadata) == "") is right
