"""Engines: OpenVINO answers as TensorFlow does, and neither brings in what it should not."""

import pickle
import subprocess
import sys
import tarfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import openvino
import pytest

from artifact import InvalidVersion
from service.inference.engine import BrokenEngine, OpenVinoEngine, _candidates, load
from tests.models import SIDE, copy, publish_int8
from tests.service.running import ROOT

BUNDLED = ROOT / "models" / "cifar10" / "5"

MANY = 32  # images


def pictures(count: int, side: int = SIDE) -> Any:
    """Return random uint8 [count, side, side, 3]."""
    return np.random.default_rng(0).integers(0, 256, (count, side, side, 3), np.uint8)


def cifar10_test_images(archive: Path) -> Any:
    """Return the test images of CIFAR-10's python archive, uint8 [10000, 32, 32, 3]."""
    with tarfile.open(archive) as files:
        member = files.extractfile("cifar-10-batches-py/test_batch")
        assert member is not None
        batch = pickle.load(member, encoding="bytes")  # noqa: S301 - the archive that the tests are given
    return batch[b"data"].reshape(-1, 3, 32, 32).transpose(0, 2, 3, 1)


def in_tensorflow(version: Path, images: Any, folder: Path) -> Any:
    """Return what the TensorFlow engine answers, computed in another process."""
    np.save(folder / "images.npy", images)
    code = """
import sys, pathlib, numpy as np
from service.inference.engine import load
engine = load("tensorflow", pathlib.Path(sys.argv[1]), "float32", 1)
images = np.load(sys.argv[2])
batches = [images[start : start + 100] for start in range(0, len(images), 100)]
parts = [engine.predict(batch, embedding=engine.embedding > 0) for batch in batches]
np.save(sys.argv[3], np.concatenate(parts))
"""
    arguments = [str(version), str(folder / "images.npy"), str(folder / "answers.npy")]
    subprocess.run([sys.executable, "-c", code, *arguments], cwd=ROOT, check=True, capture_output=True)
    return np.load(folder / "answers.npy")


def in_openvino(version: Path, images: Any, precision: str = "float32") -> Any:
    """Return what the OpenVINO engine answers."""
    engine = load("openvino", version, precision, threads=1)
    return np.concatenate([engine.predict(images[at : at + MANY]) for at in range(0, len(images), MANY)])


def test_openvino_answers_every_batch_size(published: Path) -> None:
    """Batches of any size give float32 rows that do not depend on what else is in the batch."""
    engine = OpenVinoEngine(published, "float32", threads=1)
    images = pictures(MANY)
    whole = engine.predict(images)
    assert whole.dtype == np.float32
    assert whole.shape == (MANY, 3)
    np.testing.assert_allclose(whole.sum(axis=1), 1, atol=1e-5)
    for size in (1, 2, 7):
        np.testing.assert_allclose(engine.predict(images[:size]), whole[:size], atol=1e-6)


@pytest.mark.parametrize("threshold", [None, 4.0])
def test_the_embedding_comes_where_it_is_asked_for(embedding: Path, tmp_path: Path, threshold: float | None) -> None:
    """Each stream gives it as the last columns, behind what it gives without."""
    engine = OpenVinoEngine(copy(embedding, tmp_path, 1, threshold=threshold), "float32", threads=2)
    assert engine.embedding == 4
    images = pictures(5)
    means = images.mean(axis=(1, 2)) / 255
    expected = np.hstack([engine.predict(images), means, means.sum(axis=1, keepdims=True)])
    for stream in (None, 0, 1):
        np.testing.assert_allclose(engine.predict(images, stream, embedding=True), expected, atol=1e-5)


def test_a_version_without_an_embedding_says_so(published: Path) -> None:
    """The engine then tells of no numbers."""
    assert OpenVinoEngine(published, "float32", threads=1).embedding == 0


@pytest.mark.parametrize(("threads", "threshold"), [(1, None), (2, None), (3, None), (2, 4.0)])
def test_every_stream_answers_as_the_whole(
    published: Path, tmp_path: Path, threads: int, threshold: float | None
) -> None:
    """Each stream, on its own or beside the others, gives what all cores together give, the familiarity included."""
    version = copy(published, tmp_path, 1, threshold=threshold)
    engine = OpenVinoEngine(version, "float32", threads=threads)
    assert engine.streams == threads
    images = pictures(MANY)
    whole = engine.predict(images)
    assert np.ptp(whole, axis=0).min() > 0.001, "all pictures look the same to it, so this test would prove nothing"
    for stream in range(engine.streams):
        np.testing.assert_allclose(engine.predict(images, stream), whole, atol=1e-5)
    with ThreadPoolExecutor(threads) as pool:
        parts = [images[stream::threads] for stream in range(threads)]
        for _ in range(20):
            answers = list(pool.map(engine.predict, parts, range(threads)))
            for stream in range(threads):
                np.testing.assert_allclose(answers[stream], whole[stream::threads], atol=1e-5)


def test_answers_are_kept(published: Path) -> None:
    """An answer does not change when the engine runs again: it is no view of the engine's memory."""
    engine = OpenVinoEngine(published, "float32", threads=1)
    first = engine.predict(pictures(2))
    kept = first.copy()
    engine.predict(pictures(4)[2:])
    np.testing.assert_array_equal(first, kept)


@pytest.mark.process
@pytest.mark.slow
def test_engines_agree(published: Path, tmp_path: Path) -> None:
    """OpenVINO in float32 is within 1e-3 of TensorFlow, the reference, and in bfloat16 picks the same clear labels."""
    images = pictures(200)
    images[:100] = images[:100] // 8  # dark pictures next to bright ones
    reference = in_tensorflow(published, images, tmp_path)
    np.testing.assert_allclose(in_openvino(published, images), reference, atol=1e-3)
    np.testing.assert_allclose(in_openvino(published, images, "bfloat16"), reference, atol=0.05)


@pytest.mark.process
@pytest.mark.slow
def test_engines_agree_on_familiarity(published: Path, tmp_path: Path) -> None:
    """Of a version with a threshold, both engines give the familiarity as a column behind the same probabilities."""
    version = copy(published, tmp_path, 1, threshold=4.0)
    images = pictures(100)
    images[:50] = images[:50] // 8
    answers = in_openvino(version, images)
    np.testing.assert_array_equal(answers[:, :3], in_openvino(published, images))
    np.testing.assert_allclose(answers, in_tensorflow(version, images, tmp_path), atol=1e-4)
    assert answers[:50, 3].max() < 2 < 4 < answers[50:, 3].min()


@pytest.mark.process
@pytest.mark.slow
def test_engines_agree_on_embeddings(embedding: Path, tmp_path: Path) -> None:
    """TensorFlow gives the same columns in the same order, the embedding last."""
    images = pictures(10)
    answers = OpenVinoEngine(embedding, "float32", threads=1).predict(images, embedding=True)
    np.testing.assert_allclose(answers, in_tensorflow(embedding, images, tmp_path), atol=1e-5)


@pytest.fixture(scope="module")
def by_tensorflow(cifar10_archive: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Any, Any]:
    """1,000 CIFAR-10 test images, and what TensorFlow answers them with the bundled model."""
    images = cifar10_test_images(cifar10_archive)[:1000]
    return images, in_tensorflow(BUNDLED, images, tmp_path_factory.mktemp("by-tensorflow"))


@pytest.mark.process
@pytest.mark.slow
@pytest.mark.skipif(not BUNDLED.is_dir(), reason="models/cifar10/5 is not there")
def test_engines_agree_on_test_images(by_tensorflow: tuple[Any, Any]) -> None:
    """With the bundled model both engines give every one of 1,000 CIFAR-10 test images the same label."""
    images, reference = by_tensorflow
    answers = in_openvino(BUNDLED, images)
    np.testing.assert_allclose(answers, reference, atol=1e-3)
    np.testing.assert_array_equal(answers[:, :10].argmax(axis=1), reference[:, :10].argmax(axis=1))


@pytest.mark.process
@pytest.mark.slow
@pytest.mark.skipif(not BUNDLED.is_dir(), reason="models/cifar10/5 is not there")
def test_bfloat16_answers_as_tensorflow_does(by_tensorflow: tuple[Any, Any]) -> None:
    """On 1,000 CIFAR-10 test images probabilities are within 0.15, and labels differ only where two are nearly tied."""
    images, reference = by_tensorflow[0], by_tensorflow[1][:, :10]
    answers = in_openvino(BUNDLED, images, "bfloat16")[:, :10]
    np.testing.assert_allclose(answers, reference, atol=0.15)
    assert np.abs(answers - reference).mean() < 1e-3
    best = np.sort(reference, axis=1)
    clear = best[:, -1] - best[:, -2] > 0.2
    assert clear.mean() > 0.9
    np.testing.assert_array_equal(answers.argmax(axis=1)[clear], reference.argmax(axis=1)[clear])


def test_int8_is_taken_where_the_version_has_it(published: Path, tmp_path: Path) -> None:
    """``int8`` runs the int8 network, ``auto`` too where the processor computes in int8; the others leave it alone."""
    version = publish_int8(published, tmp_path)
    red = np.full((1, SIDE, SIDE, 3), (255, 0, 0), np.uint8)
    in_float = OpenVinoEngine(version, "float32", threads=1)
    assert in_float.precision == "float32"
    assert in_float.predict(red)[0, 0] > 0.99
    capable = "INT8" in openvino.Core().get_property("CPU", "OPTIMIZATION_CAPABILITIES")
    for precision in ("int8", *(["auto"] if capable else [])):
        engine = OpenVinoEngine(version, precision, threads=1)
        assert engine.precision == "int8"
        assert engine.predict(red)[0, 0] == pytest.approx(0.96, abs=0.01)
    telling = OpenVinoEngine(copy(version, tmp_path, 9, threshold=4.0), "int8", threads=1)
    np.testing.assert_allclose(telling.predict(red)[0], [0.96, 0.02, 0.02, 4.0], atol=0.05)


def test_int8_is_refused_where_the_version_has_none(published: Path) -> None:
    """Asking for what a version does not carry is an error that says so, not another precision."""
    with pytest.raises(InvalidVersion, match="has no int8 network"):
        OpenVinoEngine(published, "int8", threads=1)


@pytest.mark.process
@pytest.mark.parametrize("module", ["tensorflow", "openvino_telemetry", "keras", "nncf"])
def test_openvino_brings_in_nothing_else(published: Path, module: str) -> None:
    """Serving with OpenVINO imports neither a training framework nor what would report its use."""
    code = f"""
import sys, pathlib
from service.inference.engine import load
load("openvino", pathlib.Path({str(published)!r}), "float32", 1)
assert sys.modules.get({module!r}) is None, "{module} was imported"
"""
    subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=True)


@pytest.mark.process
def test_a_signal_is_handled_after_updates(published: Path) -> None:
    """A process that has replaced its engine twice, from two threads, still lives to handle a signal."""
    code = """
import signal, sys, threading
from pathlib import Path
from service.inference.engine import load

engines = []

def replace():
    engines.append(load("openvino", Path(sys.argv[1]), "float32", 1))
    del engines[:-1]

signal.signal(signal.SIGTERM, lambda number, frame: print("handled"))
replace()
replace()
thread = threading.Thread(target=replace)
thread.start()
thread.join()
engines.clear()
signal.raise_signal(signal.SIGTERM)
"""
    process = subprocess.run(
        [sys.executable, "-c", code, str(published)], cwd=ROOT, capture_output=True, text=True, check=False, timeout=60
    )
    assert (process.returncode, process.stdout, process.stderr) == (0, "handled\n", "")


@pytest.mark.parametrize(
    ("precision", "int8", "capabilities", "expected"),
    [
        pytest.param("float32", True, ["BF16", "INT8"], (None, ["f32"]), id="as-asked-for"),
        pytest.param("bfloat16", False, [], (None, ["bf16"]), id="as-asked-for-though-slow"),
        pytest.param("auto", False, [], (None, ["f32"]), id="nothing-to-choose"),
        pytest.param("auto", False, ["BF16"], (None, ["f32", "bf16"]), id="two-to-choose-from"),
        pytest.param("auto", True, ["INT8"], ("int8", ["f32"]), id="int8"),
        pytest.param("auto", True, ["INT8", "BF16"], ("int8", ["f32", "bf16"]), id="two-for-what-int8-leaves"),
        pytest.param("auto", True, ["BF16"], (None, ["f32", "bf16"]), id="no-instructions-for-int8"),
        pytest.param("int8", True, [], ("int8", ["f32"]), id="int8-without-instructions"),
    ],
)
def test_what_may_compute(
    precision: str, int8: bool, capabilities: list[str], expected: tuple[str | None, list[str]]
) -> None:
    """What is tried follows from the wish, from what the version carries, and from the processor's instructions."""
    assert _candidates(precision, capabilities, int8=int8) == expected


def test_the_fastest_arithmetic_is_taken(published: Path) -> None:
    """Where the processor has two kinds, both were measured and the faster one serves; else there was no choice."""
    engine = OpenVinoEngine(published, "auto", threads=1)
    assert set(engine.measured) in (set(), {"float32", "bfloat16"})
    assert engine.precision == min(engine.measured or {"float32": 0.0}, key=lambda name: engine.measured.get(name, 0.0))
    assert OpenVinoEngine(published, "float32", threads=1).measured == {}


@pytest.mark.parametrize("count", [2, 3])
def test_the_answer_of_an_earlier_batch_is_no_answer(published: Path, count: int) -> None:
    """OpenVINO may leave what it answered before, without an error, once memory was short; that reaches nobody."""
    engine: Any = load("openvino", published, "float32", 1)
    pictures = np.zeros((count, SIDE, SIDE, 3), np.uint8)
    answer = engine.predict(pictures[:2])
    assert np.array_equal(engine.predict(pictures[:2]), answer)

    class Silent:
        def __init__(self, request: Any) -> None:
            self.get_tensor = request.get_tensor

        def infer(self, *_: object, **__: object) -> None:
            pass

    engine._whole, real = Silent(engine._whole), engine._whole
    with pytest.raises(BrokenEngine):
        engine.predict(pictures)
    engine._whole = real
    assert np.array_equal(engine.predict(pictures)[:2], answer)
