"""The network of a published version, run by OpenVINO, which serves it as well. No training backend is needed."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from machine import import_openvino, openvino_core
from training.data.batching import batch_of
from training.data.dataset import Pixels
from training.progress import bar

_BATCH = 500

Predict = Callable[[Pixels], NDArray[np.float32]]
"""Pictures uint8 [N, H, W, 3] -> probabilities float32 [N, classes]."""
Score = Callable[[Pixels], NDArray[np.float32]]
"""Pictures uint8 [N, H, W, 3] -> their familiarity float32 [N]."""
Outputs = dict[str, NDArray[np.float32]]
Answer = Callable[[Pixels], Outputs]
"""Pictures uint8 [N, H, W, 3] -> the outputs of a signature by name."""


def openvino_predict(path: Path) -> Predict:
    """Return the classifier in the SavedModel in folder ``path``, run by OpenVINO in float32."""
    answer = openvino_answer(path)
    return lambda images: answer(images)["probabilities"]


def openvino_score(path: Path) -> Score:
    """Return the score ``familiarity`` of the SavedModel in folder ``path``, computed by OpenVINO in float32."""
    answer = openvino_answer(path)
    return lambda images: answer(images)["familiarity"]


def answers_to(path: Path, images: Pixels) -> Outputs:
    """Return all outputs of the SavedModel or int8 network at ``path`` for ``images`` uint8 [N, H, W, 3].

    OpenVINO runs it in float32, and a bar shows how far it is.
    """
    with bar(len(images), "Answering", "picture") as shown:
        return openvino_answer(path, shown.update)(images)


def openvino_answer(path: Path, answered: Callable[[int], object] = lambda number: None) -> Answer:
    """Return what gives all outputs of the SavedModel in folder ``path``, run by OpenVINO in float32.

    However many pictures it gets, each core has some of its own at a time: so their maps stay in its cache, and no core
    waits for the others. After some pictures ``answered`` is told how many they were.
    """
    core = openvino_core()
    hints = {"INFERENCE_PRECISION_HINT": "f32", "PERFORMANCE_HINT": "THROUGHPUT"}
    compiled = core.compile_model(core.read_model(path), "CPU", hints)
    names = [output.get_any_name() for output in compiled.outputs]
    queue = import_openvino().AsyncInferQueue(compiled)

    def answer(images: Pixels) -> Outputs:
        height, width = images.shape[1:3]
        size = max(min(batch_of(height, width, _BATCH), len(images)) // len(queue), 1)
        begins = range(0, len(images), size)
        parts: list[list[NDArray[np.float32]]] = [[]] * len(begins)

        def keep(request: Any, index: int) -> None:
            parts[index] = [tensor.data.copy() for tensor in request.output_tensors]
            answered(len(parts[index][0]))

        queue.set_callback(keep)
        for index, begin in enumerate(begins):
            queue.start_async({"images": images[begin : begin + size]}, index)
        queue.wait_all()
        return dict(zip(names, map(np.concatenate, zip(*parts, strict=True)), strict=True))

    return answer


def largest_gap(found: Outputs, expected: Outputs) -> float:
    """Return how far ``found`` is from ``expected`` in any of its outputs; NaN where a number is none.

    Of an output with values beyond 1, such as the familiarity, which has no upper limit, it is a share of the largest.
    """
    gaps = [np.abs(found[name] - values).max() / max(1.0, np.abs(values).max()) for name, values in expected.items()]
    return float(np.max(gaps))
