"""Clients that we did not write, as their users run them, against a service process."""

import hashlib
import re
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from service.inference.plan import Plan, write_plan
from tests.models import copy
from tests.service.running import RunningService, free_port, start


@pytest.fixture(scope="session")
def interop(root: Path) -> Path:
    """Return the interpreter of the environment that has the clients of the protocols."""
    python = root / ".venv-interop" / "bin" / "python"
    if not python.exists():
        pytest.skip("make .venv-interop/stamp installs these clients")
    return python


@pytest.fixture(scope="module")
def service(published: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningService]:
    """Start a service with the model that tells red, green and blue apart, and whether a picture is familiar."""
    models = tmp_path_factory.mktemp("telling")
    copy(published, models, 1, threshold=4.0)
    yield from _running(models)


@pytest.fixture(scope="module")
def bundled(root: Path) -> Iterator[RunningService]:
    """Start a service with the bundled model."""
    yield from _running(root / "models")


def _running(models: Path, **settings: str) -> Iterator[RunningService]:
    running = start({"MODEL_DIR": str(models), "DRAIN_SECONDS": "0", "GRPC_PORT": str(free_port()), **settings})
    try:
        running.wait_until_ready()
        yield running
    finally:
        running.kill()


@pytest.mark.process
@pytest.mark.slow
@pytest.mark.parametrize("client", ["triton", "kserve_client", "ovms"])
def test_clients_of_the_protocols_are_at_home(root: Path, service: RunningService, interop: Path, client: str) -> None:
    """Every check in tests/interop passes: Triton's, KServe's and OpenVINO's own clients get what they expect."""
    address = service.url.removeprefix("http://")
    done = subprocess.run(
        [interop, "-m", f"tests.interop.{client}", address], cwd=root, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.count(" ok\n") >= 4, done.stdout


@pytest.mark.process
@pytest.mark.slow
def test_clients_reach_each_model_and_version(root: Path, interop: Path, published: Path, tmp_path: Path) -> None:
    """With two models of two versions each, and two workers: by name, number and label; they load and unload."""
    for name, version in (("colours", 1), ("colours", 2), ("fruits", 3), ("fruits", 5)):
        copy(published, tmp_path, version, name=name)
    write_plan(tmp_path / "colours", Plan("all"))
    write_plan(tmp_path / "fruits", Plan(labels={"stable": 3, "canary": 5}))
    settings = {
        "MODEL_NAME": "colours",
        "WORKERS": "2",
        "API_TOKENS": f"ann:{hashlib.sha256(b'secret').hexdigest()}",
        "WITHOUT_TOKEN": "probes,predictions",
    }
    for running in _running(tmp_path, **settings):
        places = {"many_models": running.url.removeprefix("http://"), "many_models_grpc": running.grpc}
        for checks, address in places.items():
            command = [str(interop), "-m", f"tests.interop.{checks}", address, "secret"]
            done = subprocess.run(command, cwd=root, capture_output=True, text=True, check=False)
            assert done.returncode == 0, done.stdout + done.stderr
            assert done.stdout.count(" ok\n") >= 2, done.stdout


@pytest.mark.process
@pytest.mark.slow
@pytest.mark.parametrize("client", ["triton_grpc", "kserve_grpc", "tensorflow_grpc"])
def test_clients_by_grpc_are_at_home(root: Path, service: RunningService, interop: Path, client: str) -> None:
    """The same of their clients by gRPC, and of TensorFlow Serving's stubs."""
    done = subprocess.run(
        [interop, "-m", f"tests.interop.{client}", service.grpc], cwd=root, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.count(" ok\n") >= 4, done.stdout


@pytest.mark.process
def test_messages_are_those_of_the_clients(root: Path, interop: Path) -> None:
    """Whatever field of a message we read or write has the name, the number and the type that the clients know."""
    done = subprocess.run(
        [interop, "-m", "tests.interop.grpc_messages"], cwd=root, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.process
@pytest.mark.slow
def test_python_of_the_documents_answers(root: Path, bundled: RunningService, interop: Path) -> None:
    """The example of Triton's client prints the probabilities of the bundled model's ten labels."""
    [code] = re.findall(r"```python\n(.*?)```", (root / "docs" / "protocols.md").read_text(encoding="utf-8"), re.DOTALL)
    code = code.replace("localhost:8000", bundled.url.removeprefix("http://"))
    done = subprocess.run([interop, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert len(done.stdout.strip("[]\n").split()) == 10
