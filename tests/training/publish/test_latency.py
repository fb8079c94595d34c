"""The time that a backbone takes for a picture is measured as the service runs it, and decides which one is chosen."""

from collections.abc import Callable

import keras
import pytest

from machine import openvino_core
from training.errors import TrainingError
from training.evaluation import timing
from training.network.registry import bundled
from training.publish import latency
from training.publish.latency import build, choose_backbone, measure, served_precision

pytestmark = [pytest.mark.keras, pytest.mark.slow]

TIMES = dict(zip(bundled(), (9.0, 5.0, 2.0), strict=True))
BEST, MIDDLE, FASTEST = bundled()

Timed = list[tuple[str, str, tuple[int, int] | None]]


@pytest.fixture
def timed(monkeypatch: pytest.MonkeyPatch) -> Timed:
    """Let each backbone take a known time, and return what was measured."""
    measured: Timed = []

    def known(name: str, precision: str, size: tuple[int, int] | None = None, seconds: float = 0.0) -> float:
        measured.append((name, precision, size))
        return TIMES[name]

    monkeypatch.setattr(latency, "measure", known)
    monkeypatch.setattr(latency, "served_precision", lambda *, int8: "int8" if int8 else "float32")
    return measured


@pytest.mark.parametrize(("budget", "chosen"), [(100.0, BEST), (9.0, BEST), (8.9, MIDDLE), (2.0, FASTEST)])
def test_the_most_accurate_that_is_fast_enough_is_chosen(budget: float, chosen: str, timed: Timed) -> None:
    """They are measured from the most accurate down, no further than needed, and one line says what came out."""
    lines: list[str] = []
    assert choose_backbone(budget, lines.append) == chosen
    assert [name for name, _, _ in timed] == bundled()[: bundled().index(chosen) + 1]
    [line] = lines
    assert line.startswith(f"Chosen for {budget:g} ms a picture in int8: {chosen}; measured: {BEST} 9.0 ms")
    assert line.endswith(f"{chosen} {TIMES[chosen]:.1f} ms.")


def test_a_budget_that_none_keeps_is_an_error(timed: Timed) -> None:
    """The message says which is the fastest and how long it takes; all were tried."""
    with pytest.raises(TrainingError, match=rf"within 1\.5 ms .*the fastest, {FASTEST}, takes 2\.0 ms"):
        choose_backbone(1.5)
    assert len(timed) == len(bundled())


def test_another_backend_is_an_error(timed: Timed, monkeypatch: pytest.MonkeyPatch) -> None:
    """What OpenVINO would measure cannot be written then, which is told before anything is built."""
    monkeypatch.setattr("keras.backend.backend", lambda: "jax")
    with pytest.raises(TrainingError, match="needs the TensorFlow backend: unset KERAS_BACKEND"):
        choose_backbone(100.0)
    assert timed == []


def test_size_and_precision_are_those_of_the_training(timed: Timed) -> None:
    """Pictures of another size are measured in that, and without an int8 network what the service then computes in."""
    choose_backbone(10.0, lambda _: None, int8=False, size=(96, 128))
    assert timed == [(BEST, "float32", (96, 128))]


def test_the_served_precision_follows_from_the_processor(monkeypatch: pytest.MonkeyPatch) -> None:
    """int8 where there is such a network and the processor has it, else what computes in float; as PRECISION=auto."""

    def of(capabilities: list[str]) -> Callable[..., str]:
        class Core:
            def get_property(self, device: str, name: str) -> list[str]:
                assert (device, name) == ("CPU", "OPTIMIZATION_CAPABILITIES")
                return capabilities

        monkeypatch.setattr(timing, "openvino_core", Core)
        return served_precision

    assert of(["FP32", "INT8", "BF16"])(int8=True) == "int8"
    assert of(["FP32", "INT8", "BF16"])(int8=False) == "float"
    assert of(["FP32", "BF16"])(int8=True) == "float"
    assert "FP32" in openvino_core().get_property("CPU", "OPTIMIZATION_CAPABILITIES")


@pytest.mark.slow
def test_a_network_is_measured_in_each_precision(capfd: pytest.CaptureFixture[str]) -> None:
    """A real one of small pictures is built, quantised and run; a time comes out, and nothing is printed.

    The precision that was set for a training does not matter.
    """
    assert build(FASTEST, (64, 96)).input_shape == (None, 64, 96, 3)
    capfd.readouterr()
    keras.mixed_precision.set_global_policy("mixed_bfloat16")
    try:
        for precision in ("float32", "float", "int8"):
            assert 0 < measure(FASTEST, precision, (64, 96), seconds=0.1) < 1000
    finally:
        keras.mixed_precision.set_global_policy("float32")
    assert capfd.readouterr().out == ""
