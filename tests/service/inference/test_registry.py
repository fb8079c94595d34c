"""The registry, with real model versions in a real folder."""

import errno
import os
import shutil
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import openvino
import pytest

from artifact import Familiarity, Int8, Metadata, draft, read_metadata
from artifact.layout import INT8_MODEL, METADATA, SAVED_MODEL
from service.inference.batcher import MOST_FAILURES, Batcher
from service.inference.engine import Engine, Images, Probabilities, load
from service.inference.errors import EngineFailed, ModelUnavailable
from service.inference.evidence import EvidenceNetwork
from service.inference.items import Item
from service.inference.models import Memory, Models
from service.inference.pace import Pace
from service.inference.registry import Registry
from service.inference.trials import AGAIN_SECONDS
from service.inference.watch import spare_memory
from service.web.services import Services
from tests.meanwhile import meanwhile
from tests.models import LABELS, SIDE, copy, publish_int8
from tests.service.conftest import MakeServices
from tests.service.running import wait_for
from tests.users import as_nobody

OTHER = ("cherry", "grass", "sky")


@pytest.fixture
def services(services_of: MakeServices, models: Path) -> Services:
    """The parts of a service that has loaded version 1."""
    return services_of(model_dir=models)


@pytest.fixture
def registry(services: Services) -> Registry:
    """A registry that has loaded version 1."""
    return services.registry


def red_is(services: Services) -> str:
    """Return the label that a red picture gets."""
    picture = np.full((SIDE, SIDE, 3), (255, 0, 0), np.uint8)
    with services.registry.use() as model:
        row = services.predictor.predict_one(model, Item(picture), services.deadline())
        return model.metadata.labels[int(np.argmax(row))]


def serving(registry: Registry) -> int | None:
    """Return the version that answers."""
    return registry.current.version if registry.current else None


def test_newest_version_is_taken(services_of: MakeServices, models: Path, published: Path) -> None:
    """Of several versions the highest by number answers: 10 comes after 9."""
    copy(published, models, 9)
    copy(published, models, 10, OTHER)
    services = services_of(model_dir=models)
    assert serving(services.registry) == 10
    assert services.registry.available == [1, 9, 10]
    assert red_is(services) == "cherry"


def test_new_version_takes_over(services: Services, models: Path, published: Path) -> None:
    """A version that appears is loaded and answers from then on; removing it brings the one before back."""
    assert red_is(services) == "red"
    newer = copy(published, models, 2, OTHER)
    services.registry.refresh()
    assert red_is(services) == "cherry"
    shutil.rmtree(newer)
    services.registry.refresh()
    assert red_is(services) == "red"
    assert serving(services.registry) == 1


def test_request_in_progress_keeps_its_version(services: Services, models: Path, published: Path) -> None:
    """Who began with a version can finish with it; it is released when the last one is done."""
    with services.registry.use() as first:
        with services.registry.use() as second:
            copy(published, models, 2, OTHER)
            services.registry.refresh()
            assert second is first
        assert red_is(services) == "cherry"
        picture = np.full((SIDE, SIDE, 3), (255, 0, 0), np.uint8)
        row = services.predictor.predict_one(first, Item(picture), services.deadline())
        assert first.metadata.labels[int(np.argmax(row))] == "red"
    first.batcher.join(10)
    with pytest.raises(ModelUnavailable):
        first.batcher.submit(picture[np.newaxis], services.deadline())


def cut_weights(version: Path) -> None:
    """Take the last byte from the weights."""
    weights = next((version / "variables").glob("*.data*"))
    weights.write_bytes(weights.read_bytes()[:-1])


def wrong_labels(version: Path) -> None:
    """Take a label from the metadata."""
    text = (version / METADATA).read_text()
    (version / METADATA).write_text(text.replace('"red", ', ""))


def instead(name: str, make: Callable[[Path], object]) -> Callable[[Path], None]:
    """Return what puts something else in the place of a version's file ``name``."""

    def damage(version: Path) -> None:
        file = version / name
        file.unlink()
        make(file)

    return damage


def link(target: str) -> Callable[[Path], object]:
    """Return what makes a link to ``target``."""
    return lambda file: file.symlink_to(target)


def unreadable(version: Path) -> None:
    """Put a file in the place of the version's innermost folder, so that nothing below it can be read."""
    shutil.rmtree(version / "variables")
    (version / "variables").touch()


BREAK = [
    pytest.param(lambda version: (version / SAVED_MODEL).unlink(), "saved_model.pb is missing", id="no-model"),
    pytest.param(lambda version: (version / METADATA).unlink(), "metadata.json is missing", id="no-metadata"),
    pytest.param(lambda version: (version / METADATA).write_text("{"), "not JSON", id="metadata-cut"),
    pytest.param(cut_weights, "differs from its sha256", id="weights-cut"),
    pytest.param(wrong_labels, "2 labels, but the model has 3", id="wrong-labels"),
    pytest.param(instead(METADATA, os.mkfifo), "no regular file", id="metadata-pipe"),
    pytest.param(instead(METADATA, Path.mkdir), "no regular file", id="metadata-folder"),
    pytest.param(instead(METADATA, link("/")), "no regular file", id="metadata-root"),
    pytest.param(instead(METADATA, link("/dev/zero")), "no regular file", id="metadata-endless"),
    pytest.param(instead(METADATA, link("metadata.json")), "cannot be read", id="metadata-circle"),
    pytest.param(instead(METADATA, link("gone")), "metadata.json is missing", id="metadata-dangling"),
    pytest.param(instead(SAVED_MODEL, os.mkfifo), "no regular file", id="model-pipe"),
    pytest.param(instead(SAVED_MODEL, link("gone")), "saved_model.pb is missing", id="model-dangling"),
    pytest.param(lambda version: os.truncate(version / SAVED_MODEL, 2**40), "more than", id="model-terabyte"),
    pytest.param(lambda version: os.mkfifo(version / "variables" / "more"), "no regular file", id="stray-pipe"),
    pytest.param(unreadable, "cannot be read", id="unreadable"),
]


@pytest.mark.parametrize(("damage", "reason"), BREAK)
def test_bad_version_is_kept_out(
    services: Services, models: Path, published: Path, damage: Callable[[Path], object], reason: str
) -> None:
    """A bad version never answers; the reason is kept and the one before goes on. When it is mended it is taken."""
    registry = services.registry
    bad = copy(published, models, 2, LABELS)
    damage(bad)
    registry.refresh()
    assert serving(registry) == 1
    assert red_is(services) == "red"
    assert [refusal.version for refusal in registry.refused] == [2]
    assert reason in registry.refused[0].reason
    assert services.metrics.registry.get_sample_value("darkroom_refused_versions", {"model": "colours"}) == 1

    shutil.rmtree(bad)
    registry.refresh()
    assert registry.refused == []
    assert services.metrics.registry.get_sample_value("darkroom_refused_versions", {"model": "colours"}) == 0

    copy(published, models, 2, OTHER)
    registry.refresh()
    assert red_is(services) == "cherry"


@pytest.mark.parametrize(("damage", "reason"), BREAK)
def test_bad_version_at_the_start(
    services_of: MakeServices, models: Path, published: Path, damage: Callable[[Path], object], reason: str
) -> None:
    """A service that starts with it serves the version before, and tells why."""
    damage(copy(published, models, 2, LABELS))
    services = services_of(model_dir=models)
    assert serving(services.registry) == 1
    assert [refusal.version for refusal in services.registry.refused] == [2]
    assert reason in services.registry.refused[0].reason


def test_a_stray_link_does_not_matter(services: Services, models: Path, published: Path) -> None:
    """A link to nothing, or to a folder that leads back, is no fault where no file of the version is meant."""
    version = copy(published, models, 2, OTHER)
    (version / "notes").symlink_to("gone")
    (version / "up").symlink_to("..")
    services.registry.refresh()
    assert red_is(services) == "cherry"


def test_files_may_be_links_to_blobs(services: Services, models: Path, published: Path) -> None:
    """A version in the layout of Hugging Face's cache is served, with its int8 network as well."""
    publish_int8(published, models)
    version = copy(models / "colours" / "2", models, 3, OTHER)
    blobs = models / "blobs"
    blobs.mkdir()
    for number, file in enumerate([file for file in version.rglob("*") if file.is_file()]):
        file.rename(blobs / str(number))
        file.symlink_to(os.path.relpath(blobs / str(number), file.parent))
    services.registry.refresh()
    assert serving(services.registry) == 3
    assert red_is(services) == "cherry"


def test_a_version_that_may_not_be_read(services_of: MakeServices, models: Path, published: Path) -> None:
    """The one before is served until it may, also where a folder beside the models may not be read."""
    version = copy(published, models, 2, OTHER)
    (models / "lost+found").mkdir(mode=0o700)
    (version / "variables").chmod(0)
    with as_nobody(models):
        services = services_of(model_dir=models)
        assert serving(services.registry) == 1
        assert "cannot be read" in services.registry.refused[0].reason
    (version / "variables").chmod(0o755)
    with as_nobody(models):
        services.registry.refresh()
        assert serving(services.registry) == 2


def test_a_version_that_is_copied_slowly(services: Services, models: Path, published: Path) -> None:
    """While its files come one after the other it is kept out, and when the last one is whole it is taken."""
    whole = copy(published, models.with_name("elsewhere"), 2, OTHER)
    target = models / "colours" / "2"
    files = sorted(file.relative_to(whole) for file in whole.rglob("*") if file.is_file())
    for name in files:
        (target / name).parent.mkdir(parents=True, exist_ok=True)
        content = (whole / name).read_bytes()
        for part in (content[: len(content) // 2], content):
            assert serving(services.registry) == 1
            (target / name).write_bytes(part)
            services.registry.refresh()
    assert serving(services.registry) == 2
    assert red_is(services) == "cherry"


def test_a_version_that_goes_and_comes_back(services: Services, models: Path, published: Path) -> None:
    """It is taken again, whether or not it is the same."""
    version = copy(published, models, 2, OTHER)
    services.registry.refresh()
    for _ in range(2):
        version.rename(version.with_name(".2"))
        services.registry.refresh()
        assert red_is(services) == "red"
        version.with_name(".2").rename(version)
        services.registry.refresh()
        assert red_is(services) == "cherry"
    shutil.rmtree(version)
    copy(published, models, 2, ("berry", "grass", "sky"))
    services.registry.refresh()
    assert red_is(services) == "berry"


def test_a_version_that_changes_while_it_is_loaded(models: Path, services: Services, published: Path) -> None:
    """What was checked may not be what the engine has read, so it is kept out, and taken at the next look."""
    version = copy(published, models, 2)

    def load_engine(path: Path) -> Engine:
        if path.name == "2" and not (version / "more").exists():
            (version / "more").touch()
        return load("openvino", path, "float32", 1)

    def make_batcher(engine: Engine, path: Path, metadata: Metadata, pace: Pace) -> Batcher:
        observer = services.metrics.of_engine("colours", int(path.name), metadata, path)
        return Batcher(engine, 10, observer, pace=pace)

    registry = Registry(models, "colours", None, load_engine, make_batcher, services.metrics)
    registry.refresh()
    assert serving(registry) == 1
    assert registry.refused[0].reason == "it was changed while it was read"
    registry.refresh()
    assert serving(registry) == 2
    registry.close()


def test_a_clock_that_is_set_back(
    services: Services, models: Path, published: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The hour of the day has no part in what is taken, and files from the future are files."""
    monkeypatch.setattr(time, "time", lambda: 1000.0)
    version = copy(published, models, 2, OTHER)
    for file in (version, *version.rglob("*")):
        os.utime(file, (2**32, 2**32))
    services.registry.refresh()
    assert red_is(services) == "cherry"
    copy(published, models, 3, LABELS)
    services.registry.refresh()
    assert red_is(services) == "red"


def test_a_refusal_that_may_pass_is_forgotten(
    services: Services, models: Path, published: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What kept a version out and is no fault of its files, such as a disk that did not answer, may be over later."""
    copy(published, models, 2, OTHER)
    with monkeypatch.context() as patched:
        patched.setattr("artifact.files.os.fdopen", _broken_disk)
        services.registry.refresh()
    assert "Input/output error" in services.registry.refused[0].reason
    services.registry.refresh()
    assert red_is(services) == "red"
    now = time.monotonic
    monkeypatch.setattr(time, "monotonic", lambda: now() + AGAIN_SECONDS)
    services.registry.refresh()
    assert red_is(services) == "cherry"


def _broken_disk(*_: object, **__: object) -> None:
    raise OSError(errno.EIO, os.strerror(errno.EIO))


def test_precision_that_a_version_lacks(services_of: MakeServices, models: Path, published: Path) -> None:
    """With PRECISION=int8 a version without an int8 network is kept out, and the next that has one answers."""
    services = services_of(model_dir=models, precision="int8")
    assert serving(services.registry) is None
    assert services.registry.refused[0].reason == "it has no int8 network, and PRECISION is int8"
    publish_int8(published, models)
    services.registry.refresh()
    assert serving(services.registry) == 2
    assert services.registry.current is not None
    assert services.registry.current.engine.precision == "int8"


def test_refused_version_is_not_tried_again(
    registry: Registry, models: Path, published: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """A bad version is tried once, and again only when its files have changed."""
    bad = copy(published, models, 2)
    (bad / METADATA).write_text("{")
    for _ in range(3):
        registry.refresh()
    assert [record.message for record in caplog.records if "kept out" in record.message] == [
        f"version 2 of colours is kept out: {registry.refused[0].reason}"
    ]
    (bad / METADATA).write_text("[]")
    registry.refresh()
    assert "not a JSON object" in registry.refused[0].reason


class Nonsense:
    """An engine whose answers are no probabilities."""

    name = "nonsense"
    precision = "float32"
    streams = 1
    embedding = 0
    measured: Mapping[str, float] = {}
    explaining: Callable[[], EvidenceNetwork] | None = None

    def predict(self, images: Images, stream: int | None = None, *, embedding: bool = False) -> Probabilities:
        """Return what is not even a number."""
        return np.full((len(images), len(LABELS)), np.nan, np.float32)


def test_model_that_does_not_answer_probabilities_is_kept_out(services: Services, models: Path) -> None:
    """A version whose files are whole, but whose answers are no probabilities, fails its warm-up."""

    def no_batcher(engine: Engine, *_: object) -> Batcher:
        pytest.fail(f"{engine.name} passed the warm-up")

    registry = Registry(models, "colours", None, lambda _: Nonsense(), no_batcher, services.metrics)
    registry.refresh()
    assert registry.current is None
    assert "not probabilities" in registry.refused[0].reason
    assert "version 1" in registry.reason


def test_version_that_changes_on_disk(services: Services, models: Path, published: Path) -> None:
    """A version replaced by another one of the same number is loaded anew; damaged in place, it stays as it was."""
    shutil.rmtree(models / "colours" / "1")
    copy(published, models, 1, OTHER)
    services.registry.refresh()
    assert red_is(services) == "cherry"
    copy(published, models, 3, LABELS)
    services.registry.refresh()
    cut_weights(models / "colours" / "3")
    services.registry.refresh()
    assert serving(services.registry) == 3
    assert red_is(services) == "red"
    assert [refusal.version for refusal in services.registry.refused] == [3]


def test_pinned_version(services_of: MakeServices, models: Path, published: Path) -> None:
    """A pinned version answers though there is a newer one, and is waited for where it is missing."""
    copy(published, models, 2, OTHER)
    assert red_is(services_of(model_dir=models, model_version=1)) == "red"
    waiting = services_of(model_dir=models, model_version=5)
    assert waiting.registry.current is None
    assert "version 5" in waiting.registry.reason
    copy(published, models, 5, OTHER)
    waiting.registry.refresh()
    assert red_is(waiting) == "cherry"


def test_without_a_model(services_of: MakeServices, tmp_path: Path, published: Path) -> None:
    """Without a model there is a reason, and the first one that appears is taken."""
    services = services_of(model_dir=tmp_path / "nowhere")
    with pytest.raises(ModelUnavailable, match="no model in the folder"):
        red_is(services)
    copy(published, tmp_path / "nowhere", 1)
    services.models.refresh()
    assert red_is(services) == "red"


def test_a_network_without_the_score_is_kept_out(services_of: MakeServices, models: Path, published: Path) -> None:
    """Where the metadata has a threshold and the int8 network no score to hold against it, the version is refused."""
    threshold = Familiarity(4.0, share=0.95, measured_on="none", images=0)
    int8 = Int8("none", images=0, accuracy=0.0, float32_accuracy=0.0, calibration_images=0)
    network = openvino.Core().read_model(published)
    silent = openvino.Model([network.output("probabilities").node.input_value(0)], network.get_parameters())
    with draft(models, "colours") as version:
        shutil.copytree(published, version.path, dirs_exist_ok=True)
        openvino.save_model(silent, version.path / INT8_MODEL)
        version.publish(replace(read_metadata(published), int8=int8, familiarity=threshold))
    services = services_of(model_dir=models, precision="int8", model_name="colours")
    assert "familiarity" in {refusal.version: refusal.reason for refusal in services.registry.refused}[2]


def test_everything_removed_keeps_the_last(services: Services, models: Path) -> None:
    """A folder that is emptied, as when a volume is unmounted, does not stop a service that has its model in memory."""
    shutil.rmtree(models / "colours")
    services.registry.refresh()
    assert red_is(services) == "red"


class Mortal:
    """An engine that may be made to fail."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self.name, self.precision, self.streams = engine.name, engine.precision, engine.streams
        self.embedding, self.measured, self.explaining = engine.embedding, engine.measured, engine.explaining
        self.fault: BaseException | None = None

    def predict(self, images: Images, stream: int | None = None, *, embedding: bool = False) -> Probabilities:
        """Answer as the engine does, or fail."""
        if self.fault is not None:
            raise self.fault
        return self._engine.predict(images, stream, embedding=embedding)


@pytest.fixture
def engines(monkeypatch: pytest.MonkeyPatch) -> list[Mortal]:
    """The engines that are loaded in a test, in order."""
    loaded: list[Mortal] = []

    def load_mortal(*arguments: Any) -> Mortal:
        loaded.append(Mortal(load(*arguments)))
        return loaded[-1]

    monkeypatch.setattr("service.app.load", load_mortal)
    return loaded


def fail(services: Services, engine: Mortal, fault: BaseException | None = None) -> None:
    """Let ``engine`` fail until it counts as dead."""
    engine.fault = fault or RuntimeError("its memory is gone")
    for _ in range(MOST_FAILURES):
        with pytest.raises(EngineFailed):
            red_is(services)


def counted(services: Services, name: str, version: int) -> float | None:
    """Return what was counted of a version."""
    return services.metrics.registry.get_sample_value(
        f"darkroom_{name}_total", {"model": "colours", "version": str(version)}
    )


@pytest.mark.parametrize("fault", [RuntimeError("dead"), SystemExit(1)])
def test_a_dead_engine_is_loaded_anew(
    services_of: MakeServices, models: Path, engines: list[Mortal], fault: BaseException
) -> None:
    """Where the engine fails each time, the service is not ready, and the next look loads the version anew."""
    services = services_of(model_dir=models)
    assert services.registry.unready is None
    fail(services, engines[0], fault)
    assert services.registry.unready == "The engine of version 1 fails; it is loaded anew."
    services.registry.refresh()
    assert services.registry.unready is None
    assert red_is(services) == "red"
    assert len(engines) == 2
    assert counted(services, "engine_failures", 1) == MOST_FAILURES
    assert counted(services, "engine_reloads", 1) == 1


def test_an_engine_that_goes_on_failing(
    services_of: MakeServices, models: Path, published: Path, engines: list[Mortal]
) -> None:
    """Where loading a version anew did not help, it is kept out, and the one before answers."""
    copy(published, models, 2, OTHER)
    services = services_of(model_dir=models)
    for engine in (0, 1):
        fail(services, engines[engine])
        services.registry.refresh()
    assert red_is(services) == "red"
    assert services.registry.unready is None
    assert services.registry.refused[0].reason == "its engine fails, also after it was loaded anew"
    services.registry.refresh()
    assert serving(services.registry) == 1
    assert len(engines) == 3


def test_an_engine_that_goes_on_failing_without_another(
    services_of: MakeServices, models: Path, engines: list[Mortal], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where there is no other version it is loaded anew now and then, and not at each look."""
    services = services_of(model_dir=models)
    for engine in (0, 1):
        fail(services, engines[engine])
        services.registry.refresh()
        services.registry.refresh()
    assert len(engines) == 2
    assert services.registry.unready is not None
    assert (
        services.metrics.registry.get_sample_value("darkroom_model_workers", {"model": "colours", "version": "1"}) == 0
    )
    now = time.monotonic
    monkeypatch.setattr(time, "monotonic", lambda: now() + 61)
    services.registry.refresh()
    assert len(engines) == 3
    assert services.registry.unready is None
    assert services.registry.refused == []
    assert (
        services.metrics.registry.get_sample_value("darkroom_model_workers", {"model": "colours", "version": "1"}) == 1
    )


def test_a_look_that_does_not_end_is_told(services: Services, models: Path) -> None:
    """While a look goes on, as on a network's disk that does not answer, the time of the last one stands still."""
    answers = threading.Event()

    def load_engine(_: Path) -> Engine:
        answers.wait(20)
        return Nonsense()

    def make_batcher(*_: object) -> Batcher:
        pytest.fail("it answers nonsense")

    def looked() -> float:
        return services.metrics.registry.get_sample_value("darkroom_model_looked_timestamp_seconds") or 0.0

    def make_registry(name: str | None) -> Registry:
        return Registry(models, name, None, load_engine, make_batcher, services.metrics)

    followed = Models(models, None, "colours", make_registry, services.metrics, Memory(None, spare_memory))
    before = looked()
    followed.start(poll_seconds=0.05)
    followed.wait(patience=0.1)
    started = looked()
    assert started > before
    time.sleep(0.3)
    assert looked() == started
    answers.set()
    deadline = time.monotonic() + 10
    while looked() == started:
        assert time.monotonic() < deadline
        time.sleep(0.01)
    followed.close()


def test_swaps_under_load_lose_nothing(services: Services, models: Path, published: Path) -> None:
    """While versions come and go, every request is answered by one of them."""
    answers: set[str] = set()

    def ask(stop: threading.Event) -> None:
        while not stop.is_set():
            answers.add(red_is(services))

    with meanwhile(*[ask] * 4):
        for version in range(2, 7):
            copy(published, models, version, OTHER if version % 2 else LABELS)
            services.registry.refresh()
    assert answers == {"red", "cherry"}


def test_start_follows_the_folder(services_of: MakeServices, models: Path, published: Path) -> None:
    """Once started, the registry finds versions by itself, and it stops when it is closed."""
    services = services_of(model_dir=models)
    services.models.start(poll_seconds=0.05)
    services.models.wait(patience=10)
    copy(published, models, 2, OTHER)
    for _ in range(200):
        if serving(services.registry) == 2:
            break
        threading.Event().wait(0.05)
    assert red_is(services) == "cherry"
    services.models.close()
    with pytest.raises(ModelUnavailable, match="stopping"):
        red_is(services)


def test_a_dead_engine_is_noticed_at_once(services_of: MakeServices, models: Path, engines: list[Mortal]) -> None:
    """However seldom the folder is looked at, an engine that fails is loaded anew within a second or two."""
    services = services_of(model_dir=models)
    services.models.start(60.0)
    fail(services, engines[0])
    begun = time.monotonic()
    wait_for(lambda: services.registry.unready is None, lambda: "it is not loaded anew")
    fail(services, engines[1])
    wait_for(lambda: services.registry.refused != [], lambda: "the second time is not noticed")
    assert time.monotonic() - begun < 10


def test_a_look_without_memory_is_not_the_last(
    services_of: MakeServices, models: Path, published: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where there is no memory even to wait for the next look, new versions are still found after that."""
    services = services_of(model_dir=models)

    def fail(_: float) -> None:
        monkeypatch.undo()
        raise MemoryError

    monkeypatch.setattr(services.models, "_pause", fail)
    services.models.start(0.05)
    copy(published, models, 2, OTHER)
    wait_for(lambda: serving(services.registry) == 2, lambda: "it is not found")


def no_memory(*_: object, **__: object) -> None:
    """Fail as where there is no memory."""
    raise MemoryError


def test_memory_that_is_short_when_an_engine_is_loaded_anew_keeps_nothing_out(
    services_of: MakeServices, models: Path, engines: list[Mortal], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The next look tries it again, of a version that was loaded before and is known to be good."""
    services = services_of(model_dir=models)
    fail(services, engines[0])

    with monkeypatch.context() as short:
        short.setattr(Batcher, "__init__", no_memory)
        services.registry.refresh()
    assert services.registry.unready is not None
    assert services.registry.refused == []
    services.registry.refresh()
    assert services.registry.unready is None
    assert red_is(services) == "red"
