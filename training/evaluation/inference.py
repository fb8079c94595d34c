"""The network of a published version, run by OpenVINO, which serves it as well. No training backend is needed."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from machine import openvino_core
from training.data.batching import in_batches
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

    OpenVINO runs it in float32, a batch at a time.
    """
    answer = openvino_answer(path)
    with bar(len(images), "Answering", "picture") as shown:

        def counted(batch: Pixels) -> Outputs:
            outputs = answer(batch)
            shown.update(len(batch))
            return outputs

        return all_answers(counted, images, _BATCH)


def all_answers(answer: Answer, images: Pixels, most: int) -> Outputs:
    """Return all outputs for ``images`` uint8 [N, H, W, 3], of which at most ``most`` are asked for at once."""
    parts = [answer(batch) for batch in in_batches(images, most)]
    return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}


def openvino_answer(path: Path) -> Answer:
    """Return what gives all outputs of the SavedModel in folder ``path``, run by OpenVINO in float32."""
    core = openvino_core()
    compiled = core.compile_model(core.read_model(path), "CPU", {"INFERENCE_PRECISION_HINT": "f32"})

    def answer(images: Pixels) -> Outputs:
        outputs = compiled({"images": images})
        return {output.get_any_name(): np.asarray(outputs[output]) for output in compiled.outputs}

    return answer


def largest_gap(found: Outputs, expected: Outputs) -> float:
    """Return how far ``found`` is from ``expected`` in any of its outputs; NaN where a number is none.

    Of an output with values beyond 1, such as the familiarity, which has no upper limit, it is a share of the largest.
    """
    gaps = [np.abs(found[name] - values).max() / max(1.0, np.abs(values).max()) for name, values in expected.items()]
    return float(np.max(gaps))
