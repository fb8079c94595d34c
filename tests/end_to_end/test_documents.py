"""Every block of code in the documents, run as it stands in a fresh clone."""

import contextlib
import json
import os
import random
import re
import shutil
import signal
import subprocess
import tempfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import pytest
import requests
from PIL import Image, ImageDraw

from tests.documents import Block, blocks, copy_of_the_repository
from tests.service.running import free_port, wait_for

pytestmark = [pytest.mark.process, pytest.mark.slow]

ROOT = Path(__file__).parents[2]
RUN = [block for block in blocks(ROOT) if block.is_code and not block.reason]
SECONDS = 300
PICTURES = 20  # of each label in the folder that the documents call pets


@pytest.fixture(scope="module")
def clone(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A fresh clone, with the environments that make has made already, and a folder of pictures called pets."""
    folder = tmp_path_factory.mktemp("fresh") / "darkroom"
    try:
        copy_of_the_repository(ROOT, folder)
    except subprocess.CalledProcessError:
        pytest.skip("this is not a git checkout")
    for environment in ROOT.glob(".venv*"):
        (folder / environment.name).symlink_to(environment.resolve())
    chance = random.Random(0)
    for label in ("cat", "dog"):
        (folder / "pets" / label).mkdir(parents=True)
        for number in range(PICTURES):
            drawn(label, chance).save(folder / "pets" / label / f"{number}.jpg")
    shutil.copy(folder / "pets" / "cat" / "0.jpg", folder / "pets" / "cat" / "the same.jpg")
    return folder


def drawn(label: str, chance: random.Random) -> Image.Image:
    """Return a picture of a label: dots or bars in any colours, at any places."""
    picture = Image.new("RGB", (160, 120), tuple(chance.randrange(256) for _ in range(3)))
    draw = ImageDraw.Draw(picture)
    for _ in range(12):
        x, y = chance.randrange(140), chance.randrange(100)
        colour = tuple(chance.randrange(256) for _ in range(3))
        if label == "cat":
            draw.ellipse((x, y, x + 20, y + 20), fill=colour)
        else:
            draw.rectangle((x, 0, x + 6, 120), fill=colour)
    return picture


@pytest.fixture(scope="module")
def service(clone: Path) -> Iterator[str]:
    """The address of the service that the documents' first command starts."""
    with serving(clone, "./darkroom serve", {}) as address:
        yield address


@contextmanager
def serving(clone: Path, command: str, environment: Mapping[str, str]) -> Iterator[str]:
    """Give the command to serve, and its address once it answers."""
    port = free_port()
    with started(clone, ["bash", "-c", command], {**environment, "PORT": str(port)}) as (_, output):
        wait_for(lambda: ready(port), output)
        yield f"localhost:{port}"


@contextmanager
def started(
    clone: Path, command: list[str], environment: Mapping[str, str]
) -> Iterator[tuple["subprocess.Popen[bytes]", Callable[[], str]]]:
    """Give a process in the clone, and what tells its output so far; end it with all that it has started."""
    with tempfile.TemporaryFile() as output:
        process = subprocess.Popen(
            command,
            cwd=clone,
            env={**os.environ, "WORKERS": "1", "DRAIN_SECONDS": "0", **environment},
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )

        def printed() -> str:
            output.seek(0)
            return output.read().decode()

        try:
            yield process, printed
        finally:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGINT)  # unlike SIGKILL it lets a service remove what it wrote
                with contextlib.suppress(subprocess.TimeoutExpired):
                    process.wait(10)
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()


def ready(port: int) -> bool:
    """Say whether the service at ``port`` can answer."""
    try:
        return requests.get(f"http://localhost:{port}/health/ready", timeout=5).ok
    except requests.RequestException:  # it loads its model, on a machine that has much to do
        return False


def run(clone: Path, block: Block, address: str, text: str) -> str:
    """Run ``text`` of a block in the clone with the service at ``address``; return what it prints."""
    text = text.replace("localhost:8000", address)
    python = [str(clone / ".venv" / "bin" / "python"), "-c"]
    command = [*(python if block.language == "python" else ["bash", "-euo", "pipefail", "-c"]), text]
    variables = {"PORT": address.rpartition(":")[2], "DARKROOM_URL": f"http://{address}"}
    with started(clone, command, variables) as (process, output):
        code = process.wait(SECONDS)
        printed = output()
    assert code == 0, f"{block.place}\n{text}\n{printed}"
    assert '"error"' not in printed, f"{block.place}\n{text}\n{printed}"
    return printed


@pytest.mark.parametrize("document", sorted({block.document for block in RUN}))
def test_every_block_runs_in_a_fresh_clone(clone: Path, service: str, document: str) -> None:
    """Each block of code ends well, or serves until it is stopped; what it asks is answered without an error.

    Those of a document run in their order, since one may need what another has made, or ask what it has started.
    """
    with contextlib.ExitStack() as stays:
        for block in (block for block in RUN if block.document == document):
            if block.before:
                subprocess.run(["bash", "-euc", block.before], cwd=clone, check=True)
            if block.serves:
                with contextlib.ExitStack() as ends:
                    address = (stays if block.stays else ends).enter_context(serving(clone, block.text, {}))
                    model = requests.get(f"http://{address}/model", timeout=5).json()
                    named = re.search(r"MODEL_NAME=(\w+)", block.text)
                    assert model["name"] == (named[1] if named else "cifar10"), block.place
                service = address if block.stays else service
            else:
                address = f"localhost:{free_port()}" if "./darkroom serve" in block.text else service
                run(clone, block, address, block.text)


@pytest.mark.parametrize("block", [block for block in RUN if "base64" in block.text], ids=lambda block: block.place)
def test_pictures_in_json_may_be_as_large_as_a_phones(clone: Path, service: str, block: Block) -> None:
    """The commands that put a picture into JSON take one of 5 MB, which no command line would hold."""
    photograph = clone / "photograph.jpg"
    if not photograph.exists():
        noise = random.Random(0).randbytes(3 * 2200 * 1650)
        Image.frombytes("RGB", (2200, 1650), noise).save(photograph, quality=97)
        assert photograph.stat().st_size > 5_000_000
    run(clone, block, service, block.text.replace("docs/pictures/frog.jpg", "photograph.jpg"))


def test_the_first_answer_is_the_one_that_the_documents_show(clone: Path, service: str) -> None:
    """The bundled picture is what the README says that it is, surely, and familiar."""
    answer = json.loads(
        subprocess.run(
            ["curl", "-sF", "image=@docs/pictures/frog.jpg", f"{service}/predict"],
            cwd=clone,
            capture_output=True,
            check=True,
        ).stdout
    )
    shown = [block for block in blocks(ROOT) if block.language == "json" and '"predictions"' in block.text]
    assert {block.document for block in shown} == {"README.md", "docs/index.md"}
    for block in shown:
        [(label, probability)] = re.findall(r'{"label":"(\w+)","probability":([\d.]+)}', block.text)
        assert answer["predictions"][0]["label"] == label
        assert answer["predictions"][0]["probability"] == pytest.approx(float(probability), abs=0.02)
        assert f'"familiar":{json.dumps(answer["familiar"])}' in block.text
        assert json.dumps(answer["model"], separators=(",", ":")) in block.text
