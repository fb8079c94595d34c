"""Diagrams have their values in the right places."""

import re

import numpy as np
import pytest

from training.evaluation.accuracy import by_confidence
from training.report import charts


def heights(svg: str, kind: str) -> list[float]:
    """Return how high the bars of a kind are, from left to right."""
    return [float(found) for found in re.findall(rf'<rect class="{kind}"[^>]* height="([\d.]+)"', svg)]


def test_bars_are_as_high_as_answers_are_right() -> None:
    """Of answers that are sure, four of five are right here; of doubtful ones half; the others have no bar."""
    sure, doubtful = np.tile([0.95, 0.05], (5, 1)), np.tile([0.55, 0.45], (2, 1))
    answers = np.concatenate([sure, doubtful]).astype(np.float32)
    svg = charts.reliability(by_confidence(answers, np.array([0, 0, 0, 0, 1, 0, 1])))
    doubt, certain = heights(svg, "bar")
    assert doubt / certain == pytest.approx(0.5 / 0.8, abs=0.01)
    counts = [height for height in heights(svg, "count") if height]
    assert counts[0] < counts[1]
    assert len(counts) == 2
    assert 'class="line-1"' not in svg
    before = by_confidence(sure.astype(np.float32), np.zeros(5, np.int64))
    assert 'class="line-1"' in charts.reliability(before, before)


@pytest.mark.parametrize("epochs", [1, 2, 9, 275, 3000])
def test_curves_stay_inside_whatever_their_length(epochs: int) -> None:
    """All points lie within the drawing, the axis names the first and the last epoch, and no two names meet."""
    values = np.linspace(2.5, 0.1, epochs).tolist()
    svg = charts.curves("loss", [("training", values), ("validation", values[::-1])])
    points = [
        tuple(map(float, point.split(","))) for line in re.findall(r'points="([^"]*)"', svg) for point in line.split()
    ]
    assert len(points) == 2 * epochs
    assert all(0 <= x <= 372 and 0 <= y <= 290 for x, y in points)
    names = re.findall(r'<text x="([\d.]+)" y="266.0" text-anchor="middle">(\d+)</text>', svg)
    assert (names[0][1], names[-1][1]) == ("1", str(epochs))
    places = [float(x) for x, _ in names]
    assert all(gap >= 20 for gap in np.diff(places))


def test_a_line_that_never_changes_is_drawn() -> None:
    """It lies in the middle."""
    svg = charts.curves("accuracy", [("training", [1.0, 1.0, 1.0])])
    assert 'points="44.0,130.0 196.0,130.0 348.0,130.0"' in svg
