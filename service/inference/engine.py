"""Engines: what runs a model version on uint8 images. OpenVINO by default, TensorFlow as the other."""

import time
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from statistics import median
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from artifact import InvalidVersion, read_metadata
from artifact.layout import INT8_MODEL
from artifact.validate import EMBEDDING, FAMILIARITY, INPUT, OUTPUT, SIGNATURE
from machine import check_room_for_thread, import_openvino, openvino_core
from service.inference.evidence import EvidenceNetwork, can_explain, with_evidence

Images = npt.NDArray[np.uint8]  # [N, H, W, 3]
Probabilities = npt.NDArray[np.float32]  # [N, classes]
Outputs = npt.NDArray[np.float32]  # [N, classes], then the familiarity, then the embedding: see Engine.predict
Output = npt.NDArray[np.float32]  # of one image

_READ = np.float32(-2.0)  # stands in an answer that was read; a probability is never so little
_MOST_STREAMS = 8  # each holds the weights once more
_HINTS = {"float32": "f32", "bfloat16": "bf16"}  # OpenVINO's names
_TRIAL_IMAGES, _TRIAL_CALLS = 4, 3  # of each precision


class BrokenEngine(Exception):
    """The engine cannot be trusted any more, whatever it answers to other batches; it has to be loaded anew."""


class Engine(Protocol):
    """A loaded model. It has streams, which run at the same time, each called by one thread at a time."""

    name: str
    precision: str
    streams: int
    embedding: int
    """How many numbers the embedding of an image has; 0 where the version has none."""
    measured: Mapping[str, float]
    """Milliseconds for an image in each precision that was tried to choose the fastest; empty where none was."""
    explaining: Callable[[], EvidenceNetwork] | None
    """Reads and compiles the network anew with its evidence, see ``evidence.py``; None where that cannot be had."""

    def predict(self, images: Images, stream: int | None = None, *, embedding: bool = False) -> Outputs:
        """Return the probabilities of ``images``, uint8 [N, H, W, 3]: float32 [N, classes].

        Where the metadata has a threshold for it, the familiarity follows as one column more; and where the
        ``embedding`` is asked for, of a version that has one, that follows as the last columns.

        Without a ``stream``, counted from 0, all cores work on them: the fastest way where nothing else is to be done.
        """


class OpenVinoEngine:
    """Runs the SavedModel's ``serving_default`` signature, or the int8 network beside it, with OpenVINO on the CPU.

    A core that works on images of its own never waits for another one, as all have to after each layer where they share
    them; so there is a stream for each core, up to a number, which is a compiled model of its own.
    """

    name = "openvino"

    def __init__(self, path: Path, precision: str, threads: int) -> None:
        """Read and compile the model version in folder ``path`` for ``threads`` cores.

        ``precision`` (auto, float32, bfloat16 or int8) is a wish; the attribute says what the CPU is really used with.
        Where several will do, the fastest is taken, measured.

        Raises:
            InvalidVersion: int8 is asked for, and the version has no int8 network.
        """
        openvino = import_openvino()
        core = openvino_core()
        core.set_property({"ENABLE_MMAP": False})  # a file that is cut short while it is mapped ends the process
        metadata = read_metadata(path)
        carried = metadata.int8 is not None
        if precision == "int8" and not carried:
            raise InvalidVersion(path, "it has no int8 network, and PRECISION is int8")
        kind, hints = _candidates(precision, core.get_property("CPU", "OPTIMIZATION_CAPABILITIES"), int8=carried)
        network = path / INT8_MODEL if kind == "int8" else path
        model = core.read_model(network)

        def options(hint: str, cores: int) -> dict[str, str]:
            return {
                "PERFORMANCE_HINT": "LATENCY",
                "NUM_STREAMS": "1",  # it runs in the thread that calls; with more, each changes threads three times
                "INFERENCE_PRECISION_HINT": hint,
                "ENABLE_CPU_PINNING": "NO",  # several workers would pin themselves to the same cores
                "INFERENCE_NUM_THREADS": str(cores),
            }

        def compiled(each: tuple[str, int]) -> Any:
            return core.compile_model(model, "CPU", options(*each))

        check_room_for_thread()
        with ThreadPoolExecutor(threads) as pool:  # compiling takes a core
            tried = list(pool.map(compiled, [(hint, threads) for hint in hints]))
            hint, whole = hints[0], tried[0]
            self.measured: Mapping[str, float] = {}
            if len(hints) > 1:
                milliseconds = [_milliseconds(candidate) for candidate in tried]
                fastest = milliseconds.index(min(milliseconds))
                hint, whole = hints[fastest], tried[fastest]
                self.measured = dict(zip((_name(kind, hint) for hint in hints), milliseconds, strict=True))
            self.streams = min(threads, _MOST_STREAMS)
            of_streams = [(hint, threads // self.streams)] * self.streams if self.streams > 1 else []
            streams = list(pool.map(compiled, of_streams)) or [whole]
        used = whole.get_property("INFERENCE_PRECISION_HINT")
        self.precision = kind or ("bfloat16" if used == openvino.Type.bf16 else "float32")
        self._input = whole.input(INPUT)
        self._output = whole.output(OUTPUT)
        self._familiarity = None if metadata.familiarity is None else whole.output(FAMILIARITY)
        # Of the same compiled model: an output that nobody reads costs nothing (docs/design.md), a second one memory.
        self._embedding = next((output for output in whole.outputs if EMBEDDING in output.names), None)
        self.embedding = self._embedding.partial_shape[1].get_length() if self._embedding else 0
        self._whole = whole.create_infer_request()
        self._streams = [stream.create_infer_request() for stream in streams]

        def explaining() -> EvidenceNetwork:
            explained, grid = with_evidence(core.read_model(network))
            return EvidenceNetwork(core.compile_model(explained, "CPU", options(hint, threads)), grid)

        self.explaining = explaining if can_explain(model) else None

    def predict(self, images: Images, stream: int | None = None, *, embedding: bool = False) -> Outputs:
        """Return the outputs for ``images``, uint8 [N, H, W, 3]; see ``Engine.predict``."""
        request = self._whole if stream is None else self._streams[stream]
        request.infer({self._input: images}, share_inputs=True)
        probabilities = request.get_tensor(self._output).data  # of a tensor that is used again
        if len(probabilities) != len(images) or probabilities.flat[0] == _READ:
            raise BrokenEngine("it left the answer of an earlier batch, as it does once memory was short")
        if self._familiarity is None:
            outputs = np.array(probabilities, dtype=np.float32)
        else:
            outputs = _joined(probabilities, request.get_tensor(self._familiarity).data)
        probabilities.flat[0] = _READ
        return np.hstack([outputs, request.get_tensor(self._embedding).data]) if embedding else outputs


class TensorFlowEngine:
    """Runs the SavedModel's ``serving_default`` signature with TensorFlow; the reference for the other engine."""

    name = "tensorflow"
    precision = "float32"
    streams = 1
    measured: Mapping[str, float] = {}
    explaining: Callable[[], EvidenceNetwork] | None = None

    def __init__(self, path: Path) -> None:
        """Load the SavedModel in folder ``path``. TensorFlow is imported here: it takes seconds and much memory."""
        import tensorflow as tf

        self._tf = tf
        self._model = tf.saved_model.load(str(path))  # kept: it owns the variables that the signature reads
        self._signature = self._model.signatures[SIGNATURE]
        self._tells_familiarity = read_metadata(path).familiarity is not None
        embedding = self._signature.structured_outputs.get(EMBEDDING)
        self.embedding = embedding.shape[1] if embedding is not None else 0

    def predict(self, images: Images, stream: int | None = None, *, embedding: bool = False) -> Outputs:
        """Return the outputs for ``images``, uint8 [N, H, W, 3]; see ``Engine.predict``."""
        answer = self._signature(images=self._tf.constant(images))
        probabilities = np.asarray(answer[OUTPUT], dtype=np.float32)
        outputs = _joined(probabilities, np.asarray(answer[FAMILIARITY])) if self._tells_familiarity else probabilities
        return np.hstack([outputs, np.asarray(answer[EMBEDDING])]) if embedding else outputs


def import_library(name: str) -> None:
    """Import what engine ``name`` (openvino or tensorflow) runs models with, which takes memory of its own."""
    if name == "tensorflow":
        import tensorflow  # noqa: F401
    else:
        import_openvino()


def load(name: str, path: Path, precision: str, threads: int) -> Engine:
    """Return engine ``name`` (openvino or tensorflow) with the SavedModel in folder ``path``.

    ``precision`` and ``threads`` are for OpenVINO; TensorFlow computes in float32 and takes all cores.
    """
    if name == "tensorflow":
        return TensorFlowEngine(path)
    return OpenVinoEngine(path, precision, threads)


def _joined(probabilities: Probabilities, familiarity: npt.NDArray[np.float32]) -> Outputs:
    """Put ``familiarity`` [N] behind ``probabilities`` [N, classes], as the last column."""
    count, classes = probabilities.shape
    outputs = np.empty((count, classes + 1), np.float32)
    outputs[:, :classes] = probabilities
    outputs[:, classes] = familiarity
    return outputs


def _candidates(precision: str, capabilities: list[str], *, int8: bool) -> tuple[str | None, list[str]]:
    """Return whether the int8 network is run, as its name or None, and OpenVINO's names of what may compute in float.

    ``precision`` is what is wished for, and ``int8`` says whether there is such a network. ``auto`` takes it where the
    CPU has instructions for it. What computes in float, there or in what int8 leaves, is for measurement to say: a CPU
    may have instructions for bfloat16 and be slower with them.
    """
    if precision in _HINTS:
        return None, [_HINTS[precision]]
    runs_int8 = int8 and (precision == "int8" or "INT8" in capabilities)
    return ("int8" if runs_int8 else None), ["f32", "bf16"] if "BF16" in capabilities else ["f32"]


def _milliseconds(compiled: Any) -> float:
    """Return what an image costs in a small batch, once the network is warm: a median of few calls."""
    request = compiled.create_infer_request()
    shape = compiled.input(INPUT).partial_shape
    images = np.zeros((_TRIAL_IMAGES, *(shape[axis].get_length() for axis in (1, 2, 3))), np.uint8)
    seconds = []
    for _ in range(1 + _TRIAL_CALLS):
        started = time.perf_counter()
        request.infer({INPUT: images}, share_inputs=True)
        seconds.append(time.perf_counter() - started)
    return median(seconds[1:]) * 1000 / _TRIAL_IMAGES


def _name(kind: str | None, hint: str) -> str:
    """Return how people are told of a candidate."""
    floats = next(name for name, other in _HINTS.items() if other == hint)
    return f"{kind} and {floats}" if kind else floats
