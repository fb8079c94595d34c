"""The benchmarks run and tell what they are there to tell; how fast anything is, no test judges."""

import json
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
import requests

from artifact import read_metadata
from benchmarks import photographs, tables
from benchmarks.measuring import JPEG, Body, ServerFailed, core_seconds, drawings, form, freeze, jpeg, running, thaw
from benchmarks.servers import BATCH, FORM, OURS, RAW, Running, Server, darkroom, same_engine, started

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


def test_compare_runs(root: Path, tmp_path: Path) -> None:
    """One short round against servers of the same engine and of TensorFlow gives tables, and the figures as JSON."""
    options = ("--only", "same-engine", "alone", "tensorflow", "starlette", "fastapi", "fastapi-tensorflow")
    figures, lines = compare(root, tmp_path / "figures.json", *options)
    small = figures["small"]
    assert small["failed"] == {}
    assert [len(servers) for servers in small["loads"].values()] == [2, 4, 2, 4, 3, 1, 1]
    found = [load for servers in small["loads"].values() for load in servers.values()]
    assert all(load["rate"] > 0 and load["median"] <= load["p99"] and load["core_milliseconds"] > 0 for load in found)
    assert min(small["ceiling"].values()) > 0
    heads = [line for line in lines if line.startswith("| work |")]
    best = "Darkroom against the best of them"
    assert heads == [
        f"| work | Darkroom | Starlette, batching | FastAPI, a process a core | {best} |",
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


def test_a_network_for_photographs_is_made_once(tmp_path: Path) -> None:
    """Without a version of their own people get one of 224x224 pixels with int8, and the second run the same."""
    version = photographs.own_version(tmp_path)
    metadata = read_metadata(version)
    assert (metadata.input.height, metadata.input.width) == (224, 224)
    assert metadata.int8 is not None
    assert photographs.own_version(tmp_path) == version


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
