"""The benchmarks run and tell what they are there to tell; how fast anything is, no test judges."""

import json
import os
import pickle
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import requests
from PIL import Image

from artifact import validate, versions
from benchmarks import explanations, gpu_pack, other_photographs, photographs, tables
from benchmarks.measuring import JPEG, Body, ServerFailed, core_seconds, drawings, form, freeze, jpeg, running, thaw
from benchmarks.servers import BATCH, FORM, OURS, RAW, Running, Server, darkroom, same_engine, started
from tests.models import add_reference, busy, copy, publish_with
from tests.monitoring.test_drift import drawn
from tests.training.conftest import python_layout, write_archive
from training.commands import train
from training.data import cifar10
from training.data.dataset import Split

pytestmark = [pytest.mark.process, pytest.mark.slow]

VERSION = Path("models/cifar10/5")
PRECISION = "float32"  # the fastest is measured by each of them, and may differ between two of the same engine
FRAMEWORKS = ("bentoml", "litserve", "ray")


def compare(root: Path, output: Path, *options: str) -> tuple[dict[str, Any], list[str]]:
    """Run the comparison for as short as it goes; return its figures and the lines that it prints."""
    if not shutil.which("wrk"):
        pytest.skip("wrk is not installed")
    command = [sys.executable, "benchmarks/compare.py", "--rounds", "1", "--seconds", "1", "--overload", "1"]
    command += ["--output", str(output), *options]
    done = subprocess.run(command, cwd=root, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return json.loads(output.read_text()), done.stdout.splitlines()


@pytest.mark.stack
def test_compare_runs(root: Path, tmp_path: Path) -> None:
    """One short round against servers of the same engine and of TensorFlow gives tables, and the figures as JSON."""
    options = ("--only", "same-engine", "alone", "tensorflow", "starlette", "fastapi-tensorflow")
    figures, lines = compare(root, tmp_path / "figures.json", *options)
    small = figures["small"]
    assert small["failed"] == {}
    assert [len(servers) for servers in small["loads"].values()] == [2, 3, 2, 3, 2, 1, 1]
    found = [load for servers in small["loads"].values() for load in servers.values()]
    assert all(load["rate"] > 0 and load["median"] <= load["p99"] and load["core_milliseconds"] > 0 for load in found)
    assert min(small["ceiling"].values()) > 0
    heads = [line for line in lines if line.startswith("| work |")]
    best = "Darkroom against the best of them"
    assert heads == [
        f"| work | Darkroom | Starlette, batching | {best} |",
        "| work | measured | against |",
        f"| work | Darkroom | FastAPI, uvicorn, TensorFlow | {best} |",
    ]
    for line in (
        "one JPEG, raw, 16 conn",
        "core time an answer",
        "64 images a request, V2",
        "12-megapixel",
        "overload",
    ):
        assert any(row.startswith(f"| {line}") for row in lines), line


@pytest.mark.stack
def test_compare_runs_with_photographs(root: Path, tmp_path: Path) -> None:
    """Large pictures are asked for one by one and in batches, beside what decoding and engine take without HTTP."""
    options = ("--photographs", str(VERSION), "--only", "photographs", "starlette")
    figures, lines = compare(root, tmp_path / "figures.json", *options)
    assert figures["photographs"]["failed"] == {}
    assert len(figures["photographs"]["loads"]) == 7
    assert all(len(servers) == 2 for servers in figures["photographs"]["loads"].values())
    rows = [line for line in lines if re.match(r"\| (500x375|1,920x1,080|12 megapixels),", line)]
    assert len(rows) == 7
    assert all(re.search(r"\d% \|$", row) for row in rows)


def test_a_network_for_photographs_can_be_made(tmp_path: Path) -> None:
    """The trainer takes the arguments by which people without a version of their own get one for ``make bench``."""
    settings = train.parse(photographs.training(tmp_path, tmp_path, tmp_path))
    assert settings.recipe.backbone == "EfficientNetLite0"
    assert settings.int8 is None


@pytest.fixture(scope="module")
def ours(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    """Our service with the bundled version."""
    with started(
        darkroom({"PRECISION": PRECISION}, VERSION.resolve()),
        form("image", [picture(32)]),
        tmp_path_factory.mktemp("ours"),
    ) as found:
        yield found


def picture(size: int) -> bytes:
    """Return a drawing as a JPEG."""
    return jpeg(drawings(size, size)[3])


@pytest.mark.parametrize("name", ["starlette", "fastapi", *FRAMEWORKS])
def test_a_rival_answers_as_we_do(root: Path, tmp_path: Path, ours: Running, name: str) -> None:
    """A server of the same engine gives the same labels and probabilities, whichever way it takes the picture."""
    if name in FRAMEWORKS and not (root / ".venv-rivals").exists():
        pytest.skip("make .venv-rivals/stamp installs it")
    server = same_engine(VERSION.resolve(), PRECISION)[name]
    with started(server, form("image", [picture(32)]), tmp_path) as rival:
        thaw(rival.process.pid)
        for size in (32, 100):
            bodies = {RAW: Body(picture(size), JPEG), FORM: form("image", [picture(size)])}
            for takes in server.takes & bodies.keys():
                assert answer(rival, bodies[takes]) == pytest.approx(answer(ours, bodies[takes]), abs=1e-3)
        if BATCH in server.takes:
            body = form("images", [picture(32), picture(100)])
            for mine, other in zip(answers(ours, body), answers(rival, body), strict=True):
                assert probabilities(other) == pytest.approx(probabilities(mine), abs=1e-3)


def answer(server: Running, body: Body) -> dict[str, float]:
    """Return what a server says of one picture."""
    document = post(server, "/predict", body)
    [document] = document if isinstance(document, list) else [document]  # BentoML answers a batch of one
    return probabilities(document)


def answers(server: Running, body: Body) -> list[dict[str, Any]]:
    """Return what a server says of several pictures."""
    results: list[dict[str, Any]] = post(server, "/predict/batch", body)["results"]
    return results


def post(server: Running, path: str, body: Body) -> Any:
    """Post ``body`` and return the JSON of the answer."""
    headers = {"Content-Type": body.content_type}
    response = requests.post(f"http://127.0.0.1:{server.port}{path}", body.content, headers=headers, timeout=30)
    assert response.status_code == 200, response.text
    return response.json()


def probabilities(document: Mapping[str, Any]) -> dict[str, float]:
    """Return the probabilities of an answer by their labels."""
    return {found["label"]: found["probability"] for found in document["predictions"]}


def test_rivals_have_our_engine_and_decoder(root: Path) -> None:
    """What computes and decodes in the rivals' environment has the service's versions, so that serving is compared."""
    locks = [(root / "requirements" / f"{name}.txt").read_text(encoding="utf-8") for name in ("service", "rivals")]
    for package in ("openvino", "numpy", "pillow", "simplejpeg"):
        ours, theirs = (re.findall(rf"^{package}==\S+", lock, re.MULTILINE) for lock in locks)
        assert ours == theirs, package


def test_a_server_that_does_not_start_is_told(tmp_path: Path) -> None:
    """The reason is the last line that it printed, and the table names it below; the others are measured."""
    broken = Server("Broken", (sys.executable, "-c", "raise SystemExit('no engine')"), {}, frozenset({FORM}))
    with pytest.raises(ServerFailed, match=r"exit code 1: no engine"), started(broken, form("image", []), tmp_path):
        pass
    loads = {"one JPEG, raw, 16 connections": {OURS: load(80, 90), "Fast": load(100, 100), "Slow": load(1, 1)}}
    small = {
        "loads": loads,
        "failed": {"Broken": "no engine"},
        "same_engine": ["Fast", "Slow", "Broken"],
        "tensorflow": [],
    }
    lines = tables.markdown({"small": small}).splitlines()
    assert lines[-1] == "Not measured, or not all: Broken: no engine."
    [row] = [line for line in lines if line.startswith("| one JPEG")]
    assert row.endswith("| 100/s, p99 2 ms | 1/s, p99 2 ms | - | 0.85 times Fast |")


def load(*rates: float) -> dict[str, Any]:
    """Return the figures of a load with ``rates`` in its rounds."""
    rate = sum(rates) / len(rates)
    return {"rate": rate, "rates": rates, "median": 1.0, "p99": 2.0, "core_milliseconds": 1000 / rate}


def test_a_frozen_server_takes_no_core() -> None:
    """A process, and what it started, stands still until it is let go on."""
    busy = "while True: pass"
    starts_another = f"import subprocess, sys; subprocess.Popen([sys.executable, '-c', {busy!r}])\n{busy}"
    with running([sys.executable, "-c", starts_another], {}) as process:
        time.sleep(0.5)
        freeze(process.pid)
        before = core_seconds(process.pid)
        time.sleep(0.2)
        assert core_seconds(process.pid) == before > 0
        thaw(process.pid)
        time.sleep(0.5)
        assert core_seconds(process.pid) > before


def test_compare_says_what_is_missing(root: Path, tmp_path: Path) -> None:
    """Without the load generator the benchmark says how to get it, instead of measuring half of it."""
    command = [sys.executable, "benchmarks/compare.py"]
    done = subprocess.run(command, cwd=root, env={"PATH": str(tmp_path)}, capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert "wrk is not installed" in done.stderr


def test_json_parsing_runs(root: Path) -> None:
    """The time to parse JSON is told next to the engine's."""
    command = [sys.executable, "benchmarks/json_parsing.py", "--rounds", "2"]
    done = subprocess.run(command, cwd=root, capture_output=True, text=True, check=True)
    assert [line.split("  ")[0].strip() for line in done.stdout.splitlines()] == [
        "engine",
        "nested lists",
        "one flat list",
    ]


def test_grpc_rate_runs(root: Path) -> None:
    """Both ways are measured, and one is told in terms of the other."""
    command = [sys.executable, "benchmarks/grpc_rate.py", "--rounds", "1", "--seconds", "0.5", "--clients", "2"]
    done = subprocess.run(command, cwd=root, capture_output=True, text=True, check=True)
    assert re.findall(r"2 clients  (http|grpc) +([\d,]+) answers/s", done.stdout)[0][0] == "http"
    [ratio] = re.findall(r"gRPC has ([\d.]+) of HTTP's rate", done.stdout)
    assert float(ratio) > 0.1


def test_the_curve_has_a_row_for_each_version(root: Path, tmp_path: Path) -> None:
    """The table names cost, rate and accuracy of every version, and the plot is a picture."""
    version, plot = "models/cifar10/5", tmp_path / "curve.svg"
    command = [sys.executable, "benchmarks/curve.py", version, version, "--rounds", "1", "--plot", str(plot)]
    done = subprocess.run(command, cwd=root, capture_output=True, text=True, check=True)
    rows = [line.split(" | ") for line in done.stdout.splitlines()[2:]]
    assert [row[0] for row in rows] == ["| cifar10/5"] * 2
    assert all(float(row[5].replace(",", "")) > 0 and row[6] == "95.53% |" for row in rows)
    assert plot.read_text(encoding="utf-8").startswith("<?xml")


def test_backbones_are_measured(root: Path) -> None:
    """A row has the name, the cost and two times; where int8 takes too long there is a dash, and nothing is written."""
    files = [root / "docs" / "backbones.md", root / "training" / "network" / "measured.json"]
    before = [file.read_bytes() for file in files]
    command = [sys.executable, "benchmarks/backbones.py", "MobileNetV3Small", "--seconds", "0.1", "--patience", "0.1"]
    done = subprocess.run(command, cwd=root, capture_output=True, text=True, check=True)
    head, _, row = done.stdout.splitlines()
    assert head == "| backbone | MFLOP | ms, float32 | ms, int8 |"
    _, name, cost, float32, int8, _ = (cell.strip() for cell in row.split("|"))
    assert (name, cost, int8) == ("MobileNetV3Small", "110.9", "-")
    assert float(float32) > 0
    assert [file.read_bytes() for file in files] == before


def test_explanations_run(root: Path, tmp_path: Path) -> None:
    """Of the bundled version and the page's drawings it tells what maps say, and what they cost."""
    for sample in (root / "service" / "web" / "static" / "samples").glob("*.webp"):
        (tmp_path / sample.stem).mkdir()
        shutil.copy(sample, tmp_path / sample.stem)
    command = [sys.executable, "benchmarks/explanations.py", str(VERSION), str(tmp_path), "--requests", "3"]
    done = subprocess.run(command, cwd=root, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    patterns = (
        *(rf"{precision}: \d+ of [46] maps lie on the half of their picture" for precision in ("float32", "int8")),
        *(
            rf"{precision}: the network takes [\d.]+ ms, with its evidence [\d.]+ ms"
            for precision in ("float32", "int8")
        ),
        r"a random head: the maps correlate with the network's by -?\d\.\d\d",
        r"random weights: the maps correlate with the network's by -?\d\.\d\d",
        *3
        * (
            r"a JPEG of \d+ x \d+ pixels, \d+ KiB; medians:",
            *(rf"  {re.escape(route)} +[\d.]+ ms, [\d.]+ of an answer" for route in explanations.ROUTES),
            r"memory of the service: \d+ MB, once it has explained \d+ MB",
        ),
    )
    lines = done.stdout.splitlines()
    assert len(lines) == len(patterns), done.stdout
    for line, pattern in zip(lines, patterns, strict=True):
        assert re.fullmatch(pattern, line), line


@pytest.mark.keras
def test_other_photographs_are_told_by_every_score(smoke: tuple[Path, str], root: Path, tmp_path: Path) -> None:
    """Of a network of the project's own it tells what is served of other pictures, and what other scores would tell."""
    folder = tmp_path / "noise" / "test"
    folder.mkdir(parents=True)
    rng = np.random.default_rng(0)
    for number in range(30):
        Image.fromarray(rng.integers(256, size=(40, 50, 3), dtype=np.uint8)).save(folder / f"{number}.png")
    command = [sys.executable, "benchmarks/other_photographs.py", str(smoke[0]), str(folder)]
    done = subprocess.run(command, cwd=root, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    served, scores = done.stdout.split("\n\n")
    test, noise = served.splitlines()[2:]
    assert re.fullmatch(r"\| test pictures \| \d+ \| \| \d+% \| \|", test), test
    assert re.fullmatch(r"\| noise/test \| 30 \| [01]\.\d{3} \| \d+% \| \d+% \|", noise), noise
    head, _, *rows = scores.splitlines()
    assert head == "| score | noise/test | test pictures | sharpened |"
    assert [row.split(" | ")[0].strip("| ") for row in rows] == list(other_photographs.SCORES)
    for row in rows:
        assert re.fullmatch(r"\| [^|]+ \| [01]\.\d{3}, \d+% \| \d+% \| \d+% \|", row), row


def test_cifar10_is_carried_in_parts_to_the_last_bit(tmp_path: Path) -> None:
    """What is joined are the pictures that were packed; a missing part, and one of other pictures, are told."""
    rng = np.random.default_rng(0)
    train, test = (
        Split(rng.integers(256, size=(count, 32, 32, 3), dtype=np.uint8), rng.integers(10, size=count))
        for count in (330, 105)
    )
    labels = tuple("abcdefghij")
    files = gpu_pack.pack(labels, train, test, tmp_path / "parts")
    assert [file.name for file in files] == [f"cifar10-{number}-of-3.npz" for number in (1, 2, 3)]
    gpu_pack.join(tmp_path / "parts", tmp_path / "joined.npz")
    with np.load(tmp_path / "joined.npz") as joined:
        assert tuple(joined["labels"]) == labels
        for name, split in (("train", train), ("test", test)):
            np.testing.assert_array_equal(joined[f"{name}_images"], split.images)
            np.testing.assert_array_equal(joined[f"{name}_classes"], split.classes)
    gpu_pack.pack(labels, train, train[:105], tmp_path / "others")
    kept = files[1].rename(tmp_path / "kept")
    with pytest.raises(SystemExit, match="holds 2 of 3 parts"):
        gpu_pack.join(tmp_path / "parts", tmp_path / "again.npz")
    shutil.copy(tmp_path / "others" / files[1].name, files[1])
    with pytest.raises(SystemExit, match="do not make the pictures that were packed"):
        gpu_pack.join(tmp_path / "parts", tmp_path / "again.npz")
    assert kept.exists()


@pytest.mark.stack
def test_a_gpu_gives_networks_back_that_are_published(root: Path, tmp_path: Path) -> None:
    """What a quick try gives back is published, with its teacher on record and in int8; another call does what is left.

    Without the weights nothing is published, and what is missing is told.
    """
    pytest.importorskip("jax")
    rng = np.random.default_rng(0)
    planes = {f"data_batch_{number}": rng.integers(256, size=(520, 3072), dtype=np.uint8) for number in range(1, 6)}
    planes["test_batch"] = rng.integers(256, size=(200, 3072), dtype=np.uint8)
    files = {name: pickle.dumps({b"data": data, b"labels": [n % 10 for n in range(len(data))]}, 2)
             for name, data in planes.items()}  # fmt: skip
    files["batches.meta"] = python_layout()["batches.meta"]
    archive = write_archive(tmp_path / "cifar.tar.gz", files)
    gpu_pack.pack(*cifar10.load(archive), tmp_path / "parts")
    gpu_pack.join(tmp_path / "parts", tmp_path / "joined.npz")

    def call(*arguments: str | Path, **changes: str) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, *map(str, arguments)]
        environment = {**os.environ, "CUDA_VISIBLE_DEVICES": "", **changes}
        return subprocess.run(command, cwd=root, env=environment, capture_output=True, text=True, check=False)

    for only in (("card", "best"), ("best", "fast")):
        arguments = ("--quick", "--data", tmp_path / "joined.npz", "--work", tmp_path, "--only", *only)
        done = call("benchmarks/gpu.py", *arguments, KERAS_BACKEND="jax")
        assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[-1].endswith(": card, best, fast")
    assert "best: " not in done.stdout
    results = json.loads((tmp_path / "out" / "results.json").read_text(encoding="utf-8"))
    assert results["card"]["standard"]["images_per_second"] > 0
    assert results["fast"]["teachers"]["names"] == ["best"]
    places = ("--data", archive, "--models", tmp_path / "models", "--name", "tried")
    done = call("benchmarks/gpu_publish.py", tmp_path / "out", "fast", *places)
    assert done.returncode == 0, done.stderr
    metadata = validate(tmp_path / "models" / "tried" / "1")
    assert metadata.int8 is not None
    assert metadata.calibration is not None
    assert metadata.training["teachers"][0]["name"] == "best"
    (tmp_path / "out" / "fast.npz.1").unlink()
    done = call("benchmarks/gpu_publish.py", tmp_path / "out", "fast", *places)
    assert done.returncode == 1
    assert "lacks pieces of fast.npz" in done.stderr
    assert versions(tmp_path / "models", "tried") == [1]


def test_drift_tells_other_pictures_from_the_same(root: Path, embedding: Path, tmp_path: Path) -> None:
    """Windows of the pictures that a version knows do not alarm; grey ones do, and the table says after how many."""
    pictures = drawn(0, 200)
    version = copy(embedding, tmp_path, 1, threshold=4.0)
    add_reference(version, pictures)
    (tmp_path / "pictures").mkdir()
    for number, picture in enumerate(pictures):
        Image.fromarray(picture).save(tmp_path / "pictures" / f"{number}.png")
    command = [sys.executable, "benchmarks/drift.py", str(version), str(tmp_path / "pictures"), "--windows", "3"]
    done = subprocess.run(command, cwd=root, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    rows = {row.split(" | ")[0].strip("| "): row for row in done.stdout.splitlines()[2:]}
    assert list(rows) == ["the same kind, 3 windows", "darker and blurred", "darker", "blurred", "grey"]
    assert rows["the same kind, 3 windows"].endswith("| in 0 of 3 |")
    assert re.search(r"\| after \d+ \|$", rows["grey"])


@pytest.mark.timing
def test_a_busy_model_leaves_the_others_their_share(published: Path, root: Path, tmp_path: Path) -> None:
    """With 32 clients at a heavy model a light one keeps a good part of its rate, and the heavy one of its own."""
    heavy = publish_with(busy(6), published, tmp_path)
    command = [sys.executable, "benchmarks/many_models.py", "--heavy", str(heavy), "--seconds", "3"]
    done = subprocess.run(command, cwd=root, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    rows = [line for line in done.stdout.splitlines() if line.startswith("|")]
    assert len(rows) == 2 + 6 + 2 + 2, done.stdout
    kept = re.search(r"The light model keeps (\d+)% of its rate, the heavy one (\d+)%", done.stdout)
    assert kept is not None, done.stdout
    assert min(map(int, kept.groups())) >= 20, done.stdout
