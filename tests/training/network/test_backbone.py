"""Transfer learning keeps what the backbone knows, learns a new head, and publishes like any other network."""

import inspect
from pathlib import Path

import keras
import numpy as np
import pytest

import artifact
from tests.training.conftest import python_layout, write_archive
from training.cli import main
from training.data.dataset import Dataset
from training.errors import TrainingError
from training.fit.checkpoints import RunFolder, RunState
from training.fit.defaults import for_data
from training.fit.optimizer import FineTuning, optimizer
from training.network.backbone import build_on_backbone, describe_weights, embedding_of, preprocess
from training.network.model import build, every_layer, in_float32, megaflops
from training.network.registry import BACKBONES
from training.publish.export import read_weights

pytestmark = pytest.mark.keras

NAME = "MobileNet"
SHAPE = (32, 32, 3)


@pytest.fixture(scope="module")
def pretrained(tmp_path_factory: pytest.TempPathFactory) -> tuple[keras.Model, Path]:
    """Return a backbone whose batch statistics fit to pictures, as after a training, and a file of its weights."""
    keras.utils.set_random_seed(0)
    backbone = keras.applications.MobileNet(include_top=False, weights=None, input_shape=SHAPE)
    for layer in backbone.layers:
        if isinstance(layer, keras.layers.BatchNormalization):
            layer.momentum = 0.0
    pixels = np.random.default_rng(0).integers(256, size=(64, *SHAPE)).astype(np.float32)
    backbone(pixels / 127.5 - 1, training=True)
    path = tmp_path_factory.mktemp("backbone") / "small.weights.h5"
    backbone.save_weights(path)
    return backbone, path


def test_the_table_has_all_backbones_and_how_they_want_their_pixels() -> None:
    """Every network of keras.applications can be chosen, and gets pixels as Keras's own function prepares them."""
    offered = {name for name, value in vars(keras.applications).items() if name[0].isupper() and callable(value)}
    assert offered == {name for name, backbone in BACKBONES.items() if not backbone.package}
    pixels = np.random.default_rng(0).integers(256, size=(2, 5, 6, 3)).astype(np.float32)
    for name in offered:
        mode = BACKBONES[name].preprocessing
        family = inspect.getmodule(getattr(keras.applications, name)).__name__.rpartition(".")[2]  # type: ignore[union-attr]
        expected = getattr(keras.applications, family).preprocess_input(pixels.copy())
        np.testing.assert_allclose(np.asarray(preprocess(pixels, mode)), expected, rtol=1e-5, atol=1e-4, err_msg=name)


def test_a_backbone_answers_with_logits(pretrained: tuple[keras.Model, Path]) -> None:
    """The network is the backbone of the file with the mean of its maps below the head; the costs of both count."""
    backbone, path = pretrained
    model = build_on_backbone(SHAPE, 3, NAME, str(path), seed=0)
    pixels = np.random.default_rng(1).integers(256, size=(4, *SHAPE)).astype(np.float32)
    kernel, bias = model.get_layer("head").get_weights()
    expected = np.asarray(backbone(pixels / 127.5 - 1, training=False)).mean(axis=(1, 2)) @ kernel + bias
    np.testing.assert_allclose(np.asarray(model(pixels, training=False)), expected, atol=1e-4)
    assert megaflops(model) == pytest.approx(megaflops(backbone) + 2 * 1024 * 3 / 1e6)


def test_the_embedding_is_what_the_head_works_on(pretrained: tuple[keras.Model, Path]) -> None:
    """It is the mean of the backbone's maps, also of a copy in float32; the project's own networks have none."""
    backbone, path = pretrained
    model = build_on_backbone(SHAPE, 3, NAME, str(path), seed=0)
    pixels = np.random.default_rng(1).integers(256, size=(4, *SHAPE)).astype(np.float32)
    expected = np.asarray(backbone(pixels / 127.5 - 1, training=False)).mean(axis=(1, 2))
    for network in (model, in_float32(model)):
        found = keras.Model(network.input, embedding_of(network))(pixels, training=False)
        np.testing.assert_allclose(np.asarray(found), expected, atol=1e-3)
    assert embedding_of(build(SHAPE, 3, (8, 16), seed=0)) is None


@pytest.mark.slow
def test_a_backbone_trained_in_bfloat16_is_served_in_float32(pretrained: tuple[keras.Model, Path]) -> None:
    """The copy computes in float32 in all its parts and answers as one that was built in float32."""
    keras.mixed_precision.set_global_policy("mixed_bfloat16")
    try:
        model = build_on_backbone(SHAPE, 3, NAME, str(pretrained[1]), seed=0)
    finally:
        keras.mixed_precision.set_global_policy("float32")
    copy = in_float32(model)
    assert "bfloat16" in {layer.compute_dtype for layer in every_layer(model)}
    assert {layer.compute_dtype for layer in every_layer(copy)} == {"float32"}
    pixels = np.random.default_rng(1).integers(256, size=(4, *SHAPE)).astype(np.float32)
    expected, found = (
        np.asarray(network(pixels, training=False))
        for network in (build_on_backbone(SHAPE, 3, NAME, str(pretrained[1]), seed=0), copy)
    )
    np.testing.assert_allclose(found, expected, atol=1e-4)


def test_the_head_learns_before_the_backbone() -> None:
    """For head_steps only the head moves, without decay elsewhere; then the backbone does, at its lower rate."""
    images = keras.Input((1,))
    model = keras.Model(images, keras.layers.Dense(1, name="head")(keras.layers.Dense(1, name="body")(images)))
    body, head = (model.get_layer(name).kernel for name in ("body", "head"))
    body.assign([[1.0]])
    head.assign([[1.0]])
    learning = FineTuning(2, 0.1, learning_rate=0.01, weight_decay=0.5)
    learning.build(model.trainable_variables)
    moved = []
    for _ in range(3):
        learning.apply([np.ones(weight.shape, np.float32) for weight in model.trainable_variables])
        moved.append((1 - float(body[0, 0]), 1 - float(head[0, 0])))
    assert [step[0] for step in moved] == pytest.approx([0, 0, 0.001], abs=1e-5)
    assert moved[0][1] == pytest.approx(0.01 + 0.01 * 0.5, abs=1e-5)  # Adam's first step is the rate itself; and decay
    assert learning.get_config()["head_steps"] == 2


@pytest.mark.slow
def test_the_command_line_publishes_a_head_on_a_backbone(
    pretrained: tuple[keras.Model, Path], tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    """--backbone ends in a checked version: the file's weights below a new head, and on record what it was made of."""
    archive = write_archive(tmp_path / "cifar.tar.gz", python_layout())
    folders = ["--models", str(tmp_path / "m"), "--run", str(tmp_path / "r"), "--data", str(archive)]
    backbone = ["--backbone", NAME, "--backbone-weights", str(pretrained[1]), "--epochs", "2", "--precision", "float32"]
    assert main([*folders, *backbone, "--validation-images", "4", "--name", "pets"]) == 0, capfd.readouterr().err
    version = tmp_path / "m" / "pets" / "1"
    training = artifact.validate(version).training
    assert (training["backbone"], training["backbone_weights"]) == (NAME, describe_weights(str(pretrained[1])))
    assert "Not tuned, in spite of --epochs: with 4 images held out" in capfd.readouterr().out
    paths = [weight.path for weight in pretrained[0].weights]
    changed = [
        path
        for path, before, after in zip(paths, pretrained[0].get_weights(), read_weights(version), strict=False)
        if not np.allclose(before, after, atol=1e-6)
    ]
    assert not changed


@pytest.mark.slow
def test_a_checkpoint_holds_all_of_it(pretrained: tuple[keras.Model, Path], small: Dataset, tmp_path: Path) -> None:
    """Weights and the optimizer's state come back into a network that has others."""
    chosen = for_data(small, backbone=NAME, backbone_weights=str(pretrained[1]), epochs=1)
    models = []
    for seed in (0, 1):
        model = build_on_backbone(SHAPE, 3, NAME, str(pretrained[1]), seed)
        model.compile(optimizer=optimizer(chosen, 1))
        model.optimizer.build(model.trainable_variables)
        models.append(model)
    for number, variable in enumerate(models[0].optimizer.variables):
        variable.assign(np.full(variable.shape, number))
    models[1].set_weights([np.zeros_like(weight) for weight in models[1].get_weights()])
    RunFolder(tmp_path).save(models[0], RunState({}, {}, epoch=1))
    RunFolder(tmp_path).load(models[1])
    saved, loaded = ([*model.weights, *model.optimizer.variables] for model in models)
    for expected, found in zip(saved, loaded, strict=True):
        np.testing.assert_array_equal(np.asarray(found), np.asarray(expected))


def test_at_random_a_backbone_learns_as_any_network(small: Dataset) -> None:
    """Without pretrained weights nothing is frozen: plain AdamW, and batch statistics that follow the pictures."""
    chosen = for_data(small, backbone=NAME, backbone_weights="none", epochs=1)
    assert type(optimizer(chosen, 1)) is keras.optimizers.AdamW
    model = build_on_backbone(SHAPE, 3, NAME, "none", seed=0)
    (mean,) = (weight for weight in model.weights if weight.path.startswith("conv1_bn/moving_mean"))
    before = np.asarray(mean)
    model(small.train.images.astype(np.float32), training=True)
    assert not np.allclose(before, np.asarray(mean))


@pytest.mark.parametrize(
    ("name", "side", "weights", "message"),
    [
        ("MobileNetV9", 32, "none", "there is no backbone 'MobileNetV9'; choose one of .*, MobileNetV2, "),
        ("InceptionV3", 32, "none", "InceptionV3 cannot be built for pictures of 32x32 .* at least 75x75"),
        (NAME, 32, "other.weights.h5", "does not hold the weights of MobileNet without its top"),
        (NAME, 32, "damaged.h5", "does not hold the weights of MobileNet without its top"),
        (NAME, 32, "missing.h5", "does not hold the weights of MobileNet without its top"),
        (NAME, 32, "text.txt", "does not hold the weights of MobileNet without its top"),
    ],
)
def test_what_cannot_be_built_says_why(name: str, side: int, weights: str, message: str, tmp_path: Path) -> None:
    """A wrong name, pictures that are too small, and files of other weights are each a sentence that helps on."""
    images = keras.Input((4,))
    keras.Model(images, keras.layers.Dense(1)(images)).save_weights(tmp_path / "other.weights.h5")
    (tmp_path / "damaged.h5").write_bytes(b"damaged")
    (tmp_path / "text.txt").write_text("weights")
    with pytest.raises(TrainingError, match=message):
        build_on_backbone((side, side, 3), 3, name, weights if weights == "none" else str(tmp_path / weights), seed=0)


def test_weights_that_cannot_be_downloaded(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Without a network and without Keras's cache the error says to fetch the file and how to give it."""
    monkeypatch.setattr("keras.src.utils.file_utils.config.keras_home", lambda: str(tmp_path))
    monkeypatch.setenv("https_proxy", "http://127.0.0.1:9")
    with pytest.raises(TrainingError, match=r"could not be downloaded .* give its path with --backbone-weights"):
        build_on_backbone(SHAPE, 3, NAME, "imagenet", seed=0)


def test_weights_are_described_without_the_machine(tmp_path: Path) -> None:
    """A file is its name and its sha256, wherever it lies; one that is not there is an error."""
    (tmp_path / "w.h5").write_bytes(b"")
    empty = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"
    assert describe_weights(str(tmp_path / "w.h5")) == f"w.h5, sha256 {empty}"
    assert describe_weights("imagenet") == "imagenet"
    with pytest.raises(TrainingError, match=r"missing\.h5 cannot be read .*--backbone-weights takes a file"):
        describe_weights(str(tmp_path / "missing.h5"))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--backbone", "MobileNet9"], "invalid choice: 'MobileNet9' (choose from "),
        (["--backbone", NAME, "--preset", "standard"], "not allowed with argument"),
    ],
)
def test_wrong_usage_of_backbones(arguments: list[str], message: str, capsys: pytest.CaptureFixture[str]) -> None:
    """A wrong name lists the right ones, and a preset, which has a network of its own, goes with no backbone."""
    with pytest.raises(SystemExit) as exit_:
        main(arguments)
    assert exit_.value.code == 2
    assert message in capsys.readouterr().err.splitlines()[-1]
