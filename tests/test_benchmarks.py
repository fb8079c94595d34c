"""The benchmarks run and tell what they are there to tell; how fast anything is, no test judges."""

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = [pytest.mark.process, pytest.mark.slow]


def test_compare_runs(root: Path, tmp_path: Path) -> None:
    """One short round against both rivals gives a table of ratios, and the same figures as JSON."""
    if not shutil.which("wrk"):
        pytest.skip("wrk is not installed")
    output = tmp_path / "figures.json"
    command = [sys.executable, "benchmarks/compare.py", "--rounds", "1", "--seconds", "1", "--overload", "1"]
    done = subprocess.run([*command, "--output", str(output)], cwd=root, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    figures = json.loads(output.read_text())
    assert len(figures["loads"]) == 9
    assert all(load["rate"] > 0 and load["median"] <= load["p99"] for load in figures["loads"].values())
    assert min(figures["ceiling"].values()) > 0
    lines = done.stdout.splitlines()
    assert lines[0] == "| work | measured | against |"
    for line in ("16 connections: FastAPI", "64 images, V2 binary", "12-megapixel JPEG", "overload, "):
        assert any(line in row for row in lines), line


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
