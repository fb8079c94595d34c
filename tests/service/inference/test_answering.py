"""Which of the versions that are loaded answers, with real versions."""

import time
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pytest

from service.inference.answering import Answering, choose, find, tell
from service.inference.batcher import MOST_FAILURES
from service.inference.errors import EngineFailed, UnknownModel
from service.inference.loaded import LoadedModel
from service.inference.plan import Plan, write_plan
from tests.models import SIDE, copy
from tests.service.conftest import MakeServices

Loaded = Mapping[int, LoadedModel]

TWO = Plan(labels={"stable": 2, "canary": 3}, traffic={"stable": 90, "canary": 10})


@pytest.fixture
def loaded(services_of: MakeServices, models: Path, published: Path) -> Loaded:
    """Versions 1, 2 and 3 of the colours, loaded."""
    for version in (2, 3):
        copy(published, models, version)
    write_plan(models / "colours", Plan("all"))
    return {model.version: model for model in services_of(model_dir=models).registry.loaded}


def chosen(plan: Plan, loaded: Loaded, before: Answering | None = None) -> Answering:
    """Return which versions answer, where there are some."""
    answering = choose(plan, loaded, before)
    assert answering is not None
    return answering


def shares(answering: Answering) -> dict[int, float]:
    """Return the share of each version by its number."""
    return {model.version: share for model, share in answering.shares}


def without(loaded: Loaded, *versions: int) -> Loaded:
    """Return what is loaded besides ``versions``."""
    return {version: model for version, model in loaded.items() if version not in versions}


def test_nothing_loaded_answers_nothing() -> None:
    """Without a version there is none to choose, whatever the plan says."""
    assert choose(TWO, {}, None) is None


def test_the_newest_answers_where_the_plan_asks_for_none(loaded: Loaded) -> None:
    """It takes the place of the one before, and so does an older one, once it is the newest that is left."""
    answering = chosen(Plan(), loaded)
    assert (answering.default, shares(answering)) == (loaded[3], {3: 1.0})
    assert chosen(Plan(), without(loaded, 3), answering).default is loaded[2]


def test_the_newest_whose_engine_works_answers(loaded: Loaded, monkeypatch: pytest.MonkeyPatch) -> None:
    """One whose engine fails answers only where there is no other."""

    def die(*_: object, **__: object) -> None:
        raise RuntimeError("its memory is gone")

    monkeypatch.setattr(loaded[3].engine, "predict", die)
    for _ in range(MOST_FAILURES):
        with pytest.raises(EngineFailed):
            loaded[3].batcher.run(np.zeros((1, SIDE, SIDE, 3), np.uint8), time.monotonic() + 10)
    assert chosen(Plan(), loaded).default is loaded[2]
    assert chosen(Plan(), without(loaded, 1, 2)).default is loaded[3]


def test_shares_are_weights_of_what_is_there(loaded: Loaded) -> None:
    """They add up to 1 in any unit; a version that is missing, or that has no weight, gives its share to the others."""
    assert shares(chosen(TWO, loaded)) == {2: pytest.approx(0.9), 3: pytest.approx(0.1)}
    assert chosen(TWO, loaded).default is loaded[2]
    assert shares(chosen(TWO, without(loaded, 2))) == {3: 1.0}
    assert shares(chosen(Plan(traffic={"1": 3, "2": 0, "3": 1}), loaded)) == {1: 0.75, 3: 0.25}


def test_where_none_is_there_that_should_answer_the_one_before_goes_on(loaded: Loaded) -> None:
    """It is better known than a newer one that nobody asked for; where it is gone as well, the newest answers."""
    before = chosen(Plan(labels={"stable": 1}), loaded)
    missing = Plan(labels={"stable": 9})
    assert chosen(missing, loaded, before).default is loaded[1]
    assert chosen(missing, without(loaded, 1), before).default is loaded[3]
    assert chosen(missing, loaded).default is loaded[3]


def test_a_key_stays_with_its_version(loaded: Loaded) -> None:
    """A tenth of the keys has the canary, always the same ones, and keeps it as its share grows."""
    keys = [f"user {number}" for number in range(1000)]
    before = {key: chosen(TWO, loaded).pick(key).version for key in keys}
    assert before == {key: chosen(TWO, loaded).pick(key).version for key in keys}
    assert 60 < sum(version == 3 for version in before.values()) < 150
    halves = chosen(Plan(labels=TWO.labels, traffic={"stable": 50, "canary": 50}), loaded)
    after = {key: halves.pick(key).version for key in keys}
    assert all(after[key] == 3 for key in keys if before[key] == 3)
    assert 420 < sum(version == 3 for version in after.values()) < 580


def test_a_version_is_found_by_number_or_label(loaded: Loaded) -> None:
    """What is not found is told with what there is instead."""
    assert find(TWO, loaded, 1, "colours") is loaded[1]
    assert find(TWO, loaded, "canary", "colours") is loaded[3]
    with pytest.raises(UnknownModel, match="Version 4 of 'colours' is not served; versions 1, 2, 3 are"):
        find(TWO, loaded, 4, "colours")
    with pytest.raises(UnknownModel, match="Version 3, called 'canary', of 'colours' is not served; version 2 is"):
        find(TWO, without(loaded, 1, 3), "canary", "colours")
    with pytest.raises(UnknownModel, match="has the label '3'; the labels are: canary, stable"):
        find(TWO, loaded, "3", "colours")


def test_versions_know_their_labels_and_their_shadow(loaded: Loaded) -> None:
    """No version is its own shadow, and what is not loaded is nobody's."""
    tell(Plan(labels={"stable": 1, "former": 1, "next": 2}, shadow="next"), loaded)
    assert [loaded[version].labels for version in (1, 2, 3)] == [("stable", "former"), ("next",), ()]
    assert [loaded[version].shadow for version in (1, 2, 3)] == [2, None, 2]
    tell(Plan(shadow="9"), loaded)
    assert [(model.labels, model.shadow) for model in loaded.values()] == [((), None)] * 3
