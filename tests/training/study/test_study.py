"""The study trains what is asked for, goes on after an interruption, and reports what it measured."""

import json
import re
import signal
from pathlib import Path

import numpy as np
import pytest

from tests.training.conftest import LABELS
from tests.training.study.interruption import send_signal
from training.cli import main
from training.data import cifar10
from training.fit.checkpoints import RunFolder
from training.study.configurations import CONFIGURATIONS, QUICK
from training.study.network import build

pytestmark = pytest.mark.keras


def _accuracy(name: str, folder: Path, archive: Path) -> float:
    """Measure a configuration's last checkpoint on the test pictures, without the study."""
    _, train, test = cifar10.load(archive)
    model = build(CONFIGURATIONS[name], train.images, len(LABELS), seed=0)
    last = RunFolder(folder / name / "seed-0").last()
    assert last
    [checkpoint] = last.glob("*.weights.h5")
    model.load_weights(checkpoint, skip_mismatch=False)
    return float((np.asarray(model(test.images)).argmax(axis=1) == test.classes).mean())


def test_list_needs_no_data(capsys: pytest.CaptureFixture[str]) -> None:
    """--list names every configuration, its epochs and the original's figures in their order."""
    assert main(["study", "--list"]) == 0
    header, *lines = capsys.readouterr().out.splitlines()
    assert header.split()[:3] == ["name", "epochs", "quick"]
    assert [line.split()[0] for line in lines] == list(CONFIGURATIONS)
    figures = [CONFIGURATIONS[line.split()[0]].original for line in lines]
    assert [figure for figure in figures if figure] == ["about 70", "+12", "+5", "+9", "84", "86.25", "87.33", "90.14"]
    assert all(line.endswith(figure) for line, figure in zip(lines, figures, strict=True))


def test_an_unknown_configuration_is_wrong_usage(capsys: pytest.CaptureFixture[str]) -> None:
    """A name that is not in the study is answered with those that are."""
    with pytest.raises(SystemExit) as exit_:
        main(["study", "--only", "vgg4"])
    assert exit_.value.code == 2
    assert "invalid choice: 'vgg4' (choose from vgg1, " in capsys.readouterr().err.replace("'vgg1'", "vgg1")


@pytest.mark.slow
def test_a_study_is_interrupted_resumed_and_reported(
    colours: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """After a signal the same command trains only what is left, and the table says what the networks answer."""
    command = ["study", "--quick", "--data", str(colours), "--run", str(tmp_path), "--precision", "float32", "--only"]
    with monkeypatch.context() as patch:
        send_signal(patch, "vgg2", epoch=8)
        assert main([*command, "vgg1", "vgg2"]) == 128 + signal.SIGTERM
    folder = tmp_path / "quick"
    assert [
        result["configuration"]["name"] for result in json.loads((folder / "study.json").read_text())["results"]
    ] == ["vgg1"]
    first = capsys.readouterr()
    assert f"[1/2 vgg1]  epoch {QUICK.epochs}/{QUICK.epochs}" in first.out
    assert re.search(r"study: \d+ (s|min) left$", first.out, re.MULTILINE)
    assert "go on from the last epoch" in first.err

    assert main([*command, "vgg1", "vgg2"]) == 0
    second = capsys.readouterr().out
    assert "vgg1]" not in second
    assert "[1/1 vgg2]  goes on after epoch 8" in second
    assert "epoch 8/" not in second

    accuracies = {name: _accuracy(name, folder, colours) for name in ("vgg1", "vgg2")}
    assert accuracies["vgg1"] > 0.5
    content = json.loads((folder / "study.json").read_text())
    assert {result["configuration"]["name"]: result["test_accuracy"] for result in content["results"]} == pytest.approx(
        accuracies
    )
    table = (folder / "study.md").read_text()
    for name, parameters in (("vgg1", "1,060,138"), ("vgg2", "591,274")):
        assert re.search(
            rf"^\| {name} \| .* \| {parameters} \| {QUICK.epochs} \| .* \| {accuracies[name]:.2%} \|",
            table,
            re.MULTILINE,
        )
        assert re.search(rf"^{name} .* {parameters} .* {accuracies[name]:.2%}", second, re.MULTILINE)
        assert (folder / f"{name}.png").read_bytes().startswith(b"\x89PNG")
    assert (folder / "study.png").exists()
