"""Which device a training takes, and what it says where the GPU is missing that it is meant for."""

import ctypes
import json
from pathlib import Path
from typing import Any

import pytest

from tests.training.conftest import Train
from training.errors import NoGpu, TrainingError
from training.fit.device import Device, chosen, hide_gpus, load_keras, require_gpu, why_no_gpu


class Driver:
    """What NVIDIA's driver library answers: whether it starts, and the newest CUDA that it knows."""

    def __init__(self, started: int = 0, version: int = 12040) -> None:
        self._started, self._version = started, version

    def cuInit(self, flags: int) -> int:  # noqa: N802 - the library's name
        """Answer 0 where there is a GPU that can be used."""
        assert flags == 0
        return self._started

    def cuDriverGetVersion(self, version: Any) -> int:  # noqa: N802 - the library's name
        """Write the version as 1000 * major + 10 * minor."""
        ctypes.cast(version, ctypes.POINTER(ctypes.c_int))[0] = self._version
        return 0


@pytest.fixture
def devices(tmp_path: Path) -> list[Path]:
    """Device files as a machine with a GPU has them."""
    (tmp_path / "nvidiactl").touch()
    return [tmp_path / "nvidiactl"]


def missing(name: str) -> Any:
    """Find no library."""
    raise OSError(f"{name}: cannot open shared object file")


@pytest.mark.parametrize(
    ("variable", "cpu", "device"),
    [
        (None, False, Device.ANY),
        ("", False, Device.ANY),
        ("gpu", False, Device.GPU),
        ("GPU ", False, Device.GPU),
        ("cpu", False, Device.CPU),
        ("gpu", True, Device.CPU),
        (None, True, Device.CPU),
    ],
)
def test_the_option_wins_over_the_variable(variable: str | None, cpu: bool, device: Device) -> None:
    """A laptop takes what there is, the image asks for a GPU, and --cpu says yes to doing without."""
    environment = {} if variable is None else {"DARKROOM_DEVICE": variable}
    assert chosen(environment, cpu=cpu) is device


def test_another_value_is_an_error_that_names_the_variable() -> None:
    """A typing error does not pass for "whatever there is"."""
    with pytest.raises(TrainingError, match="DARKROOM_DEVICE is 'tpu'"):
        chosen({"DARKROOM_DEVICE": "tpu"}, cpu=False)


def test_hidden_gpus_are_hidden_from_every_backend() -> None:
    """TensorFlow and PyTorch read one variable, JAX another."""
    environment = {"CUDA_VISIBLE_DEVICES": "0,1"}
    hide_gpus(environment)
    assert environment == {"CUDA_VISIBLE_DEVICES": "-1", "JAX_PLATFORMS": "cpu"}


def test_with_a_gpu_there_is_nothing_to_say() -> None:
    """One that the backend sees is enough."""
    require_gpu(1, {})


def test_without_one_the_error_says_what_to_do(tmp_path: Path) -> None:
    """It names Docker's option, what that needs, and the option to do without."""
    with pytest.raises(NoGpu, match="--cpu"):
        require_gpu(0, {})
    reason = why_no_gpu({}, devices=[tmp_path / "nvidiactl"])
    assert "--gpus all" in reason
    assert "container toolkit" in reason


def test_a_gpu_that_is_hidden_is_told_from_one_that_is_missing(devices: list[Path]) -> None:
    """Where CUDA_VISIBLE_DEVICES hides it, no driver has to be installed."""
    assert "CUDA_VISIBLE_DEVICES is '-1'" in why_no_gpu({"CUDA_VISIBLE_DEVICES": "-1"}, devices, missing)
    assert "CUDA_VISIBLE_DEVICES is ''" in why_no_gpu({"CUDA_VISIBLE_DEVICES": ""}, devices, missing)


@pytest.mark.parametrize("visible", [None, "0", "0,1", "GPU-8932f937", "MIG-3eb87630"])
def test_a_driver_without_its_library_is_told(devices: list[Path], visible: str | None) -> None:
    """A container that is given the device and not the library may not compute."""
    environment = {} if visible is None else {"CUDA_VISIBLE_DEVICES": visible}
    reason = why_no_gpu(environment, devices, missing)
    assert "libcuda.so.1" in reason
    assert "NVIDIA_DRIVER_CAPABILITIES" in reason


def test_a_driver_that_does_not_start_or_is_too_old_is_told(devices: list[Path]) -> None:
    """The driver's own code is there to search for, and the CUDA that an old one knows."""
    assert "cuInit answers 999" in why_no_gpu({}, devices, lambda _: Driver(started=999))
    assert "knows CUDA 12.4" in why_no_gpu({}, devices, lambda _: Driver())


@pytest.mark.process
@pytest.mark.slow
@pytest.mark.parametrize("command", [("--preset", "smoke"), ("study", "--quick")])
def test_a_training_that_is_meant_for_a_gpu_ends_at_once(
    run_training: Train, tmp_path: Path, command: tuple[str, ...]
) -> None:
    """Exit code 4, one line that says why, and no file: nothing was downloaded, trained or published."""
    models = () if "study" in command else ("--models", tmp_path / "models")
    done = run_training(*command, *models, "--run", tmp_path / "run", DARKROOM_DEVICE="gpu")
    assert done.returncode == 4, done.stderr
    (line,) = done.stderr.splitlines()
    assert line.startswith("training: error: ")
    assert line.endswith("or give --cpu to train on the CPU")
    assert list(tmp_path.iterdir()) == []


def test_a_backend_that_is_not_known_is_an_error() -> None:
    """It names the variable and what it may be, before anything is imported."""
    with pytest.raises(TrainingError, match="KERAS_BACKEND is 'torch', but training needs tensorflow or jax: unset it"):
        load_keras({"KERAS_BACKEND": "torch"})


SMOKE = ("--preset", "smoke", "--epochs", "1", "--precision", "float32", "--cpu")


@pytest.mark.process
@pytest.mark.slow
def test_what_keras_was_set_to_for_other_programs_changes_nothing(run_training: Train, tmp_path: Path) -> None:
    """Channels first, half precision, another backend and epsilon, and limits for debugging: the same weights.

    Both with --cpu where a GPU is meant, which trains, and which the repeatable configuration does not ask for.
    """
    (tmp_path / "keras").mkdir()
    strange = {"image_data_format": "channels_first", "floatx": "float16", "epsilon": 0.1, "backend": "torch"}
    (tmp_path / "keras" / "keras.json").write_text(json.dumps(strange))
    environments: tuple[dict[str, str], ...] = (
        {},
        {
            "KERAS_HOME": str(tmp_path / "keras"), "KERAS_BACKEND": "", "KERAS_MAX_EPOCHS": "0",
            "KERAS_MAX_STEPS_PER_EPOCH": "1", "TF_CONFIG": "{}",
        },
    )  # fmt: skip
    weights = []
    for number, changes in enumerate(environments):
        models = tmp_path / f"models{number}"
        places = ("--models", models, "--run", tmp_path / f"run{number}")
        done = run_training(*SMOKE, *places, DARKROOM_DEVICE="gpu", **changes)
        assert done.returncode == 0, done.stderr
        assert "Training on the CPU, without a GPU." in done.stdout
        assert "cpu" not in (models / "smoke" / "1" / "assets.extra" / "config.toml").read_text(encoding="utf-8")
        weights.append((models / "smoke" / "1" / "variables" / "variables.data-00000-of-00001").read_bytes())
    assert weights[0] == weights[1]


@pytest.mark.process
@pytest.mark.slow
@pytest.mark.parametrize(
    ("settings", "changes", "message"),
    [
        ('{"epsilon": 0}', {}, "Keras cannot be imported (Invalid `epsilon`"),
        ('{"floatx": "int8"}', {}, "Keras cannot be imported (Invalid `floatx`"),
        ("[]", {}, "Keras cannot be imported ("),
        ("{}", {"KERAS_BACKEND": "theano"}, "KERAS_BACKEND is 'theano', but training needs tensorflow or jax"),
    ],
)
def test_settings_that_keras_does_not_take_are_a_sentence(
    run_training: Train, tmp_path: Path, settings: str, changes: dict[str, str], message: str
) -> None:
    """Without a traceback, and with the file that has them."""
    (tmp_path / "keras.json").write_text(settings)
    done = run_training(*SMOKE, "--models", tmp_path / "m", KERAS_HOME=str(tmp_path), **changes)
    assert done.returncode == 1
    assert f"training: error: {message}" in done.stderr
    assert "Traceback" not in done.stderr
    assert changes or f"put {tmp_path}/keras.json right, or remove it" in done.stderr
