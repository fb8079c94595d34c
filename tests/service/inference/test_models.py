"""All models of a folder side by side: which there are, which answers, and what happens where memory is short."""

import shutil
from pathlib import Path

import numpy as np
import pytest

from service.inference.errors import InvalidRequest, ModelLoading, ModelUnavailable, UnknownModel
from service.inference.items import Item
from service.inference.models import Readiness
from service.inference.plan import Plan, write_plan
from service.web.services import Services
from tests.models import LABELS, SIDE, copy
from tests.service.conftest import MakeServices
from tests.service.running import wait_for

RED = np.full((SIDE, SIDE, 3), (255, 0, 0), np.uint8)


@pytest.fixture
def several(models: Path, published: Path) -> Path:
    """A folder with the models colours, fruits and things."""
    copy(published, models, 1, ("cherry", *LABELS[1:]), name="fruits")
    copy(published, models, 4, ("brick", *LABELS[1:]), name="things")
    return models


def answer(services: Services, name: str | None = None) -> str:
    """Return what a model calls a red picture."""
    with services.models.use(name) as model:
        row = services.predictor.predict_one(model, Item(RED), services.deadline())
        return model.metadata.labels[int(np.argmax(row))]


def states(services: Services) -> dict[str, str]:
    """Return how each model stands."""
    return {
        registry.name or "": services.models.readiness(registry)[0].value for registry in services.models.registries
    }


def test_every_folder_is_a_model(services_of: MakeServices, several: Path) -> None:
    """Each answers by its name, and the default one where none is named."""
    services = services_of(model_dir=several, model_name="fruits")
    assert services.models.names == ["fruits", "colours", "things"]
    assert [answer(services, name) for name in (None, "colours", "fruits", "things")] == [
        "cherry",
        "red",
        "cherry",
        "brick",
    ]
    with pytest.raises(UnknownModel, match="no model 'pets' here; 'fruits', 'colours', 'things' are served"):
        answer(services, "pets")


def test_without_a_default_a_model_must_be_named(services_of: MakeServices, several: Path) -> None:
    """Of several models, none of them the bundled one, none is guessed; once one is left it is the default."""
    services = services_of(model_dir=several)
    with pytest.raises(InvalidRequest, match=r"several models, so say which one, as in \?model=colours"):
        answer(services)
    assert answer(services, "things") == "brick"
    assert services.models.unready is None
    for name in ("colours", "things"):
        shutil.rmtree(several / name)
    services.models.refresh()
    assert (answer(services), services.models.names) == ("cherry", ["fruits"])


def test_names_limit_the_models(services_of: MakeServices, several: Path) -> None:
    """What is not listed is not loaded."""
    services = services_of(model_dir=several, model_names=("things", "fruits"), model_name="things")
    assert services.models.names == ["things", "fruits"]
    with pytest.raises(UnknownModel):
        answer(services, "colours")


def test_models_come_and_go(services_of: MakeServices, several: Path, published: Path) -> None:
    """A folder that appears is served, one that is removed no more; an empty listing is taken for an accident."""
    services = services_of(model_dir=several, model_name="colours")
    copy(published, several, 1, ("rust", *LABELS[1:]), name="metals")
    shutil.rmtree(several / "fruits")
    services.models.refresh()
    assert services.models.names == ["colours", "things", "metals"]
    assert answer(services, "metals") == "rust"
    with pytest.raises(UnknownModel):
        answer(services, "fruits")
    several.rename(several.with_name("elsewhere"))
    services.models.refresh()
    assert [answer(services, name) for name in ("colours", "things", "metals")] == ["red", "brick", "rust"]


def test_one_bad_model_keeps_no_other_from_answering(services_of: MakeServices, several: Path) -> None:
    """It says why, and the others answer."""
    shutil.rmtree(several / "fruits" / "1" / "variables")
    services = services_of(model_dir=several, model_name="colours")
    assert services.models.of("fruits").unready is not None
    assert answer(services, "things") == "brick"
    with pytest.raises(ModelUnavailable, match="No version of fruits can be used; version 1"):
        answer(services, "fruits")


def test_versions_of_each_are_its_own(services_of: MakeServices, several: Path) -> None:
    """A label of one model says nothing of another."""
    write_plan(several / "things", Plan(labels={"stable": 4}))
    services = services_of(model_dir=several, model_name="colours")
    with services.models.use("things", "stable") as model:
        assert model.version == 4
    with pytest.raises(UnknownModel, match="No version of 'colours' has the label 'stable'; the labels are: none"):
        services.models.check("colours", "stable")


def test_models_are_unloaded_and_loaded_by_hand(services_of: MakeServices, several: Path) -> None:
    """What was unloaded answers with how to load it, and stays away at each look, until it is loaded."""
    services = services_of(model_dir=several, model_name="colours")
    services.models.unload("things")
    for _ in range(2):
        with pytest.raises(ModelUnavailable, match="unloaded; POST /v2/repository/models/things/load"):
            answer(services, "things")
        services.models.refresh()
    assert states(services)["things"] == Readiness.UNLOADED
    services.models.load("things")
    assert answer(services, "things") == "brick"
    with pytest.raises(UnknownModel):
        services.models.unload("pets")


@pytest.fixture
def followed(services_of: MakeServices, several: Path) -> Services:
    """A service with room for two of the three models, which follows the folder."""
    services = services_of(model_dir=several, model_name="colours", model_memory_mb=115)
    services.models.start(poll_seconds=0.1)
    services.models.wait(patience=20)
    return services


def wait_until_it_answers(services: Services, name: str) -> str:
    """Ask until a model is loaded; return what it calls a red picture."""
    told: list[str] = []

    def answers() -> bool:
        try:
            told.append(answer(services, name))
        except ModelLoading:
            return False
        return True

    wait_for(answers, lambda: f"{name} is not loaded")
    return told[0]


def test_what_does_not_fit_is_loaded_when_it_is_asked_for(followed: Services) -> None:
    """Of three models with room for two, the one unused for longest makes room, and the default one stays."""
    assert states(followed) == {"colours": "ready", "fruits": "ready", "things": "unloaded"}
    assert answer(followed, "fruits") == "cherry"
    with pytest.raises(ModelLoading, match="is being loaded"):
        answer(followed, "things")
    assert wait_until_it_answers(followed, "things") == "brick"
    assert states(followed) == {"colours": "ready", "fruits": "unloaded", "things": "ready"}
    assert wait_until_it_answers(followed, "fruits") == "cherry"
    assert states(followed) == {"colours": "ready", "fruits": "ready", "things": "unloaded"}
    assert answer(followed) == "red"


def test_what_fits_by_no_means_says_so(services_of: MakeServices, several: Path) -> None:
    """It is told how much it needs, at once when it is asked for again; the default model is loaded all the same."""
    services = services_of(model_dir=several, model_name="colours", model_memory_mb=30)
    services.models.start(poll_seconds=0.1)
    services.models.wait(patience=20)
    with pytest.raises(ModelLoading):
        answer(services, "things")
    things = services.models.of("things")
    wait_for(lambda: "no memory for it" in (services.models.readiness(things)[1] or ""), lambda: str(states(services)))
    with pytest.raises(ModelUnavailable, match="There is no memory for it: it needs about 49 MB"):
        answer(services, "things")
    assert answer(services) == "red"


def test_a_model_in_use_goes_when_it_is_done(followed: Services) -> None:
    """Who began with a model that makes room can finish with it."""
    with followed.models.use("fruits") as model:
        with pytest.raises(ModelLoading):
            answer(followed, "things")
        wait_for(lambda: model.retired, lambda: "fruits does not make room")
        row = followed.predictor.predict_one(model, Item(RED), followed.deadline())
        assert model.metadata.labels[int(np.argmax(row))] == "cherry"
