"""The package: built, checked, and installed alone into an empty environment."""

import os
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest
import requests

from service import __version__
from tests.service.running import free_port, wait_for

pytestmark = [pytest.mark.process, pytest.mark.slow]

BIN = Path(sys.executable).parent


def checked(*command: str | Path, cwd: Path) -> str:
    """Run a command that has to end well; return what it prints."""
    done = subprocess.run(command, cwd=cwd, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False)
    assert done.returncode == 0, done.stdout
    return done.stdout


@pytest.fixture(scope="module")
def built(root: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The wheel and the source distribution, made by the commands of ``make wheel``, in a folder."""
    folder = tmp_path_factory.mktemp("dist")
    [recipe] = (root / "Makefile").read_text(encoding="utf-8").split("\nwheel: ")[1:]
    commands = [line.strip() for line in recipe.split("\n\n")[0].splitlines()[1:]]
    assert len(commands) == 4, commands
    for command in commands[1:]:
        checked("bash", "-c", command.replace("$(DEV)", str(BIN)).replace("dist", str(folder)), cwd=root)
    return folder


@pytest.fixture(scope="module")
def installed(built: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The programs of an environment that has the wheel and nothing else."""
    folder = tmp_path_factory.mktemp("environment") / "venv"
    checked(sys.executable, "-m", "venv", folder, cwd=built)
    [wheel] = built.glob("*.whl")
    checked(folder / "bin" / "pip", "install", "--quiet", "--no-index", "--no-deps", wheel, cwd=built)
    return folder / "bin"


def test_the_wheel_has_the_code_and_the_bundled_model_alone(built: Path) -> None:
    """Of models/ only the bundled one is in it; no tests, and nothing of this machine."""
    [wheel] = built.glob("*.whl")
    names = zipfile.ZipFile(wheel).namelist()
    models = {name.split("/")[2] for name in names if name.startswith("service/models/")}
    assert models == {"cifar10"}
    tops = {name.partition("/")[0] for name in names} - {f"darkroom-{__version__}.dist-info"}
    assert tops == {"artifact", "client", "darkroom.py", "imaging", "machine", "service", "training"}
    assert wheel.stat().st_size < 20_000_000


def test_alone_it_says_what_is_missing(installed: Path, tmp_path: Path) -> None:
    """Without an extra there are help and version, and a sentence in place of everything else."""
    assert checked(installed / "darkroom", "--version", cwd=tmp_path) == f"darkroom {__version__}\n"
    assert "serve and ask:" in checked(installed / "darkroom", "--help", cwd=tmp_path)
    for command in ("serve", "train", "predict", "export"):
        done = subprocess.run(
            [installed / "darkroom", command], cwd=tmp_path, capture_output=True, text=True, check=False
        )
        assert done.returncode == 2
        assert done.stderr.startswith(f"darkroom {command} needs: pip install 'darkroom[")


def test_with_its_extras_it_serves_and_asks(root: Path, installed: Path, tmp_path: Path) -> None:
    """In an empty folder ``darkroom serve`` answers with the model of the wheel, and ``darkroom predict`` asks it."""
    python = installed / "python"
    for lock in ("service", "client"):
        options = ["--quiet", "--no-input", "--no-deps", "--require-hashes", "--only-binary", ":all:"]
        file = root / "requirements" / f"{lock}.txt"
        checked(python, "-m", "pip", "install", *options, "-r", file, cwd=tmp_path)
    port = free_port()
    variables = {"PATH": os.environ["PATH"], "HOME": str(tmp_path), "PORT": str(port), "WORKERS": "1"}
    log = tmp_path / "log"
    with log.open("wb") as stderr:
        process = subprocess.Popen([installed / "darkroom", "serve"], cwd=tmp_path, env=variables, stderr=stderr)
    try:
        url = f"http://localhost:{port}"
        wait_for(lambda: answers(url), log.read_text)
        picture = root / "docs" / "pictures" / "frog.jpg"
        told = checked(installed / "darkroom", "predict", picture, "--url", url, "--quiet", cwd=tmp_path)
        assert '"label": "frog"' in told or '"label":"frog"' in told
        assert requests.get(f"{url}/samples/frog.webp", timeout=5).ok
    finally:
        process.terminate()
        process.wait(30)


def answers(url: str) -> bool:
    """Say whether a service at ``url`` can answer."""
    try:
        return requests.get(f"{url}/health/ready", timeout=5).ok
    except requests.RequestException:
        return False
