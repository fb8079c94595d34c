"""Engines: what runs a model version on uint8 images. OpenVINO by default, TensorFlow as the other."""

import importlib
import sys
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

Images = npt.NDArray[np.uint8]  # [N, H, W, 3]
Probabilities = npt.NDArray[np.float32]  # [N, classes]

MAX_BATCH = 32  # one image more costs as much as the last one from here on, and longer batches make others wait


class Engine(Protocol):
    """A loaded model. Only one thread calls it."""

    name: str
    precision: str

    def predict(self, images: Images) -> Probabilities:
        """Return the probabilities, float32 [N, classes], of ``images``, uint8 [N, H, W, 3]."""


class OpenVinoEngine:
    """Runs the SavedModel's ``serving_default`` signature with OpenVINO on the CPU."""

    name = "openvino"

    def __init__(self, path: Path, precision: str, threads: int) -> None:
        """Read and compile the SavedModel in folder ``path`` for ``threads`` cores.

        ``precision`` (auto, float32 or bfloat16) is a wish; the attribute says what the CPU is really used with.
        """
        openvino = _import_openvino()
        core = openvino.Core()
        if precision == "auto":
            precision = "bfloat16" if "BF16" in core.get_property("CPU", "OPTIMIZATION_CAPABILITIES") else "float32"
        compiled = core.compile_model(
            core.read_model(path),
            "CPU",
            {
                "PERFORMANCE_HINT": "LATENCY",
                "NUM_STREAMS": "1",
                "INFERENCE_NUM_THREADS": str(threads),
                "INFERENCE_PRECISION_HINT": {"float32": "f32", "bfloat16": "bf16"}[precision],
                "ENABLE_CPU_PINNING": "NO",  # several workers would pin themselves to the same cores
            },
        )
        used = compiled.get_property("INFERENCE_PRECISION_HINT")
        self.precision = "bfloat16" if used == openvino.Type.bf16 else "float32"
        self._input = compiled.input("images")
        self._output = compiled.output("probabilities")
        self._request = compiled.create_infer_request()

    def predict(self, images: Images) -> Probabilities:
        """Return the probabilities, float32 [N, classes], of ``images``, uint8 [N, H, W, 3]."""
        self._request.infer({self._input: images}, share_inputs=True)
        return np.array(self._request.get_tensor(self._output).data, dtype=np.float32)  # the tensor is used again


class TensorFlowEngine:
    """Runs the SavedModel's ``serving_default`` signature with TensorFlow; the reference for the other engine."""

    name = "tensorflow"
    precision = "float32"

    def __init__(self, path: Path) -> None:
        """Load the SavedModel in folder ``path``. TensorFlow is imported here: it takes seconds and much memory."""
        import tensorflow as tf

        self._tf = tf
        self._model = tf.saved_model.load(str(path))  # kept: it owns the variables that the signature reads
        self._signature = self._model.signatures["serving_default"]

    def predict(self, images: Images) -> Probabilities:
        """Return the probabilities, float32 [N, classes], of ``images``, uint8 [N, H, W, 3]."""
        answer = self._signature(images=self._tf.constant(images))
        return np.asarray(answer["probabilities"], dtype=np.float32)


def load(name: str, path: Path, precision: str, threads: int) -> Engine:
    """Return engine ``name`` (openvino or tensorflow) with the SavedModel in folder ``path``.

    ``precision`` and ``threads`` are for OpenVINO; TensorFlow computes in float32 and takes all cores.
    """
    if name == "tensorflow":
        return TensorFlowEngine(path)
    return OpenVinoEngine(path, precision, threads)


def _import_openvino() -> Any:
    """Import OpenVINO without the package that reports its use to its maker, whether or not that is installed."""
    # An entry of None makes the import fail, and OpenVINO then does without.
    sys.modules.setdefault("openvino_telemetry", None)  # type: ignore[arg-type]
    return importlib.import_module("openvino")
