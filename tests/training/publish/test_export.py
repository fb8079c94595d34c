"""What is exported answers as the network does, and a difference is found."""

from pathlib import Path

import keras
import numpy as np
import pytest
import tensorflow as tf

from artifact import Input
from artifact.layout import INT8_MODEL, SAVED_MODEL
from artifact.signature import signature_shapes
from tests.training.backbones import blots, pooled, published_network
from training.data.dataset import Dataset
from training.errors import TrainingError
from training.evaluation.calibration import Correction
from training.evaluation.embedding_score import fit_distances, fit_score
from training.evaluation.familiarity import score_of
from training.evaluation.inference import openvino_answer, openvino_predict, openvino_score
from training.evaluation.sigmoids import Sigmoids
from training.network.model import build, fit_to_pixels
from training.publish import export
from training.publish.quantization import quantize

pytestmark = pytest.mark.keras

PICTURE = Input(height=32, width=32)
CORRECTION = Correction(0.5, 0.2)


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> tuple[keras.Model, Path]:
    """Return an untrained network and the SavedModel made of it."""
    model = build((32, 32, 3), 3, (8, 16), seed=0)
    fit_to_pixels(model, np.random.default_rng(0).integers(256, size=(50, 32, 32, 3), dtype=np.uint8))
    path = tmp_path_factory.mktemp("export") / "1"
    export.save(model, PICTURE, path, CORRECTION)
    return model, path


def test_a_saved_model_answers_as_the_network(saved: tuple[keras.Model, Path], small: Dataset) -> None:
    """TensorFlow and OpenVINO give the network's probabilities as corrected, and its familiarity as it was."""
    model, path = saved
    assert export.check(model, path, small.test.images, CORRECTION) < 1e-4
    logits = model(small.test.images.astype(np.float32), training=False).numpy()
    rows = openvino_predict(path)(small.test.images)
    np.testing.assert_allclose(rows, CORRECTION.probabilities(logits), atol=1e-5)
    np.testing.assert_allclose(openvino_score(path)(small.test.images), np.log(np.exp(logits).sum(axis=1)), atol=1e-5)


@pytest.mark.slow
def test_only_a_network_on_a_backbone_has_an_embedding(
    saved: tuple[keras.Model, Path], on_backbone: Path, small: Dataset
) -> None:
    """Its SavedModel gives the output of ``pool`` under TensorFlow and OpenVINO, and the project's own gives none."""
    assert set(openvino_answer(saved[1])(small.test.images)) == {"probabilities", "familiarity"}
    network, images = published_network(on_backbone), blots(5)
    expected = pooled(network, images)
    assert np.ptp(expected, axis=0).max() > 1, "all pictures look the same to it, so this test would prove nothing"
    np.testing.assert_allclose(openvino_answer(on_backbone)(images)["embedding"], expected, atol=1e-4)
    signature = tf.saved_model.load(str(on_backbone)).signatures["serving_default"]
    np.testing.assert_allclose(signature(images=tf.constant(images))["embedding"], expected, atol=1e-4)
    shapes = signature_shapes((on_backbone / SAVED_MODEL).read_bytes(), "serve_bytes")
    assert shapes is not None
    assert shapes[1]["embedding"] == (-1, expected.shape[1])


@pytest.mark.slow
def test_another_embedding_is_found_out(on_backbone: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A graph whose embedding is not the network's is not published, though its probabilities are."""
    network, images = published_network(on_backbone), blots(5)
    assert export.check(network, on_backbone, images) < 1e-4
    larger = keras.layers.Rescaling(1.01)(network.get_layer("pool").output)
    monkeypatch.setattr(export, "embedding_of", lambda _: larger)
    with pytest.raises(TrainingError, match="differs from the network by"):
        export.check(network, on_backbone, images)


@pytest.mark.slow
def test_the_score_of_an_embedding_is_in_the_graph(on_backbone: Path, tmp_path: Path) -> None:
    """TensorFlow and OpenVINO give it, and int8 leaves it in float; a graph with the energy alone is found out."""
    network, images = published_network(on_backbone), blots(120)
    embeddings = pooled(network, images).astype(np.float32)
    logits = network(images.astype(np.float32), training=False).numpy()
    distances = fit_distances(embeddings[:100], np.arange(100) % 3)
    score = fit_score(distances, distances.parts(embeddings[100:], logits[100:]))
    score.weights[0] = 0  # the logits of the int8 network are not told
    picture = Input(height=images.shape[1], width=images.shape[2])
    export.save(network, picture, tmp_path / "1", score=score)
    assert export.check(network, tmp_path / "1", images[:5], score=score) < 1e-3
    expected = score(embeddings, logits)
    np.testing.assert_allclose(openvino_score(tmp_path / "1")(images), expected, atol=0.02)
    int8 = quantize(tmp_path / "1", images[:60], tmp_path / "1" / INT8_MODEL)
    given = openvino_answer(int8)(images[:20])
    own = score(given["embedding"], logits[:20])
    np.testing.assert_allclose(given["familiarity"], own, atol=0.02 * float(np.ptp(own)))
    with pytest.raises(TrainingError, match="differs from the network by"):
        export.check(network, tmp_path / "1", images[:5])


@pytest.mark.parametrize("other", [Correction(), Correction(0.5, 0.0), Correction(0.7, 0.2)])
def test_another_correction_is_found_out(saved: tuple[keras.Model, Path], small: Dataset, other: Correction) -> None:
    """A graph that lacks the correction, or has another one, is not published."""
    model, path = saved
    with pytest.raises(TrainingError, match="differs from the network by"):
        export.check(model, path, small.test.images, other)


def test_familiarity_is_a_number_for_any_logits(saved: tuple[keras.Model, Path], tmp_path: Path) -> None:
    """Logits that have no exponential in float32 do not make it infinite."""
    images = keras.Input((4, 4, 3))
    large = keras.layers.Rescaling(100.0)(keras.layers.GlobalAveragePooling2D()(images))
    path = tmp_path / "1"
    export.save(keras.Model(images, large), Input(height=4, width=4), path)
    extremes = np.stack([np.full((4, 4, 3), value, np.uint8) for value in (0, 255)])
    scores = openvino_score(path)(extremes)
    assert np.isfinite(scores).all()
    assert scores[1] > scores[0]


def test_another_network_is_found_out(saved: tuple[keras.Model, Path], small: Dataset) -> None:
    """A SavedModel whose answers differ is not published, and the error says by how much."""
    other = build((32, 32, 3), 3, (8, 16), seed=1)
    fit_to_pixels(other, small.train.images)
    with pytest.raises(TrainingError, match="differs from the network by"):
        export.check(other, saved[1], small.test.images, CORRECTION)


def test_weights_are_saved_once_and_come_back(saved: tuple[keras.Model, Path]) -> None:
    """Every weight lies in the SavedModel a single time, in the order of the network's."""
    model, path = saved
    for expected, found in zip(model.get_weights(), export.read_weights(path), strict=True):
        np.testing.assert_array_equal(found, expected)
    floats = sum(weight.size for weight in model.get_weights())
    assert (path / "variables" / "variables.data-00000-of-00001").stat().st_size < 1.5 * 4 * floats


@pytest.mark.slow
def test_weights_below_an_embedding_are_saved_once(on_backbone: Path) -> None:
    """That the network has two outputs makes no second copy of what lies below both."""
    floats = published_network(on_backbone).count_params()
    assert (on_backbone / "variables" / "variables.data-00000-of-00001").stat().st_size < 1.5 * 4 * floats


def test_files_of_any_size_are_cut_to_the_centre(saved: tuple[keras.Model, Path], small: Dataset) -> None:
    """A wide picture's sides are cut off by the serve_bytes signature: what is there does not change the answer."""
    _, path = saved
    picture = small.test.images[0]
    left, right = np.zeros_like(picture), np.full_like(picture, 255)
    wide = np.concatenate([left, picture, right], axis=1)
    files = [tf.io.encode_png(image).numpy() for image in (picture, wide)]
    answers = tf.saved_model.load(str(path)).signatures["serve_bytes"](image_bytes=tf.constant(files))["probabilities"]
    np.testing.assert_allclose(answers[0], answers[1], atol=1e-6)


@pytest.mark.slow
@pytest.mark.parametrize("sigmoids", [Sigmoids(), Sigmoids((0.5, 2.0, 1.0), (0.0, -1.0, 3.0))])
def test_several_labels_have_sigmoids_in_the_graph(
    saved: tuple[keras.Model, Path], small: Dataset, tmp_path: Path, sigmoids: Sigmoids
) -> None:
    """Each label by itself, calibrated; the familiarity is their joint energy; both finite for any logits."""
    model, images = saved[0], small.test.images
    export.save(model, PICTURE, tmp_path / "1", sigmoids)
    assert export.check(model, tmp_path / "1", images, sigmoids) < 1e-4
    logits = model(images.astype(np.float32), training=False).numpy()
    outputs = openvino_answer(tmp_path / "1")(images)
    np.testing.assert_allclose(outputs["probabilities"], sigmoids.probabilities(logits), atol=1e-5)
    np.testing.assert_allclose(outputs["familiarity"], np.log1p(np.exp(logits)).sum(axis=1), atol=1e-4)
    assert score_of(np.array([[1e4, -1e4]], np.float32), multi_label=True).tolist() == [1e4]
    other = Sigmoids((1.0, 1.0, 1.0), (1.0, 1.0, 1.0))
    with pytest.raises(TrainingError, match="differs from the network"):
        export.check(model, tmp_path / "1", images, other)
