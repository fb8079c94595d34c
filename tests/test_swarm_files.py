"""What docker/swarm.yml promises, as far as it can be read; tests/stack/test_swarm.py runs it."""

import re
from pathlib import Path
from typing import Any

import pytest
import yaml

from service.settings import Settings


def load(file: Path) -> Any:
    """Return the definition of the service in a Compose file."""
    return yaml.safe_load(file.read_text(encoding="utf-8"))["services"]["service"]


@pytest.fixture
def swarm(root: Path) -> Any:
    """The service in docker/swarm.yml."""
    return load(root / "docker" / "swarm.yml")


def default(text: str) -> str:
    """Return what ``text`` is where no variable is set."""
    return re.sub(r"\$\{[A-Z_]+:-(.*?)\}", r"\1", text)


def test_a_replica_is_never_killed_while_it_drains(root: Path, swarm: Any) -> None:
    """Swarm waits longer than draining, the slowest request and gunicorn's margin take together."""
    environment = dict(default(pair).split("=") for pair in swarm["environment"])
    settings = Settings.from_environment(environment)
    assert settings.drain_seconds == 5
    grace = default(load(root / "docker-compose.yml")["stop_grace_period"])
    assert float(grace.removesuffix("s")) > settings.drain_seconds + settings.request_deadline + 5


def test_an_update_starts_first_and_is_watched_for_longer_than_health_takes(root: Path, swarm: Any) -> None:
    """Updates and rollbacks start the new replica first; a bad one is found out while Swarm watches, and undone."""
    update, rollback = swarm["deploy"]["update_config"], swarm["deploy"]["rollback_config"]
    assert update["order"] == rollback["order"] == "start-first"
    assert update["failure_action"] == "rollback"
    recipe = (root / "docker" / "service.Dockerfile").read_text(encoding="utf-8")
    check = re.search(r"HEALTHCHECK --interval=(\d+)s .*--retries=(\d+)", recipe)
    assert check
    for config in (update, rollback):
        assert config["parallelism"] == 1
        assert int(config["monitor"].removesuffix("s")) > int(check[1]) * int(check[2])


def test_a_swarm_publishes_what_compose_keeps_to_one_machine(root: Path, swarm: Any) -> None:
    """The mesh takes requests at every address of every node; the file that both read publishes nothing."""
    assert [default(port) for port in swarm["ports"]] == ["8000:8000"]
    assert "ports" not in load(root / "docker-compose.yml")


def test_the_documents_deploy_files_that_exist(root: Path) -> None:
    """Each ``docker stack deploy`` that people are told names files of the repository."""
    documents = [root / "docs" / "operations.md", *(root / "docker").glob("swarm*.yml")]
    for document in documents:
        commands = re.findall(r"docker stack deploy (.*)", document.read_text(encoding="utf-8"))
        assert commands, document
        for file in re.findall(r"-c (\S+)", " ".join(commands)):
            assert (root / file).is_file(), f"{document.name}: {file}"
