"""The command line teaches, publishes, and fails with a sentence and an exit code."""

import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

import artifact
from tests.drawings import drawing
from tests.training.conftest import SMOKE, Train, call, environment, python_layout, write_archive
from training.cli import main
from training.commands import train
from training.publish.model_card import calibration_in_words, familiarity_in_words


def test_help_teaches(capsys: pytest.CaptureFixture[str]) -> None:
    """--help has the defaults, examples and exit codes, and comes without loading TensorFlow."""
    with pytest.raises(SystemExit) as exit_:
        main(["--help"])
    printed = capsys.readouterr().out
    assert exit_.value.code == 0
    for word in ("--data", "--models", "--preset", "--config", "examples:", "exit codes", "3 not published"):
        assert word in printed
    for command in (
        "compare VERSION VERSION", "evaluate VERSION", "export VERSION --to onnx|litert", "predict VERSION PATH...",
        "quantize VERSION",
    ):  # fmt: skip
        assert f"darkroom {command} [options]" in printed


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--colour"], "unrecognized arguments: --colour"),
        (["--epochs", "0"], "0 is below 1"),
        (["--minutes", "-1"], "-1 is not a number from 0"),
        (["--minutes", "soon"], "'soon' is not a number"),
        (["--no-deterministic"], "unrecognized arguments: --no-deterministic"),
        (["--epochs", "many"], "'many' is not a whole number"),
        (["--preset", "fastest"], "invalid choice: 'fastest'"),
        (["--name", "../x"], "must consist of letters"),
        (["--image-size", "large"], "'large' is neither a number of pixels nor HEIGHTxWIDTH"),
        (["--image-size", "32x32x3"], "'32x32x3' is neither a number"),
        (["--image-size", "4"], "4 is not between 16 and 1024 pixels"),
        (["--image-size", "32x5000"], "32x5000 is not between 16 and 1024 pixels"),
        (["--resize", "pad"], "invalid choice: 'pad'"),
        (["--max-unreadable", "some"], "'some' is not a number"),
        (["--max-unreadable", "nan"], "nan is not between 0 and 1"),
        (["--max-unreadable", "10"], "10 is not between 0 and 1"),
        (["evaluate"], "required: version"),
        (["quantize"], "required: version"),
        (["compare", "models/cifar10/5"], "required: B"),
        (["compare", "models/cifar10/5", "models/cifar10/5", "--split", "train"], "invalid choice: 'train'"),
        (["predict", "models/cifar10/5"], "required: PATH"),
        (["predict", "models/cifar10/5", "a.jpg", "--top", "0"], "--top: 0 is below 1"),
        (["quantize", "models/cifar10/5", "--epochs", "1"], "unrecognized arguments: --epochs"),
        (["export", "models/cifar10/5"], "required: --to"),
        (["export", "models/cifar10/5", "--to", "litert"], "--to litert needs --data"),
    ],
)
def test_wrong_usage_is_exit_code_2(arguments: list[str], message: str, capsys: pytest.CaptureFixture[str]) -> None:
    """An argument that cannot be meant is named on the last line."""
    with pytest.raises(SystemExit) as exit_:
        main(arguments)
    assert exit_.value.code == 2
    assert message in capsys.readouterr().err.splitlines()[-1]


@pytest.mark.parametrize(("text", "size"), [("64", (64, 64)), ("48x96", (48, 96)), ("224X160", (224, 160))])
def test_an_image_size_is_a_side_or_height_and_width(text: str, size: tuple[int, int]) -> None:
    """One number is a square; of two, the first is the height, as everywhere in the metadata."""
    assert train.parse(["--image-size", text]).image_size == size


@pytest.mark.keras
def test_a_run_publishes_a_valid_version(smoke: tuple[Path, str]) -> None:
    """The smoke preset ends in a version that validates, and evaluate measures what the metadata says."""
    path, printed = smoke
    metadata = artifact.validate(path)
    assert metadata.labels == ("disc", "square", "stripes")
    assert metadata.metrics.accuracy > 0.9
    plots = {"confusion_matrix.png", "learning_curves.png", "mistakes.png", "reliability.png", "report.html"}
    assert {"MODEL_CARD.md", *plots} <= {entry.name for entry in (path / "assets.extra").iterdir()}
    assert f"accuracy {metadata.metrics.accuracy:.2%} of 500 images" in printed
    assert re.search(rf"\nsmoke version 1, after \d+ s: {path}\n  accuracy  ", printed)
    code, measured, errors = call(["evaluate", path])
    assert code == 0, errors
    assert measured.splitlines()[-1] in printed.splitlines()


@pytest.mark.keras
def test_a_run_says_how_far_to_trust_it(smoke: tuple[Path, str]) -> None:
    """Temperature and threshold come from the held-out images, and what they do is told, kept and in the card."""
    path, printed = smoke
    metadata = artifact.validate(path)
    calibration, familiarity = metadata.calibration, metadata.familiarity
    assert calibration is not None
    assert familiarity is not None
    assert calibration.measured_on == familiarity.measured_on == "made-up validation"
    assert calibration.images == familiarity.images == 200
    assert calibration.negative_log_likelihood < calibration.negative_log_likelihood_before
    assert metadata.metrics.expected_calibration_error is not None
    assert metadata.metrics.expected_calibration_error < 0.05 < calibration.expected_calibration_error_before
    measured = metadata.metrics.out_of_distribution
    assert measured is not None
    assert measured["noise"]["auroc"] > 0.9
    assert 0 <= measured["flat"]["unfamiliar"] <= 1
    card = (path / "assets.extra" / "MODEL_CARD.md").read_text(encoding="utf-8")
    for words in (calibration_in_words(calibration), familiarity_in_words(familiarity)):
        assert words in printed
        assert words in card
    assert f"| noise | every pixel of a colour of its own | {measured['noise']['auroc']:.3f} |" in card
    assert "(reliability.png)" in card


@pytest.mark.keras
@pytest.mark.slow
def test_a_run_can_start_from_a_version(smoke: tuple[Path, str], tmp_path: Path) -> None:
    """With --start-from the first epoch begins where the version ended, and the metadata says where that was.

    With no held-out images, it says that nothing was calibrated.
    """
    folders = ("--models", tmp_path / "m", "--run", tmp_path / "r")
    arguments = ("--validation-images", "0", *folders, "--start-from", smoke[0])
    code, printed, errors = call([*SMOKE, "--epochs", "1", *arguments])
    assert code == 0, errors
    metadata = artifact.validate(tmp_path / "m" / "smoke" / "1")
    assert metadata.training["start_from"]["training"]["epochs"] == 3
    assert "Not calibrated, and no threshold for familiar pictures" in printed
    assert (metadata.calibration, metadata.familiarity) == (None, None)
    assert metadata.metrics.out_of_distribution is not None
    assert set(metadata.metrics.out_of_distribution["noise"]) == {"auroc"}
    first_epoch = re.search(r"epoch 1/1 .*?accuracy (\S+)", printed)
    assert first_epoch is not None
    assert float(first_epoch[1]) > 0.95  # at random it begins below 0.92
    other = write_archive(tmp_path / "cifar.tar.gz", python_layout())
    code, _, errors = call(["--precision", "float32", "--data", other, *arguments])
    assert code == 1
    assert "knows disc, square, stripes; the data has airplane" in errors


@pytest.mark.process
@pytest.mark.slow
def test_another_keras_backend_trains_too(run_training: Train, tmp_path: Path) -> None:
    """Under JAX the same code learns the same task; TensorFlow then publishes it."""
    pytest.importorskip("jax")
    done = run_training("--preset", "smoke", "--models", tmp_path, "--run", tmp_path / "run", KERAS_BACKEND="jax")
    assert done.returncode == 0, done.stderr
    metadata = artifact.validate(tmp_path / "smoke" / "1")
    assert metadata.training["backend"] == "jax"
    assert metadata.metrics.accuracy > 0.9


@pytest.mark.keras
@pytest.mark.process
@pytest.mark.slow
def test_a_signal_stops_and_the_same_command_resumes(root: Path, tmp_path: Path) -> None:
    """After SIGTERM or SIGINT the exit code says so, nothing is published, and the next call goes on and publishes."""
    arguments = (*SMOKE, "--epochs", "8", "--models", tmp_path / "m", "--run", tmp_path / "run")
    for number in (signal.SIGTERM, signal.SIGINT):
        with subprocess.Popen(
            [sys.executable, "-m", "training", *map(str, arguments)],
            cwd=root,
            env=environment(),
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        ) as process:
            assert process.stdout is not None
            next(line for line in process.stdout if line.startswith("epoch "))
            process.send_signal(number)
            _, errors = process.communicate(timeout=60)
        assert process.returncode == 128 + number
        assert (
            errors.splitlines()[-1]
            == f"Stopped by {number.name}. Give the same command again to go on from the last epoch."
        )
        assert artifact.versions(tmp_path / "m", "smoke") == []
    code, printed, errors = call(arguments)
    assert code == 0, errors
    assert re.search(r"Resuming .* after epoch [2-7] of 8", printed)
    assert "epoch 1/8" not in printed
    assert artifact.versions(tmp_path / "m", "smoke") == [1]


@pytest.mark.process
@pytest.mark.slow
def test_no_data_and_no_network(run_training: Train, tmp_path: Path) -> None:
    """Where CIFAR-10 can neither be found nor downloaded, the error says what to do."""
    nowhere = "http://127.0.0.1:9"
    done = run_training(
        "--models", tmp_path / "m", "--run", tmp_path / "r", KERAS_HOME=str(tmp_path), https_proxy=nowhere
    )
    assert done.returncode == 1
    assert re.fullmatch(r"training: error: CIFAR-10 could not be downloaded .* --data", done.stderr.splitlines()[-1])


@pytest.mark.keras
@pytest.mark.parametrize("cut", [None, 100])
def test_unreadable_data(tmp_path: Path, cut: int | None) -> None:
    """A missing archive and one cut short are each one sentence on the last line, and exit code 1."""
    path = tmp_path / "cifar.tar.gz"
    if cut:
        path.write_bytes(write_archive(path, python_layout()).read_bytes()[:cut])
    code, _, errors = call(["--data", path, "--models", tmp_path / "m", "--run", tmp_path / "r"])
    assert code == 1
    assert errors.startswith(f"training: error: {path} ")
    assert errors.count("\n") == 1


@pytest.mark.keras
def test_folders_that_may_be_classes_or_splits_are_told_by_an_option(tmp_path: Path) -> None:
    """Without it nothing is trained, and the sentence names it; with it they are what it says."""
    for name in ("bus/1.png", "car/2.png", "train/steam/3.png"):
        (tmp_path / "data" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "data" / name).write_bytes(drawing("disc"))
    places = ("--data", tmp_path / "data", "--models", tmp_path / "m", "--run", tmp_path / "r")
    code, _, errors = call([*SMOKE, *places])
    assert (code, errors.count("\n")) == (1, 1)
    assert "beside bus, car, which look like classes; --layout classes takes all of them for classes" in errors
    assert "has one picture in each class" in call([*SMOKE, *places, "--layout", "classes"])[2]
    assert "has one class, steam" in call([*SMOKE, *places, "--layout", "splits"])[2]


@pytest.mark.keras
def test_an_unwritable_folder_is_found_before_training(tmp_path: Path) -> None:
    """A model folder that cannot be written stops the run at once, not at its end."""
    (tmp_path / "file").write_text("not a folder")
    code, printed, errors = call([*SMOKE, "--models", tmp_path / "file" / "m", "--run", tmp_path / "r"])
    assert code == 1
    assert errors == (
        f"training: error: {tmp_path}/file/m cannot be written (Not a directory); choose another folder\n"
    )
    assert "epoch" not in printed


def test_evaluate_names_what_is_wrong(tmp_path: Path) -> None:
    """A folder that is no version is an error of one line."""
    code, printed, errors = call(["evaluate", tmp_path])
    assert (code, printed) == (1, "")
    assert errors == f"training: error: {tmp_path}: saved_model.pb is missing\n"


@pytest.mark.process
@pytest.mark.slow
def test_a_signal_while_publishing_leaves_nothing(root: Path, tmp_path: Path) -> None:
    """SIGTERM between training and publishing removes the draft and keeps the checkpoint."""
    models, run = tmp_path / "m", tmp_path / "run"
    arguments = ("--preset", "smoke", "--epochs", "1", "--models", str(models), "--run", str(run))
    with subprocess.Popen(
        [sys.executable, "-m", "training", *arguments], cwd=root, env=environment(), stderr=subprocess.PIPE, text=True
    ) as process:
        while not list(models.glob("smoke/.draft-*")):
            assert process.poll() is None, "it ended before it could be stopped"
            time.sleep(0.005)
        process.terminate()
        _, errors = process.communicate(timeout=60)
    assert process.returncode == 128 + signal.SIGTERM, errors
    assert list(models.iterdir()) == []
    assert (run / "epoch-1").is_dir()
