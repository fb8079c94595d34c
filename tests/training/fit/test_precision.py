"""The arithmetic of a training is the faster one, as it is measured; what is asked for is not compared."""

from collections.abc import Iterator

import keras
import pytest

from training.fit import precision
from training.fit.precision import Pace, choose_precision
from training.fit.settings import Precision

pytestmark = pytest.mark.keras


@pytest.fixture(autouse=True)
def policy() -> Iterator[None]:
    """Put Keras's policy back, which the tests that follow build their networks by."""
    yield
    keras.mixed_precision.set_global_policy("float32")


def tiny() -> keras.Model:
    """Return a network that trains in no time."""
    inputs = keras.Input((4, 4, 3))
    return keras.Model(inputs, keras.layers.Dense(2, dtype="float32")(keras.layers.Flatten()(inputs)))


@pytest.fixture
def measured(monkeypatch: pytest.MonkeyPatch) -> dict[str, float]:
    """Return the pictures a second that a stand-in for the measurement gives, empty at first."""
    paces: dict[str, float] = {}
    monkeypatch.setattr(precision, "has_gpu", lambda: False)
    monkeypatch.setattr(precision, "may_compute_bfloat16", lambda: True)
    monkeypatch.setattr(precision, "_measure", lambda name, _make, _batch_size: paces[name])
    return paces


@pytest.mark.parametrize(
    ("float32", "bfloat16", "expected", "policy_name"),
    [(3.0, 2.0, "float32", "float32"), (2.0, 3.0, "bfloat16", "mixed_bfloat16")],
)
def test_auto_takes_the_faster(
    measured: dict[str, float],
    float32: float,
    bfloat16: float,
    expected: Precision,
    policy_name: str,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """Both are tried where the processor has bfloat16; what comes out is said, and set for what is built next."""
    measured.update(float32=float32, bfloat16=bfloat16)
    assert choose_precision("auto", tiny, 4) == Pace(expected, 3.0)
    assert keras.mixed_precision.global_policy().name == policy_name
    assert f"pictures a second in bfloat16: {expected} it is." in capsys.readouterr().out


@pytest.mark.parametrize(("gpu", "bfloat16", "expected"), [(True, True, "bfloat16"), (False, False, "float32")])
def test_auto_compares_nothing_where_there_is_no_choice(
    measured: dict[str, float], monkeypatch: pytest.MonkeyPatch, gpu: bool, bfloat16: bool, expected: Precision
) -> None:
    """A GPU trains in bfloat16, a processor without it in float32; a measurement of the other would fail here."""
    monkeypatch.setattr(precision, "has_gpu", lambda: gpu)
    monkeypatch.setattr(precision, "may_compute_bfloat16", lambda: bfloat16)
    measured[expected] = 1.0
    assert choose_precision("auto", tiny, 4).precision == expected


@pytest.mark.parametrize("asked", ["float32", "bfloat16"])
def test_what_is_asked_for_is_taken(
    measured: dict[str, float], asked: Precision, capsys: pytest.CaptureFixture[str]
) -> None:
    """It is not compared with the other, and nothing is said; only its pace is measured, which tells the epochs."""
    measured[asked] = 7.0
    assert choose_precision(asked, tiny, 4) == Pace(asked, 7.0)
    assert capsys.readouterr().out == ""


@pytest.mark.parametrize("name", ["float32", "bfloat16"])
def test_a_network_is_measured_and_not_kept(name: Precision) -> None:
    """A few real steps give a number of pictures a second, in the arithmetic that was asked for."""
    made = []

    def make() -> keras.Model:
        made.append(keras.mixed_precision.global_policy().compute_dtype)
        return tiny()

    assert choose_precision(name, make, 4).pictures > 0
    assert made == [name]
