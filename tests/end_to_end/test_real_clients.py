"""Clients that we did not write, as their users run them, against a service process."""

import re
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import msgspec
import pytest

from tests.models import copy
from tests.service.pictures import plain
from tests.service.running import RunningService, start


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


def _running(models: Path) -> Iterator[RunningService]:
    running = start({"MODEL_DIR": str(models), "DRAIN_SECONDS": "0"})
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


def test_curl_commands_of_the_readme_answer(root: Path, bundled: RunningService, tmp_path: Path) -> None:
    """Each curl command in the README, run as it stands there, gets an answer without an error."""
    if not shutil.which("curl"):
        pytest.skip("curl is not installed")
    commands = _curl_commands((root / "README.md").read_text(encoding="utf-8"))
    assert len(commands) >= 6
    for name in ("frog.jpg", "cat.jpg"):
        (tmp_path / name).write_bytes(plain("green", "JPEG"))
    (tmp_path / "truck.png").write_bytes(plain("red"))
    for command in commands:
        line = command.replace("localhost:8000", bundled.url.removeprefix("http://"))
        done = subprocess.run(["bash", "-c", line], cwd=tmp_path, capture_output=True, check=False)
        assert done.returncode == 0, command
        answer = msgspec.json.decode(done.stdout)
        assert "error" not in answer, (command, answer)


@pytest.mark.process
@pytest.mark.slow
def test_python_of_the_readme_answers(root: Path, bundled: RunningService, interop: Path) -> None:
    """The README's example of Triton's client prints the probabilities of the bundled model's ten labels."""
    [code] = re.findall(r"```python\n(.*?)```", (root / "README.md").read_text(encoding="utf-8"), re.DOTALL)
    code = code.replace("localhost:8000", bundled.url.removeprefix("http://"))
    done = subprocess.run([interop, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert len(done.stdout.strip("[]\n").split()) == 10


def _curl_commands(text: str) -> list[str]:
    """Return the curl commands in the shell blocks of Markdown ``text``, with their continuation lines joined."""
    blocks = re.findall(r"```sh\n(.*?)```", text, re.DOTALL)
    lines = "\n".join(blocks).replace("\\\n", " ").splitlines()
    return [line for line in lines if line.startswith("curl")]
