"""A version as an ONNX file, in float32: what ``serving_default`` takes and gives, correction and all.

tf2onnx converts, in a process of its own, since it sets up TensorFlow as it likes. ONNX Runtime reads the result back.
"""

import os
import subprocess
import sys
from pathlib import Path

import numpy as np

from artifact import Metadata
from artifact.layout import METADATA
from artifact.validate import OUTPUT, SIGNATURE
from training.data.batching import in_batches
from training.data.dataset import Pixels
from training.errors import TrainingError
from training.evaluation.inference import Answer, Outputs, largest_gap
from training.fit.device import hide_gpus

SUFFIX = ".onnx"
NEEDS = ("tf2onnx", "onnx", "onnxruntime")
"""What has to be installed, by its names in Python."""

_OPSET = 18  # of ONNX 1.13, of December 2022; tf2onnx knows no later one
_TOLERANCE = 1e-3
_BATCH = 64


def convert(version: Path, metadata: Metadata, target: Path) -> None:
    """Write the version in folder ``version`` to the file ``target``, with its labels and metadata as properties.

    Raises:
        TrainingError: it has something that tf2onnx cannot convert, or the file cannot be written.
    """
    import onnx

    _run_tf2onnx(version, target)
    model = onnx.load(target)
    for value in (*model.graph.input, *model.graph.output):
        value.type.tensor_type.shape.dim[0].dim_param = "N"
    outputs = sorted(model.graph.output, key=lambda output: output.name != OUTPUT)  # the probabilities come first
    del model.graph.output[:]
    model.graph.output.extend(outputs)
    properties = {"labels": "\n".join(metadata.labels), "metadata": (version / METADATA).read_text(encoding="utf-8")}
    onnx.helper.set_model_props(model, properties)
    onnx.save(model, target)


def _run_tf2onnx(version: Path, target: Path) -> None:
    options = ["--saved-model", str(version), "--tag", "serve", "--signature_def", SIGNATURE, "--opset", str(_OPSET)]
    environment = dict(os.environ)
    hide_gpus(environment)
    command = [sys.executable, "-m", "tf2onnx.convert", *options, "--output", str(target)]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    if done.returncode:
        reason = (done.stderr.strip().splitlines() or [f"exit code {done.returncode}"])[-1]
        raise TrainingError(f"tf2onnx cannot convert {version} ({reason})")


def answer(file: Path) -> Answer:
    """Return what gives all outputs of the ONNX file, run by ONNX Runtime on the processor.

    Raises:
        TrainingError: ONNX Runtime cannot read the file.
    """
    import onnxruntime

    try:
        session = onnxruntime.InferenceSession(file, providers=["CPUExecutionProvider"])
    except Exception as error:  # its exceptions have no common class but this
        raise TrainingError(f"ONNX Runtime cannot read what tf2onnx wrote ({error})") from error
    names = [output.name for output in session.get_outputs()]

    def answer(images: Pixels) -> Outputs:
        parts = [session.run(names, {"images": batch}) for batch in in_batches(images, _BATCH)]
        return dict(zip(names, map(np.concatenate, zip(*parts, strict=True)), strict=True))

    return answer


def compare(found: Answer, expected: Answer, images: Pixels) -> float:
    """Return the largest gap between two answers to ``images``; see ``largest_gap``.

    Raises:
        TrainingError: it is above 1e-3, or the outputs have other names.
    """
    ours, theirs = expected(images), found(images)
    if ours.keys() != theirs.keys():
        raise TrainingError(f"the file gives {', '.join(theirs)}, and the version {', '.join(ours)}; it is not kept")
    gap = largest_gap(theirs, ours)
    if not gap <= _TOLERANCE:  # so that NaN fails
        raise TrainingError(f"the file read by ONNX Runtime differs from the version by {gap:.2g}; it is not kept")
    return gap
