"""How long the network in a file takes for one picture, run as the service runs it: by OpenVINO, alone on all cores."""

import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal

from machine import openvino_core, usable_cores
from training.data.dataset import Pixels

Precision = Literal["float32", "float", "int8"]
"""``float`` is the faster one of float32 and bfloat16, as in what int8 leaves: so does the service choose."""

_WARM_UP, _FEWEST = 2, 5  # calls


def milliseconds_of(network: Path, picture: Pixels, precision: Precision, seconds: float) -> float:
    """Return the milliseconds that ``network``, a version's folder or an int8 network, takes for a picture.

    It is the median of some ``seconds``, of the better one where ``precision`` leaves two to try; ``picture`` is uint8
    [1, H, W, 3].
    """

    def milliseconds(request: Any) -> float:
        return _median_milliseconds(lambda: request.infer({"images": picture}, share_inputs=True), seconds)

    return min(map(milliseconds, _compiled(network, precision)))


def capabilities() -> list[str]:
    """Return the arithmetic that the processor has instructions for, in OpenVINO's words."""
    found: list[str] = openvino_core().get_property("CPU", "OPTIMIZATION_CAPABILITIES")
    return found


def processor() -> str:
    """Return in words what the milliseconds are of, e.g. ``2 cores of AMD EPYC``."""
    cores = usable_cores()
    name = str(openvino_core().get_property("CPU", "FULL_DEVICE_NAME")).strip()
    return f"{cores} {'core' if cores == 1 else 'cores'} of {name}"


def _compiled(network: Path, precision: Precision) -> list[Any]:
    """Return requests to a network, compiled with the options of the service's engine, one for each that it tries."""
    core = openvino_core()
    floats = ["f32", "bf16"] if precision != "float32" and "BF16" in capabilities() else ["f32"]
    options = {
        "PERFORMANCE_HINT": "LATENCY",
        "NUM_STREAMS": "1",
        "ENABLE_CPU_PINNING": "NO",
        "INFERENCE_NUM_THREADS": str(usable_cores()),
    }
    model = core.read_model(network)
    return [
        core.compile_model(model, "CPU", {**options, "INFERENCE_PRECISION_HINT": hint}).create_infer_request()
        for hint in floats
    ]


def _median_milliseconds(call: Callable[[], object], seconds: float) -> float:
    for _ in range(_WARM_UP):
        call()
    taken: list[float] = []
    while len(taken) < _FEWEST or sum(taken) < seconds:
        started = time.perf_counter()
        call()
        taken.append(time.perf_counter() - started)
    return statistics.median(taken) * 1e3
