"""What the training runs on, and the precision that it is good at."""

import os
import platform
from pathlib import Path
from typing import Literal

import keras

Precision = Literal["auto", "float32", "bfloat16"]


def has_gpu() -> bool:
    """Say whether the Keras backend sees a GPU."""
    return any(device.startswith("gpu") for device in keras.distribution.list_devices())


def cores() -> int:
    """Return the number of processor cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def describe() -> str:
    """Return the hardware in words, e.g. ``2 cores of AMD EPYC, no GPU``."""
    gpus = [device for device in keras.distribution.list_devices() if device.startswith("gpu")]
    return f"{cores()} cores of {_processor()}, {f'{len(gpus)} GPU' if gpus else 'no GPU'}"


def set_precision(precision: Precision) -> str:
    """Set Keras's precision policy and return it as ``float32`` or ``bfloat16``.

    ``auto`` takes bfloat16 on a GPU and on processors that compute in it, where it trains about 1.5 times as fast;
    weights, losses and batch statistics stay in float32.
    """
    if precision == "auto":
        precision = "bfloat16" if has_gpu() or _computes_bfloat16() else "float32"
    keras.mixed_precision.set_global_policy("mixed_bfloat16" if precision == "bfloat16" else "float32")
    return precision


def _processor() -> str:
    for line in _cpuinfo():
        if line.startswith("model name"):
            return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()


def _computes_bfloat16() -> bool:
    flags = next((line for line in _cpuinfo() if line.startswith("flags")), "")
    return any(flag in flags.split() for flag in ("avx512_bf16", "amx_bf16"))


def _cpuinfo() -> list[str]:
    try:
        return Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return []
