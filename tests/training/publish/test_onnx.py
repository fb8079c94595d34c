"""What is converted to ONNX answers as the version does under ONNX Runtime, and a difference is found."""

import json
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest

import artifact
from tests.training.conftest import small_dataset
from training.data import synthetic
from training.errors import TrainingError
from training.evaluation.inference import openvino_answer
from training.publish import onnx as conversion

IMAGES = small_dataset().test.images

pytestmark = [pytest.mark.process, pytest.mark.slow]


@pytest.fixture(scope="module")
def version(smoke: tuple[Path, str]) -> Path:
    """Return the smoke version: a trained network whose label smoothing was undone, with a temperature."""
    return smoke[0]


@pytest.fixture(scope="module")
def file(version: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Convert the smoke version; not to be changed."""
    path = tmp_path_factory.mktemp("onnx") / "smoke.onnx"
    conversion.convert(version, artifact.validate(version), path)
    return path


@pytest.mark.keras
def test_the_file_answers_as_the_version(version: Path, file: Path) -> None:
    """On shapes and on noise, in batches of any size, all outputs are those of OpenVINO."""
    _, shapes, _ = synthetic.load(100, 1, seed=3)
    for images in (shapes.images, IMAGES, IMAGES[:1]):
        assert conversion.compare(conversion.answer(file), openvino_answer(version), images) < 1e-4


@pytest.mark.keras
def test_the_file_keeps_the_contract(version: Path, file: Path) -> None:
    """Input and outputs have their names, types and shapes, and labels and metadata go with them."""
    session = onnxruntime.InferenceSession(file, providers=["CPUExecutionProvider"])
    assert [(i.name, i.type, i.shape) for i in session.get_inputs()] == [("images", "tensor(uint8)", ["N", 32, 32, 3])]
    assert [(o.name, o.type, o.shape) for o in session.get_outputs()] == [
        ("probabilities", "tensor(float)", ["N", 3]),
        ("familiarity", "tensor(float)", ["N"]),
    ]
    properties = session.get_modelmeta().custom_metadata_map
    assert properties["labels"].split("\n") == ["disc", "square", "stripes"]
    assert json.loads(properties["metadata"])["input"]["resize"] == artifact.validate(version).input.resize
    onnx.checker.check_model(onnx.load(file), full_check=True)


@pytest.mark.keras
def test_another_network_is_found_out(version: Path, file: Path, tmp_path: Path) -> None:
    """A weight that was changed on the way is told by how far it moves the answers."""
    model = onnx.load(file)
    kernel = max(model.graph.initializer, key=lambda tensor: len(tensor.raw_data))
    kernel.raw_data = (np.frombuffer(kernel.raw_data, np.float32) * 1.1).tobytes()
    changed = tmp_path / "changed.onnx"
    onnx.save(model, changed)
    with pytest.raises(TrainingError, match=r"read by ONNX Runtime differs from the version by .*; it is not kept"):
        conversion.compare(conversion.answer(changed), openvino_answer(version), IMAGES)


@pytest.mark.keras
def test_an_output_that_is_missing_is_found_out(version: Path, file: Path, tmp_path: Path) -> None:
    """The file has to give all that the version gives."""
    model = onnx.load(file)
    del model.graph.output[1]
    changed = tmp_path / "changed.onnx"
    onnx.save(model, changed)
    with pytest.raises(TrainingError, match="the file gives probabilities, and the version "):
        conversion.compare(conversion.answer(changed), openvino_answer(version), IMAGES)


def test_what_cannot_be_converted_or_read_is_one_sentence(published: Path, tmp_path: Path) -> None:
    """tf2onnx's own last line, and ONNX Runtime's, stand in the message."""
    with pytest.raises(TrainingError, match=r"tf2onnx cannot convert .* \(.*does not exist"):
        conversion.convert(tmp_path, artifact.validate(published), tmp_path / "file.onnx")
    (tmp_path / "file.onnx").write_bytes(b"no network")
    with pytest.raises(TrainingError, match="ONNX Runtime cannot read what tf2onnx wrote"):
        conversion.answer(tmp_path / "file.onnx")
