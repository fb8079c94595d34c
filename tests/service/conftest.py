"""Fixtures for the service: a real model version, the application in this process, and the service as a process."""

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest
from flask import Flask
from flask.testing import FlaskClient
from prometheus_client import CollectorRegistry

from service.app import create_app, make_services
from service.observe.metrics import Metrics
from service.settings import Settings
from service.web.services import Services
from tests.models import copy
from tests.service.running import RunningService, start

MakeServices = Callable[..., Services]
StartService = Callable[..., RunningService]


@pytest.fixture
def models(published: Path, tmp_path: Path) -> Path:
    """A model folder of the test's own, with version 1 of the colours."""
    copy(published, tmp_path / "models", 1)
    return tmp_path / "models"


@pytest.fixture
def services_of() -> Iterator[MakeServices]:
    """Makes the parts of a service in this process, looks at the model folder once, and closes everything after."""
    with ExitStack() as stack:

        def make(*, draining: bool = False, **values: object) -> Services:
            # One precision, unless a test asks for another: compiling several to measure them takes most of a start.
            settings = Settings(**{"precision": "float32", **values})  # type: ignore[arg-type]  # by name
            services = make_services(settings, Metrics(CollectorRegistry()), draining=lambda: draining)
            stack.callback(services.close)
            services.models.refresh()
            return services

        yield make


@pytest.fixture(scope="session")
def app(shared_models: Path) -> Iterator[Flask]:
    """The application with the colours model and small limits."""
    settings = Settings(model_dir=shared_models, max_body_bytes=1_000_000, max_image_pixels=4_000_000, max_batch=100)
    services = make_services(settings, Metrics(CollectorRegistry()), draining=lambda: False)
    services.models.refresh()
    yield create_app(services)
    services.models.close()


@pytest.fixture
def telling(services_of: MakeServices, published: Path, tmp_path: Path) -> FlaskClient:
    """A client of an application whose model tells which pictures are familiar: colours are, and black is not."""
    copy(published, tmp_path / "telling", 1, threshold=4.0)
    return create_app(services_of(model_dir=tmp_path / "telling", precision="float32")).test_client()


@pytest.fixture
def embedding_client(services_of: MakeServices, embedding: Path) -> FlaskClient:
    """A client of an application whose model has an embedding: the mean colour and the sum of that."""
    return create_app(services_of(model_dir=embedding.parent.parent, precision="float32")).test_client()


@pytest.fixture
def client(app: Flask) -> FlaskClient:
    """A client of the application in this process."""
    return app.test_client()


@pytest.fixture(scope="session")
def shared_service(shared_models: Path) -> Iterator[StartService]:
    """Gives a running service with the settings that are asked for, the same to all tests; they must not harm it."""
    services: dict[frozenset[tuple[str, str]], RunningService] = {}

    def give(**environment: str) -> RunningService:
        settings = frozenset(environment.items())
        if settings not in services:
            services[settings] = start({"MODEL_DIR": str(shared_models), "DRAIN_SECONDS": "0", **environment})
            services[settings].wait_until_ready()
        return services[settings]

    yield give
    for service in services.values():
        service.kill()


@pytest.fixture
def start_service(models: Path) -> Iterator[StartService]:
    """Starts ``python -m service`` on a free port with the test's model folder; stops it after the test."""
    with ExitStack() as stack:

        def begin(*, ready: bool = True, **environment: str) -> RunningService:
            running = start(
                {"MODEL_DIR": str(models), "MODEL_POLL_SECONDS": "0.1", "DRAIN_SECONDS": "0", **environment}
            )
            stack.callback(running.kill)
            if ready:
                running.wait_until_ready()
            return running

        yield begin
