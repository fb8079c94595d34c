"""``export`` keeps a file that answers as the version does, says how well, and keeps no other."""

import json
import os
import re
import shutil
import sys
import zipfile
from pathlib import Path

import onnx
import pytest

import artifact
from artifact import Metadata
from artifact.layout import METADATA
from tests.training.conftest import call, write_pictures
from training.cli import main
from training.data import synthetic
from training.data.pictures import Reading
from training.publish import litert
from training.publish import onnx as to_onnx


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Make an empty folder the current one, where a file goes unless a name is given."""
    path = tmp_path / "here"
    path.mkdir()
    monkeypatch.chdir(path)
    return path


@pytest.fixture
def trained(smoke: tuple[Path, str], tmp_path: Path) -> tuple[Path, Path]:
    """Return a copy of the smoke version, and a folder of pictures that its metadata takes for its training's."""
    from training.data import sources

    version = shutil.copytree(smoke[0], tmp_path / "models" / "smoke" / "1")
    labels, pictures, _ = synthetic.load(300, 1, seed=5)
    data = write_pictures(tmp_path / "shapes", pictures, labels)
    digest = sources.load(data, None, False, artifact.validate(version).input, Reading()).digest()
    record = json.loads((version / METADATA).read_text())
    record["dataset"] = {"name": "shapes", "sha256": digest, "validation": None}
    (version / METADATA).write_text(json.dumps(record))
    return version, data


@pytest.mark.process
@pytest.mark.slow
def test_onnx_is_compared_on_drawn_pictures_without_data(published: Path, folder: Path) -> None:
    """The lines say what is done, and the last one where the file lies, how large it is and how well it answers."""
    code, printed, errors = call(["export", published, "--to", "onnx"])
    assert (code, errors) == (0, "")
    converting, comparing, wrote = printed.splitlines()
    assert converting == f"Converting {published} to ONNX."
    assert comparing == "Comparing on 100 pictures (drawn)."
    gap = re.fullmatch(
        r"Wrote colours-1\.onnx \(0\.0 MB\): all outputs within (\S+) of the version's on 100 pictures \(drawn\)\.",
        wrote,
    )
    assert gap is not None
    assert float(gap[1]) < 1e-3
    assert [file.name for file in folder.iterdir()] == ["colours-1.onnx"]


@pytest.mark.keras
@pytest.mark.process
@pytest.mark.slow
def test_onnx_is_compared_on_the_test_pictures_of_the_data(trained: tuple[Path, Path], folder: Path) -> None:
    """Where data is given, its test pictures take the drawn ones' place."""
    version, data = trained
    code, printed, errors = call(["export", version, "--to", "onnx", "--data", data, "--output", "shapes.onnx"])
    assert (code, errors) == (0, "")
    assert re.search(r"\nComparing on \d+ pictures \(shapes test\)\.\nWrote shapes\.onnx ", printed)
    assert [file.name for file in folder.iterdir()] == ["shapes.onnx"]


@pytest.mark.keras
@pytest.mark.slow
def test_litert_says_what_int8_costs(trained: tuple[Path, Path], folder: Path) -> None:
    """The last line has both accuracies and the share of the same labels; the labels are in the file."""
    version, data = trained
    code, printed, errors = call(["export", version, "--to", "litert", "--data", data])
    assert (code, errors) == (0, "")
    lines = printed.splitlines()
    assert f"Converting {version} to LiteRT in int8, with the ranges of 100 training pictures." in lines
    assert re.fullmatch(
        r"Wrote smoke-1\.tflite \(\d\.\d MB\): accuracy in int8 \S+% of \d+ images \(shapes test; 95%: \S+ to \S+\), "
        r"where float32 has \S+% \(95%: \S+ to \S+\); the same label for \S+%\.",
        lines[-1],
    )
    with zipfile.ZipFile(folder / "smoke-1.tflite") as archive:
        assert archive.read("labels.txt").decode().split() == ["disc", "square", "stripes"]
    assert [file.name for file in folder.iterdir()] == ["smoke-1.tflite"]


@pytest.mark.keras
def test_litert_refuses_other_data(smoke: tuple[Path, str], trained: tuple[Path, Path], folder: Path) -> None:
    """What the training saw is not known of other data, so its test pictures would be no measure."""
    code, _, errors = call(["export", smoke[0], "--to", "litert", "--data", trained[1]])
    assert code == 1
    assert errors == f"training: error: {smoke[0]} was trained on other data; give the same with --data\n"
    assert list(folder.iterdir()) == []


@pytest.mark.keras
@pytest.mark.slow
def test_int8_that_loses_too_much_is_not_kept(
    trained: tuple[Path, Path], folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The error has both accuracies, and no file is left."""
    monkeypatch.setattr(litert, "loses_too_much", lambda _paired, _tolerance: True)
    code, _, errors = call(["export", trained[0], "--to", "litert", "--data", trained[1]])
    assert code == 1
    assert errors.startswith("training: error: int8 loses more than 2 points of accuracy: accuracy in int8 ")
    assert errors.endswith("%; it is not kept\n")
    assert list(folder.iterdir()) == []


@pytest.mark.process
@pytest.mark.slow
def test_a_file_that_answers_otherwise_is_not_kept(
    published: Path, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where the converter gets the network wrong nothing is left, and an older file stays as it was."""
    convert = to_onnx.convert

    def wrong(version: Path, metadata: Metadata, target: Path) -> None:
        convert(version, metadata, target)
        model = onnx.load(target)
        (softmax,) = (node for node in model.graph.node if node.op_type == "Softmax")
        softmax.op_type = "LogSoftmax"
        onnx.save(model, target)

    monkeypatch.setattr(to_onnx, "convert", wrong)
    (folder / "colours-1.onnx").write_text("older")
    code, _, errors = call(["export", published, "--to", "onnx"])
    assert code == 1
    assert re.fullmatch(
        r"training: error: the file read by ONNX Runtime differs from the version by \S+; it is not kept\n", errors
    )
    assert (folder / "colours-1.onnx").read_text() == "older"
    assert len(list(folder.iterdir())) == 1


@pytest.mark.parametrize(
    ("arguments", "package"),
    [
        (("--to", "onnx"), "tf2onnx"),
        (("--to", "onnx"), "onnxruntime"),
        (("--to", "litert", "--data", os.devnull), "ai_edge_litert"),
    ],
)
def test_what_is_not_installed_is_named(
    published: Path, folder: Path, monkeypatch: pytest.MonkeyPatch, arguments: tuple[str, ...], package: str
) -> None:
    """A converter or runtime that is missing is told before any work, with the command that installs it."""
    monkeypatch.setitem(sys.modules, package, None)
    code, printed, errors = call(["export", published, *arguments])
    assert (code, printed) == (1, "")
    assert errors == (f"training: error: an export to {arguments[1]} needs {package}: pip install 'darkroom[export]'\n")
    assert list(folder.iterdir()) == []


def test_help_teaches(capsys: pytest.CaptureFixture[str]) -> None:
    """--help has both formats, what is kept, what has to be installed and the exit codes."""
    with pytest.raises(SystemExit) as exit_:
        main(["export", "--help"])
    assert exit_.value.code == 0
    printed = " ".join(capsys.readouterr().out.split())
    for words in ("--to {onnx,litert}", "--data PATH", "--output FILE", "darkroom[export]", "1e-3", "exit codes: 0"):
        assert words in printed
