"""Signatures are read from a SavedModel without TensorFlow."""

from pathlib import Path
from typing import Any

import pytest

from artifact.layout import SAVED_MODEL
from artifact.signature import Signature, Tensor, signature_shapes, signatures
from tests import models

BUNDLED = Path(__file__).parents[2] / "models" / "cifar10" / "5"


@pytest.mark.keras
def test_shapes_of_a_model_that_tensorflow_wrote(tmp_path: Path) -> None:
    """Both signatures of a real SavedModel have the shapes that the contract asks for."""
    content = (models.publish(tmp_path) / "saved_model.pb").read_bytes()
    assert signature_shapes(content, "serving_default") == (
        {"images": (-1, 32, 32, 3)},
        {"familiarity": (-1,), "probabilities": (-1, 3)},
    )
    assert signature_shapes(content, "serve_bytes") == (
        {"image_bytes": (-1,)},
        {"familiarity": (-1,), "probabilities": (-1, 3)},
    )
    assert signature_shapes(content, "absent") is None


@pytest.mark.keras
def test_signatures_are_those_that_tensorflow_reads() -> None:
    """TensorFlow's own reader finds the same in the same file."""
    from tensorflow.core.framework import types_pb2
    from tensorflow.core.protobuf import saved_model_pb2

    def tensors(infos: Any) -> dict[str, Tensor]:
        return {
            name: Tensor(
                info.name,
                types_pb2.DataType.Name(info.dtype),
                None if info.tensor_shape.unknown_rank else tuple(size.size for size in info.tensor_shape.dim),
            )
            for name, info in infos.items()
        }

    content = (BUNDLED / SAVED_MODEL).read_bytes()
    graph = saved_model_pb2.SavedModel.FromString(content).meta_graphs[0]
    assert signatures(content) == {
        name: Signature(tensors(found.inputs), tensors(found.outputs), found.method_name)
        for name, found in graph.signature_def.items()
    }


def test_signatures_of_the_bundled_model() -> None:
    """Names in the graph, types, shapes and kinds of all signatures are read."""
    assert signatures((BUNDLED / SAVED_MODEL).read_bytes()) == {
        "__saved_model_init_op": Signature({}, {"__saved_model_init_op": Tensor("NoOp", "DT_INVALID", None)}, ""),
        "serve_bytes": Signature(
            {"image_bytes": Tensor("serve_bytes_image_bytes:0", "DT_STRING", (-1,))},
            {
                "familiarity": Tensor("StatefulPartitionedCall:0", "DT_FLOAT", (-1,)),
                "probabilities": Tensor("StatefulPartitionedCall:1", "DT_FLOAT", (-1, 10)),
            },
            "tensorflow/serving/predict",
        ),
        "serving_default": Signature(
            {"images": Tensor("serving_default_images:0", "DT_UINT8", (-1, 32, 32, 3))},
            {
                "familiarity": Tensor("StatefulPartitionedCall_1:0", "DT_FLOAT", (-1,)),
                "probabilities": Tensor("StatefulPartitionedCall_1:1", "DT_FLOAT", (-1, 10)),
            },
            "tensorflow/serving/predict",
        ),
    }


def test_type_that_is_newer_than_this_reader() -> None:
    """A type whose number is not known here does not keep the signatures from being read."""
    info = b"\x10\x63"  # dtype(2) is 99
    definition = b"\x0a\x07\x0a\x01x\x12\x02" + info  # inputs(1) maps "x" to it
    graph = b"\x2a\x0e\x0a\x01s\x12\x09" + definition  # signature_def(5) maps "s" to that
    assert signatures(b"\x12\x10" + graph) == {"s": Signature({"x": Tensor("", "DT_INVALID", ())}, {}, "")}


def test_what_is_no_protocol_buffer_is_refused() -> None:
    """Other bytes raise ValueError."""
    with pytest.raises(ValueError, match="middle"):
        signatures(b"\x12\x10")
