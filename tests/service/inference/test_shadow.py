"""A second version answers the same pictures: what is counted of it, and that nobody waits."""

import time
from pathlib import Path

import numpy as np
import pytest

from service.inference import shadow
from service.inference.engine import Images, Outputs
from service.inference.items import Item
from service.inference.plan import Plan, write_plan
from service.web.services import Services
from tests.models import LABELS, SIDE, copy
from tests.service.conftest import MakeServices
from tests.service.pictures import plain


@pytest.fixture
def services(services_of: MakeServices, models: Path, published: Path) -> Services:
    """A service whose version 2, which calls red cherry, answers in the shadow of version 1."""
    copy(published, models, 2, ("cherry", *LABELS[1:]))
    write_plan(models / "colours", Plan(labels={"stable": 1, "next": 2}, shadow="next"))
    return services_of(model_dir=models)


def ask(services: Services, *contents: bytes | np.ndarray) -> None:
    """Ask for pictures one by one, and wait until they are compared."""
    for content in contents:
        with services.models.use() as model:
            assert model.version == 1
            services.predictor.predict_one(model, Item(content), services.deadline())
    assert services.shadow.flush(10)


def counted(services: Services, outcome: str) -> float:
    """Return how many pictures had this outcome."""
    labels = {"model": "colours", "version": "1", "shadow": "2", "outcome": outcome}
    return services.metrics.registry.get_sample_value("darkroom_shadow_images_total", labels) or 0.0


def test_agreement_is_counted(services: Services) -> None:
    """Files and pixels are compared by their labels; of those that differ it is told which they were given."""
    pixels = np.full((SIDE, SIDE, 3), (255, 0, 0), np.uint8)
    ask(services, plain("green"), plain("blue"), plain("red"), pixels)
    assert (counted(services, "agreed"), counted(services, "disagreed")) == (2, 2)
    pair = {"model": "colours", "version": "1", "shadow": "2", "label": "red", "shadow_label": "cherry"}
    assert services.metrics.registry.get_sample_value("darkroom_shadow_disagreements_total", pair) == 2
    [compared] = services.metrics.compared("colours")
    assert (compared.version, compared.shadow, compared.outcomes) == (1, 2, {"agreed": 2, "disagreed": 2})


def test_batches_are_compared(services: Services) -> None:
    """Of a batch each good picture counts, and a bad one does not."""
    with services.models.use() as model:
        items = [Item(plain("red")), Item(b"no picture"), Item(plain("blue"))]
        services.predictor.predict_each(model, items, services.deadline())
    assert services.shadow.flush(10)
    assert (counted(services, "agreed"), counted(services, "disagreed"), counted(services, "failed")) == (1, 1, 0)


def test_nobody_waits_for_it(services: Services, monkeypatch: pytest.MonkeyPatch) -> None:
    """A second version that takes a second does not delay an answer, and beyond what may wait pictures are dropped."""
    monkeypatch.setattr(shadow, "_MOST_WAITING", 3)
    [_, second] = services.registry.loaded
    run = second.batcher.run

    def run_slowly(images: Images, deadline: float) -> Outputs:
        time.sleep(1)
        return run(images, deadline)

    monkeypatch.setattr(second.batcher, "run", run_slowly)
    started = time.monotonic()
    for _ in range(10):
        with services.models.use() as model:
            services.predictor.predict_one(model, Item(plain("red")), services.deadline())
    assert time.monotonic() - started < 0.9
    assert 6 <= counted(services, "dropped") <= 7


def test_a_second_version_that_fails_is_counted(services: Services, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its error is nobody's who asked, and the next picture is compared again."""
    [_, second] = services.registry.loaded
    with monkeypatch.context() as patched:

        def fail(*_: object) -> None:
            raise RuntimeError("broken")

        patched.setattr(second.batcher, "run", fail)
        ask(services, plain("red"))
    ask(services, plain("green"))
    assert (counted(services, "failed"), counted(services, "agreed")) == (1, 1)


def test_few_pairs_of_labels_are_counted_apart(services: Services, monkeypatch: pytest.MonkeyPatch) -> None:
    """Beyond a number of pairs the rest is one, so that a version of many labels does not flood Prometheus."""
    monkeypatch.setattr(shadow, "_MOST_PAIRS", 0)
    ask(services, plain("red"))
    pair = {"model": "colours", "version": "1", "shadow": "2", "label": shadow.OTHER, "shadow_label": shadow.OTHER}
    assert services.metrics.registry.get_sample_value("darkroom_shadow_disagreements_total", pair) == 1


def test_without_a_shadow_nothing_runs(services_of: MakeServices, models: Path) -> None:
    """No thread is started, and nothing is counted."""
    services = services_of(model_dir=models)
    ask(services, plain("red"))
    assert services.shadow._thread is None
    assert services.metrics.compared("colours") == []


@pytest.mark.parametrize("missing", ["thread", "memory to compare"])
def test_what_there_is_no_memory_for_costs_no_later_picture(
    services: Services, monkeypatch: pytest.MonkeyPatch, missing: str
) -> None:
    """A picture is not compared, whose answer nobody misses, and the next one is; nothing is held of the first."""

    def fail(*_: object) -> None:
        raise RuntimeError("can't start new thread") if missing == "thread" else MemoryError

    with monkeypatch.context() as short:
        target = "threading.Thread.start" if missing == "thread" else "service.inference.shadow.Shadow._compare"
        short.setattr(target, fail)
        ask(services, plain("red"))
    ask(services, plain("green"))
    assert counted(services, "agreed") == 1
    assert counted(services, "dropped") == (missing == "thread")
