"""What is converted to LiteRT in int8 answers nearly as the version does, and one that is much worse is found."""

import json
import zipfile
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from ai_edge_litert.interpreter import Interpreter

import artifact
from training.data import synthetic
from training.data.dataset import Split
from training.errors import AccuracyLost, TrainingError
from training.evaluation.inference import openvino_predict
from training.publish import litert
from training.publish.model_card import int8_accuracy

pytestmark = [pytest.mark.keras, pytest.mark.slow]


@pytest.fixture(scope="module")
def version(smoke: tuple[Path, str]) -> Path:
    """Return the smoke version."""
    return smoke[0]


@pytest.fixture(scope="module")
def shapes() -> tuple[Split, Split]:
    """Return pictures like those that the version was trained on, to take the ranges from and to classify."""
    _, training, test = synthetic.load(100, 200, seed=1)
    return training, test


@pytest.fixture(scope="module")
def file(version: Path, shapes: tuple[Split, Split], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Convert the smoke version; not to be changed."""
    path = tmp_path_factory.mktemp("litert") / "smoke.tflite"
    litert.convert(version, artifact.validate(version), shapes[0].images, path)
    return path


def test_the_file_classifies_as_the_version(version: Path, shapes: tuple[Split, Split], file: Path) -> None:
    """Both accuracies and the share of the same labels are told, beside the pictures that they were measured on."""
    labels = artifact.validate(version).labels
    found = litert.compare(litert.predict(file), openvino_predict(version), labels, shapes[1], "shapes")
    assert (found.int8.measured_on, found.int8.images) == ("shapes", 200)
    assert found.int8.float32_accuracy > 0.9
    assert found.int8.accuracy > found.int8.float32_accuracy - 0.02
    assert found.same_label > 0.97
    assert str(found) == f"accuracy in int8 {int8_accuracy(found.int8)}; the same label for {found.same_label:.2%}"


def test_the_file_takes_pixels_and_gives_probabilities_and_is_int8_inside(file: Path) -> None:
    """Its inputs and outputs are those of the version; of what is computed, only the pixels' scaling is not in int8."""
    interpreter = Interpreter(str(file))
    assert interpreter.get_signature_list() == {
        "serving_default": {"inputs": ["images"], "outputs": ["familiarity", "probabilities"]}
    }
    (images,) = interpreter.get_input_details()
    assert (images["dtype"], images["shape_signature"].tolist()) == (np.uint8, [-1, 32, 32, 3])
    outputs = {
        tuple(output["shape_signature"].tolist()): output["dtype"] for output in interpreter.get_output_details()
    }
    assert outputs == {(-1,): np.float32, (-1, 3): np.float32}
    kinds = Counter(tensor["dtype"] for tensor in interpreter.get_tensor_details())
    assert kinds[np.float32] <= 3, kinds  # pixels before they are quantised, and the two outputs
    assert kinds[np.int8] > 20


def test_labels_and_metadata_lie_in_the_file(version: Path, file: Path) -> None:
    """What is read as a network is read as a ZIP archive as well."""
    with zipfile.ZipFile(file) as archive:
        assert archive.read("labels.txt").decode() == "disc\nsquare\nstripes\n"
        assert tuple(json.loads(archive.read("metadata.json"))["labels"]) == artifact.validate(version).labels


def test_a_network_that_loses_too_much_is_found_out(version: Path, shapes: tuple[Split, Split], tmp_path: Path) -> None:
    """Ranges taken from black pictures ruin it; the error has both accuracies."""
    metadata = artifact.validate(version)
    black = np.zeros_like(shapes[0].images)
    litert.convert(version, metadata, black, tmp_path / "black.tflite")
    with pytest.raises(
        AccuracyLost, match=r"more than 2 points of accuracy: .* of 200 images \(shapes; 95%: .*\), where float32"
    ):
        litert.compare(
            litert.predict(tmp_path / "black.tflite"), openvino_predict(version), metadata.labels, shapes[1], "shapes"
        )


def test_one_that_ranks_labels_worse_is_found_out() -> None:
    """Of pictures with several labels: where int8 no longer tells one label, and its ranking is lost beyond noise."""
    rng = np.random.default_rng(0)
    has = rng.random((400, 2)) < 0.3
    images = np.zeros((400, 1, 1, 3), np.uint8)
    images[:, 0, 0, :2] = 200 * has + rng.integers(40, size=has.shape)
    split, thresholds = Split(images, has.astype(np.int64)), np.array([0.5, 0.99])  # of the second none is told

    def good(pictures: np.ndarray) -> np.ndarray:
        return (pictures[:, 0, 0, :2] / 255).astype(np.float32)

    def bad(pictures: np.ndarray) -> np.ndarray:
        return np.stack([good(pictures)[:, 0], 0.9 - good(pictures)[:, 1]], axis=1)

    found = litert.compare(good, good, ("a", "b"), split, "made up", thresholds)
    assert str(found).startswith("mean average precision in int8 1.0000, where float32 has 1.0000; all labels right")
    with pytest.raises(
        AccuracyLost, match=r"more than 0\.02 of mean average precision: mean average precision in int8"
    ):
        litert.compare(bad, good, ("a", "b"), split, "made up", thresholds)


def test_what_cannot_be_converted_or_read_is_one_sentence(version: Path, tmp_path: Path) -> None:
    """A folder without a network, and a file that is none, are errors with the reason."""
    images = np.zeros((1, 32, 32, 3), np.uint8)
    with pytest.raises(TrainingError, match=r"TensorFlow cannot quantise .* for LiteRT"):
        litert.convert(tmp_path, artifact.validate(version), images, tmp_path / "file.tflite")
    (tmp_path / "file.tflite").write_bytes(b"no network")
    with pytest.raises(TrainingError, match="LiteRT cannot read what TensorFlow wrote"):
        litert.predict(tmp_path / "file.tflite")
