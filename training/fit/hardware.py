"""What the training runs on, and the precision that it is good at."""

import platform
from pathlib import Path

import keras

from machine import usable_cores
from training.errors import TrainingError
from training.fit.settings import Precision


def gpus() -> int:
    """Return how many GPUs the Keras backend sees; ``CUDA_VISIBLE_DEVICES`` chooses among those of the machine."""
    if keras.backend.backend() == "tensorflow":
        import tensorflow as tf

        # Keras would ask for logical devices, and after that TensorFlow can no longer join other machines.
        return len(tf.config.list_physical_devices("GPU"))
    return sum(device.startswith("gpu") for device in keras.distribution.list_devices())


def has_gpu() -> bool:
    """Say whether the Keras backend sees a GPU."""
    return gpus() > 0


def describe() -> str:
    """Return the hardware in words, e.g. ``2 cores of AMD EPYC, no GPU``."""
    return f"{usable_cores()} cores of {_processor()}, {f'{gpus()} GPU' if has_gpu() else 'no GPU'}"


def set_precision(precision: Precision) -> str:
    """Set Keras's precision policy and return it as ``float32`` or ``bfloat16``.

    ``auto`` takes bfloat16 on a GPU and on processors that compute in it; long trainings measure instead, see
    ``training.fit.precision``. Weights, losses and batch statistics stay in float32.
    """
    if precision == "auto":
        precision = "bfloat16" if has_gpu() or may_compute_bfloat16() else "float32"
    set_policy(precision)
    return precision


def set_policy(precision: Precision) -> None:
    """Let Keras build networks that compute in ``float32`` or ``bfloat16`` from now on."""
    keras.mixed_precision.set_global_policy("mixed_bfloat16" if precision == "bfloat16" else "float32")


def environment(precision: Precision) -> dict[str, str]:
    """Set ``precision`` and return, in words, what a run's record says of where it computes."""
    return {"backend": keras.backend.backend(), "precision": set_precision(precision), "hardware": describe()}


def set_deterministic() -> None:
    """Let the same seed give the same weights on a GPU too, which costs speed; on a CPU it does so anyway.

    Raises:
        TrainingError: the backend is not TensorFlow.
    """
    if keras.backend.backend() != "tensorflow":
        raise TrainingError("--deterministic needs the TensorFlow backend: unset KERAS_BACKEND")
    import tensorflow as tf

    tf.config.experimental.enable_op_determinism()


def _processor() -> str:
    for line in _cpuinfo():
        if line.startswith("model name"):
            return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()


def may_compute_bfloat16() -> bool:
    """Say whether the processor has instructions for bfloat16."""
    flags = next((line for line in _cpuinfo() if line.startswith("flags")), "")
    return any(flag in flags.split() for flag in ("avx512_bf16", "amx_bf16"))


def _cpuinfo() -> list[str]:
    try:
        return Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return []
