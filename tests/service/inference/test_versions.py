"""Several versions of a model that answer side by side, by what ``serving.json`` says."""

import collections
import shutil
import threading
from pathlib import Path

import numpy as np
import pytest

from service.inference.batcher import Batcher
from service.inference.errors import InvalidRequest, ModelUnavailable, UnknownModel
from service.inference.items import Item
from service.inference.plan import SERVING_FILE, Latest, Plan, write_plan
from service.web.services import Services
from tests.meanwhile import meanwhile
from tests.models import LABELS, SIDE, copy
from tests.service.conftest import MakeServices

RED = np.full((SIDE, SIDE, 3), (255, 0, 0), np.uint8)
NAMES = {1: "red", 2: "cherry", 3: "brick"}  # what each version calls red


@pytest.fixture
def three(models: Path, published: Path) -> Path:
    """The folder of models with versions 1, 2 and 3 of the colours."""
    for version in (2, 3):
        copy(published, models, version, (NAMES[version], *LABELS[1:]))
    return models


@pytest.fixture
def services(services_of: MakeServices, three: Path) -> Services:
    """A service that has looked at the three versions once."""
    return services_of(model_dir=three)


def follow(services: Services, plan: Plan) -> None:
    """Write ``plan`` beside the versions, and let the service look."""
    write_plan(services.models.folder / "colours", plan)
    services.models.refresh()


def loaded(services: Services) -> list[int]:
    """Return the versions that can answer."""
    return [model.version for model in services.registry.loaded]


def answer(services: Services, version: int | str | None = None, key: str | None = None) -> str:
    """Return what a red picture is called by a version, or by one of those that answer."""
    with services.models.use("colours", version, key) as model:
        row = services.predictor.predict_one(model, Item(RED), services.deadline())
        return model.metadata.labels[int(np.argmax(row))]


def test_the_newest_ones(services: Services, published: Path) -> None:
    """Two of them answer by number, the newest where none is named; a new one takes the place of the oldest."""
    assert loaded(services) == [3]
    follow(services, Plan(Latest(2)))
    assert loaded(services) == [2, 3]
    assert (answer(services), answer(services, 2), answer(services, 3)) == ("brick", "cherry", "brick")
    with pytest.raises(UnknownModel, match="Version 1 of 'colours' is not served; versions 2, 3 are"):
        answer(services, 1)
    copy(published, services.models.folder, 4, ("rust", *LABELS[1:]))
    services.models.refresh()
    assert loaded(services) == [3, 4]
    assert answer(services) == "rust"


@pytest.mark.parametrize("gone", ["folder", "plan"])
def test_no_request_gets_a_version_that_is_let_go(
    services: Services, monkeypatch: pytest.MonkeyPatch, gone: str
) -> None:
    """While the newest one goes, with its folder or by the plan, requests get the one that is left."""
    follow(services, Plan([2, 3]))
    names: list[str] = []
    close = Batcher.close

    def close_and_ask(batcher: Batcher) -> None:
        close(batcher)
        names.append(answer(services))

    monkeypatch.setattr(Batcher, "close", close_and_ask)
    if gone == "folder":
        shutil.rmtree(services.models.folder / "colours" / "3")
    follow(services, Plan(Latest(2)) if gone == "folder" else Plan([2]))
    assert names == ["cherry"]


def test_these_or_all_or_none(services: Services) -> None:
    """Versions are loaded by number, all of them, or none: then the model does not answer, and says so."""
    follow(services, Plan([1, 2]))
    assert loaded(services) == [1, 2]
    assert answer(services) == "cherry"
    follow(services, Plan("all"))
    assert loaded(services) == [1, 2, 3]
    follow(services, Plan([]))
    assert loaded(services) == []
    with pytest.raises(ModelUnavailable, match="names no version"):
        answer(services)
    follow(services, Plan())
    assert answer(services) == "brick"


def test_labels(services: Services) -> None:
    """A version answers by its label; the stable one answers where none is named, whatever is newer."""
    follow(services, Plan(labels={"stable": 1, "canary": 3}))
    assert loaded(services) == [1, 3]
    assert (answer(services), answer(services, "stable"), answer(services, "canary")) == ("red", "red", "brick")
    with pytest.raises(UnknownModel, match="has the label 'next'; the labels are: canary, stable"):
        answer(services, "next")
    follow(services, Plan(labels={"stable": 3, "canary": 3}))
    assert loaded(services) == [3]
    assert answer(services) == "brick"


def test_traffic_is_shared(services: Services) -> None:
    """Both versions are loaded, and of a thousand requests a tenth goes to the canary."""
    follow(services, Plan(labels={"stable": 2, "canary": 3}, traffic={"stable": 90, "canary": 10}))
    assert loaded(services) == [2, 3]
    assert services.registry.shares() == {2: pytest.approx(0.9), 3: pytest.approx(0.1)}
    counts = collections.Counter(services.registry.check().version for _ in range(2000))
    assert 130 < counts[3] < 280


def test_a_version_that_cannot_answer_gives_its_share_to_the_others(services: Services, published: Path) -> None:
    """A canary that is kept out gets no requests; where the stable one is not there, the one before goes on."""
    bad = copy(published, services.models.folder, 4)
    (bad / "saved_model.pb").unlink()
    follow(services, Plan(labels={"stable": 3, "canary": 4}, traffic={"stable": 1, "canary": 99}))
    assert services.registry.shares() == {3: 1.0}
    with pytest.raises(UnknownModel, match="Version 4, called 'canary', of 'colours' is not served; version 3 is"):
        answer(services, "canary")
    follow(services, Plan(labels={"stable": 9}))
    assert answer(services) == "brick"


def test_a_version_that_is_removed_goes_on_where_it_is_named(services: Services) -> None:
    """What a label names stays loaded though its folder is gone: an accident must not take a service down."""
    follow(services, Plan(labels={"stable": 2}))
    shutil.rmtree(services.models.folder / "colours" / "2")
    services.models.refresh()
    assert answer(services) == "cherry"


def test_a_file_that_cannot_be_followed_changes_nothing(services: Services, services_of: MakeServices) -> None:
    """The plan before goes on and the fault is told; where there was none before, the model is not served."""
    follow(services, Plan(labels={"stable": 1}))
    file = services.models.folder / "colours" / SERVING_FILE
    file.write_text('{"labels": {"stable": 2')
    services.models.refresh()
    assert answer(services) == "red"
    assert "truncated" in services.registry.plan_fault
    fresh = services_of(model_dir=services.models.folder)
    with pytest.raises(ModelUnavailable, match="cannot be followed: Input data was truncated"):
        answer(fresh)
    file.write_text('{"labels": {"stable": 2}}')
    for each in (services, fresh):
        each.models.refresh()
        assert (answer(each), each.registry.plan_fault) == ("cherry", "")


def test_a_pinned_version_goes_by_no_file(services_of: MakeServices, three: Path) -> None:
    """MODEL_VERSION is the last word."""
    write_plan(three / "colours", Plan(labels={"stable": 3}))
    services = services_of(model_dir=three, model_version=2)
    assert (loaded(services), answer(services)) == ([2], "cherry")


def test_changes_by_the_api_are_checked(services: Services) -> None:
    """A version that is not there cannot be named, and nothing is written."""
    with pytest.raises(InvalidRequest, match="There is no version 7 of 'colours'; there are: 1, 2, 3"):
        services.models.follow("colours", Plan(labels={"stable": 7}))
    assert not (services.models.folder / "colours" / SERVING_FILE).exists()
    services.models.follow("colours", Plan(labels={"stable": 1}))
    assert answer(services) == "red"


def test_changes_under_load_lose_nothing(services: Services) -> None:
    """While labels, shares and policies change, every request is answered by a version that was asked for."""
    answers: collections.Counter[str] = collections.Counter()

    def ask(stop: threading.Event) -> None:
        while not stop.is_set():
            answers[answer(services)] += 1

    with meanwhile(*[ask] * 4):
        for plan in (
            Plan(labels={"stable": 1, "canary": 3}, traffic={"stable": 1, "canary": 1}),
            Plan(labels={"stable": 3}),
            Plan(labels={"stable": 1}),
            Plan("all"),
            Plan([2]),
            Plan(labels={"stable": 1, "next": 2}, shadow="next"),
            Plan(),
        ):
            follow(services, plan)
    assert set(answers) == {"red", "cherry", "brick"}


def test_what_of_the_file_does_not_hold_is_counted(services: Services) -> None:
    """Each version that it names and that cannot answer, and a file that cannot be read; what holds is none."""

    def faults() -> float | None:
        return services.metrics.registry.get_sample_value("darkroom_serving_faults", {"model": "colours"})

    assert faults() == 0
    follow(services, Plan(labels={"stable": 2, "canary": 9, "next": 10}))
    assert faults() == 2
    (services.models.folder / "colours" / SERVING_FILE).write_text("{")
    services.models.refresh()
    assert (faults(), answer(services)) == (3, "cherry")
    follow(services, Plan(labels={"stable": 2}))
    assert faults() == 0
