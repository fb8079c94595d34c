"""Heat maps tell what a network looks at: on photographs side by side, and with weights that know nothing.

The network is EfficientNet-Lite0 with ImageNet's weights and labels, as ``python -m training import`` publishes it, and
the photographs are parts of real ones. ``benchmarks/explanations.py`` does the same with any version and pictures.
"""

from pathlib import Path

import numpy as np
import pytest

from artifact import Input, read_metadata
from benchmarks.explanations import (
    Labelled,
    beside,
    correlation,
    cost_of,
    explaining,
    halves_found,
    in_jpeg,
    on_its_half,
    pairs_of,
)
from benchmarks.measuring import JPEG, Body
from service.inference.evidence import EvidenceNetwork
from tests.photographs import photographs

pytestmark = [pytest.mark.keras, pytest.mark.slow]

PAIRS = 50
SURE = 0.3  # of what is on a cutting


@pytest.fixture(scope="module")
def size(imagenet: Path) -> Input:
    """What the network takes."""
    return read_metadata(imagenet).input


@pytest.fixture(scope="module")
def network(imagenet: Path) -> EvidenceNetwork:
    """What explains it."""
    return explaining(imagenet)


@pytest.fixture(scope="module")
def cuttings(network: EvidenceNetwork, size: Input) -> list[Labelled]:
    """Parts of three photographs, each with the label that the network is sure of."""
    rng = np.random.default_rng(0)
    found: list[Labelled] = []
    for number in range(1000):
        photograph = photographs()[number % 3]
        side = int(rng.integers(250, 420))
        left, top = (int(rng.integers(length - side + 1)) for length in photograph.size)
        image = photograph.crop((left, top, left + side, top + side))
        [probabilities] = network.run(beside(image, image, size)[np.newaxis]).probabilities
        if probabilities.max() > SURE:
            found.append(Labelled(image, int(probabilities.argmax())))
        if len(found) == 3 * PAIRS:
            break
    return found


def test_maps_lie_on_the_half_of_their_picture(network: EvidenceNetwork, cuttings: list[Labelled], size: Input) -> None:
    """Of 100 maps of what is on one of two photographs side by side, at least 90 lie on its half."""
    pairs = pairs_of(cuttings, PAIRS)
    assert len(pairs) == PAIRS
    found = halves_found(network, pairs, size)
    assert len(found) == 2 * PAIRS
    assert sum(found) >= 90


@pytest.mark.parametrize("head_only", [True, False])
def test_random_weights_give_other_maps(
    imagenet: Path, network: EvidenceNetwork, cuttings: list[Labelled], size: Input, head_only: bool
) -> None:
    """With a head, or all weights, drawn anew, the maps are others: they show what was learned, and not just edges."""
    images = np.stack([beside(each.image, each.image, size) for each in cuttings[:30]])
    assert correlation(network, network, images) == pytest.approx(1)
    assert abs(correlation(network, explaining(imagenet, seed=0, head_only=head_only), images)) < 0.5


def test_random_weights_do_not_find_the_half(imagenet: Path, cuttings: list[Labelled], size: Input) -> None:
    """What knows nothing puts about as many maps on the wrong half: the test above tells the two apart."""
    found = halves_found(explaining(imagenet, seed=0), pairs_of(cuttings, PAIRS), size)
    assert 30 <= sum(found) <= 70


def test_a_half_has_more_than_half() -> None:
    """A map lies where most of what speaks for its label is, whatever speaks against it; the middle is nobody's."""
    evidence = np.array([[3, 9, -9], [0, 9, 2]], np.float32)
    assert on_its_half(evidence, right=False)
    assert not on_its_half(evidence, right=True)


@pytest.mark.process
@pytest.mark.timing
@pytest.mark.parametrize("pixels", [(640, 427), (1920, 1080), (4000, 3000)])
def test_an_explanation_takes_at_most_two_answers(imagenet: Path, pixels: tuple[int, int]) -> None:
    """Of a photograph, as numbers and as a picture, asked of a running service in turn with its labels."""
    body = Body(in_jpeg(photographs()[0].resize(pixels)), JPEG)
    answer, *explanations = cost_of(imagenet, body, requests=30).milliseconds.values()
    assert max(explanations) <= 2 * answer
