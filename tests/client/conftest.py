"""Fixtures for the client: the real service, servers with a script, and the command as its users run it."""

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.client.command import Darkroom
from tests.client.scripted import Script, ScriptedServer, classified
from tests.service import conftest as of_service
from tests.service.running import start

models = of_service.models
start_service = of_service.start_service

StartScripted = Callable[..., ScriptedServer]


@pytest.fixture(scope="session")
def service_url(published: Path) -> Iterator[str]:
    """The address of a service with the colours model, which tests share."""
    running = start({"MODEL_DIR": str(published.parent.parent), "MODEL_NAME": "colours"})
    running.wait_until_ready()
    yield running.url
    running.kill()


@pytest.fixture
def darkroom(tmp_path: Path) -> Iterator[Darkroom]:
    """Runs ``python -m client`` in the test's folder; ends what still runs after the test."""
    command = Darkroom(tmp_path)
    yield command
    command.end()


@pytest.fixture
def start_scripted() -> Iterator[StartScripted]:
    """Starts servers whose answers the test decides; stops them after the test."""
    servers: list[ScriptedServer] = []

    def begin(script: Script = classified) -> ScriptedServer:
        servers.append(ScriptedServer(script))
        return servers[-1]

    yield begin
    for server in servers:
        server.stop()
