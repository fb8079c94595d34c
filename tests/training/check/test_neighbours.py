"""Neighbours are the same whatever the blocks, and outliers are those without any."""

import numpy as np
import pytest

from training.check import neighbours
from training.check.neighbours import directions, far_from_all, nearest, reduced


def test_neighbours_are_those_of_all_pairs(monkeypatch: pytest.MonkeyPatch) -> None:
    """A block at a time gives what the whole matrix would."""
    monkeypatch.setattr(neighbours, "_BLOCK", 7)
    unit = directions(np.random.default_rng(0).normal(size=(50, 8)).astype(np.float32))
    cosines = unit @ unit.T
    np.fill_diagonal(cosines, -np.inf)
    found = nearest(unit, 3)
    assert np.array_equal(found.places, np.argsort(-cosines, axis=1)[:, :3])
    assert np.allclose(found.cosines, np.sort(cosines, axis=1)[:, :-4:-1], atol=1e-6)


def test_what_has_no_company_is_told_also_with_its_copy() -> None:
    """Its copy is near to it, but is the same picture."""
    rng = np.random.default_rng(0)
    features = np.eye(6, 64)[np.arange(120) % 6] + rng.uniform(-0.1, 0.1, (120, 64))
    strange = np.zeros((1, 64))
    strange[0, 40:44] = 1
    unit = directions(np.concatenate([features, strange, strange]).astype(np.float32))
    groups = np.append(np.arange(121), 120)
    assert {place for place, _ in far_from_all(nearest(unit, 5), groups)} == {120, 121}
    assert far_from_all(nearest(unit[:120], 5), groups[:120]) == []


def test_a_single_picture_has_no_neighbours() -> None:
    """Neither fails."""
    found = nearest(np.ones((1, 4), np.float32), 5)
    assert found.places.shape == (1, 0)
    assert far_from_all(found, np.zeros(1, np.int64)) == []


def test_main_components_keep_distances() -> None:
    """Features of fewer dimensions than are kept lie as before."""
    features = np.random.default_rng(0).normal(size=(30, 300)).astype(np.float32)
    main = reduced(features)
    assert main.shape == (30, 256)
    assert np.allclose(main @ main.T, (features - features.mean(0)) @ (features - features.mean(0)).T, atol=1e-2)
