"""Which pictures are kept: a fair share by chance, and those that the model is not sure of."""

import random
from collections.abc import Callable
from typing import Any, cast

import numpy as np
import pytest

from artifact import Familiarity
from service.captures.choice import Choice
from service.inference.errors import InvalidImage
from service.inference.items import Item
from service.inference.loaded import LoadedModel
from tests.models import metadata


class Model:
    """What is looked at of a model that answers."""

    name, version = "colours", 3

    def __init__(self, threshold: float | None = None) -> None:
        record = metadata(self.name)
        known = None if threshold is None else Familiarity(threshold, share=0.95, measured_on="none", images=0)
        object.__setattr__(record, "familiarity", known)
        self.metadata = record


def chosen(
    outputs: list[Any],
    *,
    share: float = 0.0,
    margin: float = 0.2,
    threshold: float | None = None,
    chance: Callable[[], float] = random.random,
    contents: list[Any] | None = None,
) -> list[tuple[bytes, tuple[str, ...]]]:
    """Return what is kept of pictures with these outputs, and why."""
    items = [Item(content) for content in contents or [index.to_bytes(2) for index in range(len(outputs))]]
    rows = [np.array(output, np.float32) if isinstance(output, list) else output for output in outputs]
    found = Choice(share, margin, chance).among(cast(LoadedModel, Model(threshold)), items, rows)
    return [(one.content, one.reasons) for one in found]


@pytest.mark.parametrize(
    ("probabilities", "kept"),
    [
        ([0.9, 0.05, 0.05], False),
        ([0.55, 0.30, 0.15], False),
        ([0.45, 0.30, 0.25], True),
        ([0.30, 0.25, 0.45], True),
        ([0.59, 0.41, 0.0], True),
        ([0.61, 0.39, 0.0], False),
    ],
)
def test_a_small_lead_is_a_reason(probabilities: list[float], *, kept: bool) -> None:
    """What counts is how far the first label is before the second, wherever they stand."""
    assert chosen([probabilities]) == ([(b"\0\0", ("small_margin",))] if kept else [])


def test_a_picture_that_is_not_familiar_is_kept() -> None:
    """Below the version's threshold, and only where it has one."""
    outputs = [[0.9, 0.1, 0.0, 3.9], [0.9, 0.1, 0.0, 4.1]]
    assert chosen(outputs, threshold=4.0) == [(b"\0\0", ("unfamiliar",))]
    assert chosen([output[:3] for output in outputs]) == []


def test_chance_does_not_look_at_the_picture() -> None:
    """Each picture that was answered is drawn with the same probability, whatever else it would be kept for."""
    outputs = [[0.4, 0.35, 0.25, 0.0], [0.9, 0.1, 0.0, 9.0]] * 5000
    found = chosen(outputs, share=0.1, threshold=4.0, chance=random.Random(7).random)
    sure = sum(reasons == ("random",) for _, reasons in found)
    doubtful = sum(reasons == ("random", "unfamiliar", "small_margin") for _, reasons in found)
    assert 430 < sure < 570, "a tenth of 5,000, within three standard errors"
    assert 430 < doubtful < 570


def test_pixels_and_faults_are_not_kept() -> None:
    """There is no file of a tensor, and no answer to a damaged picture."""
    pixels = np.zeros((32, 32, 3), np.uint8)
    contents = [pixels, b"damaged", b"good"]
    outputs = [[0.9, 0.1, 0.0], InvalidImage("damaged"), [0.9, 0.1, 0.0]]
    assert chosen(outputs, share=1.0, contents=contents) == [(b"good", ("random",))]


def test_the_answer_is_kept_with_its_best_labels() -> None:
    """The most probable first, and what the version says of how familiar the picture is."""
    items, outputs = [Item(b"x")], [np.array([0.25, 0.35, 0.4, 3.0, 7.0], np.float32)]  # the last is an embedding's
    [one] = Choice(0.0, 0.2).among(cast(LoadedModel, Model(4.0)), items, outputs)
    answer = one.answer(12.5, "an-id")
    assert [(ranked.label, ranked.probability) for ranked in answer.predictions] == [
        ("blue", 0.4),
        ("green", 0.35),
        ("red", 0.25),
    ]
    assert (answer.model, answer.version, answer.familiarity, answer.familiar) == ("colours", 3, 3.0, False)
    assert (answer.reasons, answer.time, answer.request_id) == (["unfamiliar", "small_margin"], 12.5, "an-id")
