"""Evidence: what each position adds to a logit adds up to it, follows the weights, and lies where it should."""

from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import openvino
import pytest
from openvino import opset13 as ops

from artifact.layout import INT8_MODEL
from service.inference.engine import OpenVinoEngine
from service.inference.evidence import EvidenceNetwork, can_explain, with_evidence
from tests.models import SIDE, publish_int8
from tests.photographs import photographs
from tests.service.running import ROOT

BUNDLED = ROOT / "models" / "cifar10" / "5"

Array = npt.NDArray[np.float32]

CLASSES, CHANNELS = 4, 6
BIAS = np.array([0.3, -0.2, 0.1, 0.5], np.float32)
TEMPERATURE = 1.7


def pictures(count: int, height: int, width: int) -> npt.NDArray[np.uint8]:
    """Return random uint8 [count, height, width, 3]."""
    return np.random.default_rng(0).integers(0, 256, (count, height, width, 3), np.uint8)


def convolved(images: Any, stride: int, side: int, *, pad: str, channels: int = CHANNELS) -> Any:
    """Return a convolution of NCHW ``images`` with random weights, and its activation."""
    inputs = images.get_output_partial_shape(0)[1].get_length()
    kernel = np.random.default_rng(1).normal(0, 0.3, (channels, inputs, side, side)).astype(np.float32)
    return ops.relu(ops.convolution(images, kernel, [stride] * 2, [0, 0], [0, 0], [1, 1], pad))


def network(pooling: str, last: str = "softmax", *, nchw: bool = True, pad: str = "same_upper") -> Any:
    """Return a small random network that ends in ``pooling`` ("mean" or "max"), a linear layer and a temperature."""
    images = ops.parameter([-1, 24, 16, 3], np.uint8, name="images")
    images.output(0).set_names({"images"})
    x = ops.transpose(ops.divide(ops.convert(images, "f32"), np.float32(255)), np.array([0, 3, 1, 2]))
    maps = convolved(convolved(x, 2, 3, pad=pad), 2, 3, pad=pad)  # [N, D, h, w]
    if not nchw:
        maps = ops.transpose(maps, np.array([0, 2, 3, 1]))
    reduce = ops.reduce_mean if pooling == "mean" else ops.reduce_max
    pooled = reduce(maps, np.array([2, 3] if nchw else [1, 2]), False)
    kernel = np.random.default_rng(2).normal(0, 1, (CLASSES, CHANNELS)).astype(np.float32)
    logits = ops.add(ops.matmul(pooled, kernel, False, True), BIAS[np.newaxis])
    scaled = ops.divide(logits, np.float32(TEMPERATURE))
    probabilities = ops.softmax(scaled, 1) if last == "softmax" else ops.sigmoid(scaled)
    probabilities.output(0).set_names({"probabilities"})
    familiarity = ops.reduce_sum(ops.exp(ops.clamp(logits, -80, 80)), np.array([1]), False)
    familiarity.output(0).set_names({"familiarity"})
    return openvino.Model([ops.result(probabilities), ops.result(familiarity)], [images])


def compiled(model: Any, precision: str = "f32") -> EvidenceNetwork:
    """Return what tells the evidence of ``model``."""
    explained, grid = with_evidence(model)
    options = {"INFERENCE_PRECISION_HINT": precision}
    return EvidenceNetwork(openvino.Core().compile_model(explained, "CPU", options), grid)


def softmax(logits: Array) -> Array:
    """Return the probabilities of logits [N, classes]."""
    powers = np.exp(logits - logits.max(axis=1, keepdims=True))
    return powers / powers.sum(axis=1, keepdims=True)  # type: ignore[no-any-return]


@pytest.mark.parametrize("nchw", [True, False])
@pytest.mark.parametrize("pooling", ["mean", "max"])
@pytest.mark.parametrize("last", ["softmax", "sigmoid"])
def test_the_evidence_adds_up_to_the_logit(pooling: str, last: str, nchw: bool) -> None:
    """Summed over the positions, with the constant of each label, it gives the probabilities that the network gives."""
    told = compiled(network(pooling, last, nchw=nchw)).run(pictures(5, 24, 16))
    assert told.evidence.shape == (5, 6, 4, CLASSES)
    logits = told.evidence.sum(axis=(1, 2)) + BIAS / TEMPERATURE
    expected = softmax(logits) if last == "softmax" else 1 / (1 + np.exp(-logits))
    np.testing.assert_allclose(told.probabilities, expected, atol=1e-5)
    assert np.ptp(told.probabilities, axis=0).max() > 0.001, "all pictures look the same to it"


def test_a_maximum_counts_where_it_is() -> None:
    """Of channels that are pooled by their maximum only the positions of these have any evidence."""
    told = compiled(network("max")).run(pictures(3, 24, 16))
    assert (np.count_nonzero(told.evidence[..., 0], axis=(1, 2)) <= CHANNELS).all()


def test_a_network_of_another_kind_cannot_be_explained() -> None:
    """Nothing is told of one that has a layer between the pooling and the linear one, or no pooling at all."""
    hidden, flat = (ops.parameter([-1, 8, 8, 3], np.float32, name="images") for _ in range(2))
    pooled = ops.relu(ops.reduce_mean(hidden, np.array([1, 2]), False))
    rows = ops.reshape(flat, np.array([-1, 192]), False)
    for images, features, inputs in ((hidden, pooled, 3), (flat, rows, 192)):
        images.output(0).set_names({"images"})
        probabilities = ops.softmax(ops.matmul(features, np.ones((inputs, 2), np.float32), False, False), 1)
        probabilities.output(0).set_names({"probabilities"})
        model = openvino.Model([ops.result(probabilities)], [images])
        assert not can_explain(model)
        with pytest.raises(ValueError, match="does not end in pooling and a linear layer"):
            with_evidence(model)


def test_maps_that_are_too_large_cannot_be_told() -> None:
    """A version whose answer to such a question would take all memory has none."""
    for side, classes, can in ((64, 100, True), (64, 5000, False), (200, 2, False)):
        images = ops.parameter([-1, side, side, 3], np.float32, name="images")
        images.output(0).set_names({"images"})
        pooled = ops.reduce_mean(images, np.array([1, 2]), False)
        probabilities = ops.softmax(ops.matmul(pooled, np.ones((3, classes), np.float32), False, False), 1)
        probabilities.output(0).set_names({"probabilities"})
        assert can_explain(openvino.Model([ops.result(probabilities)], [images])) is can


@pytest.mark.parametrize(
    ("pad", "expected"),
    [
        # Positions see 0 to 6, 4 to 10, ... of 16 and 24 pixels, whose middles are 3.5, 7.5, ...
        pytest.param("valid", (1.5, 1.5, 13.5, 21.5), id="pixels-left-out"),
        # Nothing before the first pixel, and one behind the last: middles at 1.5 + 1 = 2.5 + ... of whole cells of 4.
        pytest.param("same_upper", (1.5, 1.5, 17.5, 25.5), id="pixels-added"),
    ],
)
def test_the_grid_is_where_the_positions_look(pad: str, expected: tuple[float, ...]) -> None:
    """The middle of each cell is the middle of the pixels that a position sees, found by changing one at a time."""
    network_ = compiled(network("mean", pad=pad))
    assert tuple(network_.grid) == expected
    images = np.zeros((24, 24, 16, 3), np.uint8)
    images[np.arange(24), np.arange(24)] = 255  # a row of pixels in each
    evidence = network_.run(images).evidence[:, :, 1, 0]  # [24, h]
    blank = network_.run(np.zeros((1, 24, 16, 3), np.uint8)).evidence[0, :, 1, 0]
    seen = np.nonzero(np.abs(evidence - blank)[:, 2] > 1e-7)[0]
    cell = (network_.grid.bottom - network_.grid.top) / evidence.shape[1]
    assert network_.grid.top + 2.5 * cell == pytest.approx(seen.mean() + 0.5)


def test_a_colour_is_evidence_where_it_is(published: Path) -> None:
    """Of the colours each pixel counts by itself: a red square speaks for red there, and nowhere else."""
    image = np.zeros((1, SIDE, SIDE, 3), np.uint8)
    image[0, 4:10, 20:30] = (255, 0, 0)
    engine = OpenVinoEngine(published, "float32", threads=1)
    assert engine.explaining is not None
    told = engine.explaining().run(image)
    np.testing.assert_allclose(told.probabilities, engine.predict(image), atol=1e-6)
    expected = np.zeros((SIDE, SIDE), np.float32)
    expected[4:10, 20:30] = 8 / SIDE**2
    np.testing.assert_allclose(told.evidence[0, :, :, 0], expected, atol=1e-7)
    assert not told.evidence[..., 1:].any()


def test_int8_is_explained_by_the_network_that_answers(published: Path, tmp_path: Path) -> None:
    """Where the int8 network answers, the evidence is its own, and so are the probabilities."""
    engine = OpenVinoEngine(publish_int8(published, tmp_path), "int8", threads=1)
    assert engine.explaining is not None
    red = np.full((1, SIDE, SIDE, 3), (255, 0, 0), np.uint8)
    np.testing.assert_array_equal(engine.explaining().run(red).probabilities, engine.predict(red))


def crops(side: int, count: int) -> npt.NDArray[np.uint8]:
    """Return parts of real photographs, uint8 [count, side, side, 3]."""
    rng = np.random.default_rng(0)
    found = []
    for index in range(count):
        image = photographs()[index % 3]
        part = int(rng.integers(100, 300))
        left, top = int(rng.integers(image.width - part)), int(rng.integers(image.height - part))
        found.append(np.asarray(image.crop((left, top, left + part, top + part)).resize((side, side))))
    return np.stack(found)


@pytest.mark.skipif(not BUNDLED.is_dir(), reason="models/cifar10/5 is not there")
@pytest.mark.parametrize("floats", ["f32", "bf16"])
@pytest.mark.parametrize("network_file", ["", INT8_MODEL])
def test_the_bundled_version_is_explained(network_file: str, floats: str) -> None:
    """In whatever arithmetic, its evidence tells its labels apart as it does, on three by three cells of 8 pixels."""
    network_ = compiled(openvino.Core().read_model(BUNDLED / network_file), floats)
    told = network_.run(crops(32, 60))
    assert told.evidence.shape == (60, 3, 3, 10)
    assert (network_.grid.right - network_.grid.left) / 3 == 8
    logits = told.evidence.sum(axis=(1, 2))
    in_order = np.sort(told.probabilities, axis=1)
    clear = in_order[:, -1] > 2 * in_order[:, -2]
    assert clear.sum() > 20
    np.testing.assert_array_equal(logits.argmax(axis=1)[clear], told.probabilities.argmax(axis=1)[clear])
    assert np.abs(softmax(logits) - softmax(logits).mean(axis=0)).max() > 0.3, "all pictures look the same to it"


@pytest.mark.skipif(not BUNDLED.is_dir(), reason="models/cifar10/5 is not there")
@pytest.mark.parametrize("precision", ["float32", "bfloat16", "int8", "auto"])
def test_what_explains_answers_as_the_engine_does(precision: str) -> None:
    """In each precision the two networks give the same probabilities, but for what bfloat16 rounds."""
    engine = OpenVinoEngine(BUNDLED, precision, threads=1)
    assert engine.explaining is not None
    images = crops(32, 20)
    expected = engine.predict(images)[:, :10]
    tolerance = 1e-5 if precision == "float32" else 0.01
    np.testing.assert_allclose(engine.explaining().run(images).probabilities, expected, atol=tolerance)
