"""How large batches are follows from what they cost."""

from collections.abc import Callable, Mapping

import numpy as np
import pytest

from artifact import Input
from service.inference.engine import Images, Outputs
from service.inference.evidence import EvidenceNetwork
from service.inference.pace import Pace, measure, pace_of

SIZE = Input(4, 4)


class Machine:
    """An engine and the clock beside it: a batch takes 1 ms, and some more for each image."""

    name, precision, streams, embedding = "machine", "float32", 2, 0
    measured: Mapping[str, float] = {}
    explaining: Callable[[], EvidenceNetwork] | None = None

    def __init__(self, image: float) -> None:
        """Take the seconds for an image."""
        self._image = image
        self.now = 0.0

    def predict(self, images: Images, stream: int | None = None, *, embedding: bool = False) -> Outputs:
        """Let time pass."""
        assert stream == 0, "a core alone is what is measured"
        assert not embedding
        self.now += 0.001 + self._image * len(images)
        return np.zeros((len(images), 3), np.float32)


@pytest.mark.parametrize(
    ("fixed", "image", "pace"),
    [
        pytest.param(0.0005, 0.0003, Pace(), id="tiny-pictures"),
        pytest.param(0.0002, 0.006, Pace(company=1, long=2, most=8), id="photographs"),
        pytest.param(0.001, 0.001, Pace(company=3, long=10, most=32), id="between"),
        pytest.param(0.001, 0.003, Pace(company=1, long=3, most=17), id="heavy-with-much-that-is-fixed"),
        pytest.param(0.0, 0.2, Pace(company=1, long=1, most=1), id="very-heavy"),
        pytest.param(1.0, 0.00001, Pace(), id="very-light"),
    ],
)
def test_batches_are_as_large_as_is_worth_it(fixed: float, image: float, pace: Pace) -> None:
    """A core takes a batch alone from where nine tenths of it are images, and none takes longer than 50 ms."""
    assert pace_of(fixed, image) == pace


@pytest.mark.parametrize("image", [0.0005, 0.003, 0.1])
def test_what_is_measured_is_what_it_takes(image: float) -> None:
    """From batches of two sizes both costs are told apart."""
    machine = Machine(image)
    assert measure(machine, SIZE, lambda: machine.now) == pace_of(0.001, image)
