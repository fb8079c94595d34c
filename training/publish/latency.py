"""How long a network takes for one picture, run as the service runs it: by OpenVINO, alone on all cores."""

import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path

import keras
import numpy as np

from artifact import Input
from training.errors import TrainingError
from training.evaluation.timing import Precision, capabilities, milliseconds_of
from training.network.backbone import build_on_backbone
from training.network.model import in_float32
from training.network.registry import BACKBONES, IMAGENET_WEIGHTS, NO_WEIGHTS, bundled
from training.publish.export import save
from training.publish.quantization import quantize

_CLASSES = 1000
_FOR_RANGES = 8  # random pictures, since the ranges make no difference to the time
_SECONDS = 2.0


def choose_backbone(
    milliseconds: float,
    log: Callable[[str], object] = print,
    *,
    int8: bool = True,
    size: tuple[int, int] | None = None,
) -> str:
    """Return the most accurate backbone, of those whose weights are installed, that answers within ``milliseconds``.

    They are measured on this machine, from the most accurate down, in int8 or else in what the service computes in
    without it, on pictures of ``size`` (height, width) or of the one that they were trained on. What was found out is
    told to ``log`` in one line.

    Raises:
        TrainingError: even the fastest takes longer; the message says how long. Or Keras's backend is not TensorFlow,
            which alone writes what OpenVINO reads.
    """
    if keras.backend.backend() != "tensorflow":
        raise TrainingError("--budget-ms needs the TensorFlow backend: unset KERAS_BACKEND")
    precision = served_precision(int8=int8)
    found: dict[str, float] = {}
    for name in bundled():
        found[name] = measure(name, precision, size)
        if found[name] <= milliseconds:
            log(f"Chosen for {milliseconds:g} ms a picture in {precision}: {name}; measured: {_in_words(found)}.")
            return name
    fastest = min(found, key=lambda name: found[name])
    raise TrainingError(
        f"no backbone answers within {milliseconds:g} ms on this machine in {precision}; the fastest, {fastest}, takes "
        f"{found[fastest]:.1f} ms"
    )


def served_precision(*, int8: bool) -> Precision:
    """Return what the service computes in by itself on this machine, with an int8 network or without one."""
    return "int8" if int8 and "INT8" in capabilities() else "float"


def measure(name: str, precision: Precision, size: tuple[int, int] | None = None, seconds: float = _SECONDS) -> float:
    """Return the milliseconds that backbone ``name`` takes for a picture, the median of some ``seconds``.

    ``size`` is as in ``build``.

    Raises:
        TrainingError: the network cannot be built for this size.
        OSError: the temporary folder cannot be written.
    """
    model = in_float32(build(name, size))  # whatever precision was set for a training
    height, width, _ = model.input_shape[1:]
    rng = np.random.default_rng(0)
    pictures = rng.integers(256, size=(_FOR_RANGES, height, width, 3), dtype=np.uint8)
    with tempfile.TemporaryDirectory() as folder:
        version = network = Path(folder)
        save(model, Input(height, width), version)
        if precision == "int8":
            network = version / "int8.xml"
            quantize(version, pictures, network)
        return milliseconds_of(network, pictures[:1], precision, seconds)


def build(name: str, size: tuple[int, int] | None = None) -> keras.Model:
    """Return backbone ``name`` with a head for 1,000 labels, which makes the cost of a picture that of ImageNet's.

    It takes pictures of ``size`` (height, width) or of the one that it was trained on. Where its weights are not
    installed, they are random, which makes no difference to the time.

    Raises:
        TrainingError: the network cannot be built for this size.
    """
    known = BACKBONES[name]
    height, width = size or (known.side, known.side)
    weights = IMAGENET_WEIGHTS if known.package else NO_WEIGHTS
    return build_on_backbone((height, width, 3), _CLASSES, name, weights, seed=0)


def _in_words(found: Mapping[str, float]) -> str:
    return ", ".join(f"{name} {milliseconds:.1f} ms" for name, milliseconds in found.items())
