"""Which device a training is meant for, why there is no GPU where it is meant for one, and how its backend starts.

The trainer's image sets ``DARKROOM_DEVICE=gpu``: whoever runs it means to use a GPU, and is told at once where there is
none, not after hours. ``--cpu`` says that none is wanted. Elsewhere a GPU is used where there is one.
"""

import ctypes
import os
import tempfile
from collections.abc import Callable, Iterator, Mapping, MutableMapping, Sequence
from contextlib import contextmanager
from enum import Enum
from pathlib import Path
from typing import Any

from machine import keep_freed_memory
from training.errors import NoGpu, TrainingError

VARIABLE = "DARKROOM_DEVICE"
GPU_DEVICES = (Path("/dev/nvidiactl"), Path("/dev/dxg"))  # Linux, and Linux under Windows

BACKENDS = ("tensorflow", "jax")
"""What Keras may compute with; the first is the default."""

_BACKEND = "KERAS_BACKEND"
_FOR_DEBUGGING = ("KERAS_MAX_EPOCHS", "KERAS_MAX_STEPS_PER_EPOCH")  # which cut every training short
_DRIVER = "libcuda.so.1"
_WHERE_TO_TURN = "give --cpu to train on the CPU"


class Device(Enum):
    """What a training may run on."""

    ANY = ""
    """A GPU where there is one."""
    GPU = "gpu"
    CPU = "cpu"


@contextmanager
def start_of_training(*, cpu: bool) -> Iterator[None]:
    """Prepare the process for the backend that the block imports, and give it the device that is asked for.

    Raises:
        NoGpu: at the end of the block, where the training is meant for a GPU and there is none.
        TrainingError: ``DARKROOM_DEVICE`` has a value that it cannot have.
    """
    keep_freed_memory()
    wanted = chosen(os.environ, cpu=cpu)
    if wanted is Device.CPU:
        hide_gpus(os.environ)
    with quiet_start():
        yield
    if wanted is Device.GPU:
        from training.fit.hardware import gpus

        require_gpu(gpus(), os.environ)


@contextmanager
def quiet_start() -> Iterator[None]:
    """Let the backend look for devices at the end of the block, and keep what its C++ code prints off the terminal.

    No setting silences TensorFlow: its first lines come before its logging has read one. Where an import fails, or
    where there is a GPU that it may complain of, everything is shown.
    """
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
    with quiet(show=any(gpu.exists() for gpu in GPU_DEVICES)):
        load_keras(os.environ)
        yield
        from training.fit.hardware import has_gpu

        has_gpu()


def load_keras(environment: MutableMapping[str, str]) -> None:
    """Import Keras with the settings that this project is written for, whatever its user has set for other programs.

    Those stand in ``~/.keras/keras.json``, or below ``KERAS_HOME``, and in variables. Of them the backend is a choice,
    by ``KERAS_BACKEND``.

    Raises:
        TrainingError: that is none of ``BACKENDS``, is not installed, or the settings keep Keras from being imported.
    """
    backend = environment.get(_BACKEND) or BACKENDS[0]
    if backend not in BACKENDS:
        raise TrainingError(f"{_BACKEND} is {backend!r}, but training needs {' or '.join(BACKENDS)}: unset it")
    environment[_BACKEND] = backend
    for variable in _FOR_DEBUGGING:
        environment.pop(variable, None)
    try:
        import keras
    except ModuleNotFoundError as error:
        raise TrainingError(f"{error}, which {_BACKEND}={backend} needs: install it, or unset the variable") from error
    except Exception as error:  # it checks its settings while it is imported, and each in a way of its own
        home = environment.get("KERAS_HOME") or "~/.keras"
        raise TrainingError(f"Keras cannot be imported ({error}); put {home}/keras.json right, or remove it") from error
    keras.config.set_floatx("float32")
    keras.config.set_epsilon(1e-7)
    keras.config.set_image_data_format("channels_last")
    keras.config.set_dtype_policy("float32")


@contextmanager
def quiet(*, show: bool = False) -> Iterator[None]:
    """Keep what native code prints in the block off the terminal, unless the block fails or it is to ``show``."""
    standard_error = os.dup(2)
    with tempfile.TemporaryFile() as printed:
        os.dup2(printed.fileno(), 2)
        succeeded = False
        try:
            yield
            succeeded = True
        finally:
            os.dup2(standard_error, 2)
            if show or not succeeded:
                printed.seek(0)
                os.write(standard_error, printed.read())
            os.close(standard_error)


def chosen(environment: Mapping[str, str], *, cpu: bool) -> Device:
    """Return the device that ``--cpu`` or else ``DARKROOM_DEVICE`` asks for.

    Raises:
        TrainingError: the variable has another value than ``gpu`` and ``cpu``.
    """
    if cpu:
        return Device.CPU
    text = environment.get(VARIABLE, "").strip().lower()
    try:
        return Device(text)
    except ValueError:
        raise TrainingError(f"{VARIABLE} is {text!r}, but it must be gpu, cpu or empty") from None


def hide_gpus(environment: MutableMapping[str, str]) -> None:
    """Let every Keras backend that is imported after this compute on the CPU alone."""
    environment["CUDA_VISIBLE_DEVICES"] = "-1"
    environment["JAX_PLATFORMS"] = "cpu"


def require_gpu(gpus: int, environment: Mapping[str, str]) -> None:
    """Find out before anything is downloaded that the GPU is missing that a training is meant for.

    Raises:
        NoGpu: the backend sees none of the ``gpus``, for the reason that the message gives.
    """
    if not gpus:
        raise NoGpu(f"{why_no_gpu(environment)}; or {_WHERE_TO_TURN}")


def why_no_gpu(
    environment: Mapping[str, str],
    devices: Sequence[Path] = GPU_DEVICES,
    load: Callable[[str], Any] = ctypes.CDLL,
) -> str:
    """Return a sentence on what is missing between the backend and a GPU, and what to do."""
    if not any(device.exists() for device in devices):
        return (
            "there is no GPU here: start the container with --gpus all, which takes NVIDIA's driver and its container "
            "toolkit on the machine"
        )
    hidden = environment.get("CUDA_VISIBLE_DEVICES")
    if hidden is not None and not hidden.replace(",", "").isdigit() and "GPU-" not in hidden and "MIG-" not in hidden:
        return f"CUDA_VISIBLE_DEVICES is {hidden!r}, which hides the GPU: unset it"
    try:
        driver = load(_DRIVER)
    except OSError:
        return (
            f"there is a GPU, but not the driver's library {_DRIVER}: install the driver, or in a container let "
            "NVIDIA_DRIVER_CAPABILITIES include compute"
        )
    if code := driver.cuInit(0):
        return f"there is a GPU, but its driver does not start (cuInit answers {code}): see what nvidia-smi says"
    return (
        f"there is a GPU, and its driver knows CUDA {_version(driver)}, but the backend cannot use it, as its messages "
        "above say: install a newer driver"
    )


def _version(driver: Any) -> str:
    """Return the newest CUDA that a driver knows, e.g. ``12.8``."""
    version = ctypes.c_int()
    driver.cuDriverGetVersion(ctypes.byref(version))
    return f"{version.value // 1000}.{version.value % 1000 // 10}"
