"""What all tests share: a model version, and what not every machine has: CIFAR-10, a Docker engine, a browser."""

import functools
import os
import re
import shutil
import subprocess
import tempfile
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Browser, sync_playwright
from xdist.remote import Producer
from xdist.scheduler import LoadScopeScheduling

from machine import usable_cores
from tests.models import publish_both_in_a_process
from tests.reliability import campaign
from tests.shared import made_once

ROOT = Path(__file__).resolve().parent.parent
_MOST_WORKERS = 4  # each may hold TensorFlow and a training
_CONTAINERS = "containers"
# A browser drops its requests whenever a container comes or goes, so the files that have either go one after the other.
_MINDS_CONTAINERS = re.compile(r"mark\.containers\b|\bbrowser: Browser\b")


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add the option with which CI runs tests that depend on time a second time, and those of `make reliability`."""
    parser.addoption("--rerun-timing", action="store_true", help="run a failed test marked timing once more")
    parser.addoption("--whole", action="store_true", help="run the campaigns of tests/reliability as long as they are")
    parser.addoption("--write-screenshots", action="store_true", help="put the screenshots into docs/images/")
    parser.addoption("--write-found", action="store_true", help="write what they find into docs/reliability.md")


def pytest_configure(config: pytest.Config) -> None:
    """Let the processes that train under JAX share what they compile, which takes each of them a minute."""
    if "PYTEST_XDIST_WORKER" not in os.environ:
        compiled = tempfile.TemporaryDirectory(prefix="compiled-by-jax-")
        config.add_cleanup(compiled.cleanup)
        os.environ |= {
            "JAX_COMPILATION_CACHE_DIR": compiled.name,
            "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0",
            "JAX_PERSISTENT_CACHE_MIN_ENTRY_SIZE_BYTES": "-1",
        }


def pytest_xdist_auto_num_workers(config: pytest.Config) -> int:
    """Return how many workers ``--numprocesses`` starts: one for each core, with ``auto`` one more.

    Slow tests often wait for processes and containers; for the fast ones another worker would only import Keras again.
    """
    more = 1 if config.option.numprocesses == "auto" else 0
    return min(usable_cores() + more, _MOST_WORKERS)


class ByFile(LoadScopeScheduling):  # type: ignore[misc]
    """Give all tests of a file to one worker, so that what its fixtures start and train is made once."""

    def _split_scope(self, nodeid: str) -> str:
        return _scope(nodeid.partition("::")[0])


def pytest_xdist_make_scheduler(config: pytest.Config, log: Producer) -> ByFile:
    """Return what hands out the tests to the workers, in the order in which they were collected."""
    config.option.loadscopereorder = False
    return ByFile(config, log)


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Begin with what takes longest, so that no file is left for the end alone; rerun what depends on time."""
    if config.getoption("--rerun-timing"):
        for item in items:
            if item.get_closest_marker("timing"):
                item.add_marker(pytest.mark.flaky(reruns=1))
    long = [item for item in items for marker in ("slow", "process") if item.get_closest_marker(marker)]
    of_scope = Counter(map(_scope_of, long))
    items.sort(key=lambda item: -of_scope[_scope_of(item)])


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    """Print what the campaigns found, and write it where that is asked for."""
    outcomes = ("passed", "failed")
    records = campaign.found(report for outcome in outcomes for report in terminalreporter.getreports(outcome))
    if records:
        terminalreporter.section("campaigns")
    for record in records:
        terminalreporter.write_line(f"{record['name']}: {campaign.line(record)}")
    if config.getoption("--write-found"):
        campaign.write(records)


def _scope_of(item: pytest.Item) -> str:
    return _scope(item.nodeid.partition("::")[0])


@functools.cache
def _scope(file: str) -> str:
    """Return what names the tests that one worker runs one after the other: their file, or those with containers."""
    return _CONTAINERS if _MINDS_CONTAINERS.search((ROOT / file).read_text(encoding="utf-8")) else file


@pytest.fixture(scope="session")
def root() -> Path:
    """Return the root of the repository."""
    return ROOT


@pytest.fixture(scope="session")
def cifar10_archive() -> Path:
    """Return the path of ``cifar-10-python.tar.gz``, which the variable DARKROOM_CIFAR10 names."""
    name = os.environ.get("DARKROOM_CIFAR10")
    if not name:
        pytest.skip("DARKROOM_CIFAR10 does not name cifar-10-python.tar.gz")
    archive = Path(name)
    if not archive.is_file():
        pytest.fail(f"DARKROOM_CIFAR10 is {name!r}, and there is no such file")
    return archive


@pytest.fixture(scope="session")
def published(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A published version of a model that tells red, green and blue apart; not to be changed."""
    return made_once(tmp_path_factory, "published", publish_both_in_a_process) / "plain" / "colours" / "1"


@pytest.fixture(scope="session")
def embedding(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same, of a model that has an embedding as well; not to be changed."""
    return made_once(tmp_path_factory, "published", publish_both_in_a_process) / "embedding" / "colours" / "1"


@pytest.fixture(scope="session")
def smoke(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    """A version that the smoke preset trained, and what was printed; for tests marked keras, not to be changed."""
    from tests.training.conftest import SMOKE, call  # which import the trainer

    def train(folder: Path) -> None:
        code, printed, errors = call([*SMOKE, "--models", folder / "models", "--run", folder / "run"])
        assert code == 0, errors
        (folder / "printed").write_text(printed, encoding="utf-8")

    folder = made_once(tmp_path_factory, "smoke", train)
    return folder / "models" / "smoke" / "1", (folder / "printed").read_text(encoding="utf-8")


@pytest.fixture(scope="session")
def on_backbone(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A version that the trainer made of a network on a backbone, with int8; for tests marked keras, not to be changed.

    Its network in Keras is ``tests.training.backbones.published_network``.
    """
    from tests.training import backbones  # which imports Keras

    return made_once(tmp_path_factory, "on_backbone", backbones.publish) / "blots" / "1"


@pytest.fixture(scope="session")
def imagenet(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A version that knows what is in photographs: EfficientNet-Lite0 as it is; for tests marked keras."""
    from training.errors import Interruption
    from training.publish.pretrained import publish_pretrained  # which imports Keras

    def publish(folder: Path) -> None:
        publish_pretrained("EfficientNetLite0", folder, "imagenet", None, Interruption())

    return made_once(tmp_path_factory, "imagenet", publish) / "imagenet" / "1"


@pytest.fixture(scope="session")
def shared_models(published: Path) -> Path:
    """The model folder that tests read together; not to be changed."""
    return published.parent.parent


@pytest.fixture(scope="session")
def docker_engine() -> None:
    """Skip where containers cannot be run."""
    reason = _missing_docker()
    if reason:
        pytest.skip(reason)


@pytest.fixture(scope="session")
def browser() -> Iterator[Browser]:
    """Give a Chromium without a window."""
    chromium = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    if not chromium:
        pytest.skip("there is no chromium command")
    arguments = ["--no-sandbox"] if os.geteuid() == 0 else []  # the sandbox does not work for root
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chromium, args=arguments)
        yield browser
        browser.close()


def _missing_docker() -> str | None:
    """Say what is missing to run containers, or None where nothing is."""
    if not shutil.which("docker"):
        return "there is no docker command"
    for command, missing in (
        (["docker", "info"], "no Docker engine answers"),
        (["docker", "compose", "version"], "Docker has no Compose plugin"),
    ):
        if subprocess.run(command, capture_output=True, check=False, timeout=60).returncode:
            return missing
    return None
