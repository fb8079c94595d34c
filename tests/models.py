"""Makes a small real model version without the trainer: it tells red, green and blue pictures apart.

``python -m tests.models JSON`` publishes one or more: a list of model folder, pixels each way, and whether with an
embedding.
"""

import dataclasses
import json
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from artifact import Familiarity, Input, Int8, Metadata, Metrics, draft, read_metadata, version_path
from artifact.layout import INT8_MODEL, METADATA
from artifact.validate import checksums

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

LABELS = ("red", "green", "blue")
SIDE = 32  # pixels


def publish(
    models: Path,
    name: str = "colours",
    labels: tuple[str, ...] = LABELS,
    side: int = SIDE,
    *,
    embedding: bool = False,
) -> Path:
    """Publish the next version of model ``name`` under ``models`` and return its folder. Imports TensorFlow.

    Its images have ``side`` x ``side`` pixels. The answer is softmax(8 * mean colour) over the channels, so that a pure
    colour has a probability above 0.99. Its familiarity is 8.0 for a pure colour and 1.1 for black; the metadata has no
    threshold for it. With ``embedding`` it has one as well: the mean colour, 0 to 1, and their sum.
    """
    import tensorflow as tf

    with draft(models, name) as version:
        module = _module(tf, side, embedding)
        signatures = {"serving_default": module.serve_images, "serve_bytes": module.serve_bytes}
        tf.saved_model.save(module, str(version.path), signatures=signatures)
        (version.extra / "MODEL_CARD.md").write_text("# Colours\n\nTells red, green and blue apart.\n")
        return version.publish(metadata(name, labels, side))


def publish_in_a_process(models: Path, side: int = SIDE, *, embedding: bool = False) -> Path:
    """Publish the colours under ``models`` from another process, which keeps TensorFlow out of this one."""
    _in_a_process((models, side, embedding))
    return models / "colours" / "1"


def publish_both_in_a_process(folder: Path) -> None:
    """Publish the colours under ``plain`` and, with an embedding, ``embedding``; TensorFlow is imported once."""
    _in_a_process((folder / "plain", SIDE, False), (folder / "embedding", SIDE, True))


def _in_a_process(*versions: tuple[Path, int, bool]) -> None:
    asked = json.dumps([(str(models), *how) for models, *how in versions])
    subprocess.run([sys.executable, "-m", "tests.models", asked], check=True, capture_output=True)


def publish_int8(source: Path, models: Path) -> Path:
    """Publish the version in folder ``source`` with an int8 network as the next one under ``models``. Imports NNCF.

    The int8 network knows dark pictures only: of a pure colour it gives a probability of 0.96, so that the answer tells
    which network gave it.
    """
    import nncf
    import numpy as np
    import openvino

    record = read_metadata(source)
    dark = np.linspace(0, 127, SIDE * SIDE * 3).reshape(1, SIDE, SIDE, 3).astype(np.uint8)
    with draft(models, record.name) as version:
        shutil.copytree(source, version.path, dirs_exist_ok=True)
        (version.path / INT8_MODEL).parent.mkdir()
        left = nncf.IgnoredScope(types=["ReduceSum"], validate=False)  # of the familiarity
        model = openvino.Core().read_model(source)
        quantized = nncf.quantize(model, nncf.Dataset([dark]), subset_size=1, ignored_scope=left)
        openvino.save_model(quantized, version.path / INT8_MODEL)
        measured = Int8("none", images=0, accuracy=0.0, float32_accuracy=0.0, calibration_images=1)
        return version.publish(dataclasses.replace(record, int8=measured))


Term = Callable[[Any, Any], Any]
"""Makes of OpenVINO's operations and the brightest value of each image, [N, 1], what is added to its probabilities."""


def large(megabytes: int) -> Term:
    """Return nothing, by a tensor of ``megabytes`` for each image, which is there only while the network runs."""
    import numpy as np

    def term(ops: Any, brightest: Any) -> Any:
        row = ops.cum_sum(ops.tile(brightest, np.array([1, megabytes * 1024**2 // 4])), np.array(1))
        return ops.multiply(ops.reduce_min(row, np.array([1]), keep_dims=True), np.float32(0))

    return term


def slow(layers: int) -> Term:
    """Return nothing, by so many ``layers`` that compiling them takes a while: 20,000 some seconds."""
    import numpy as np

    def term(ops: Any, brightest: Any) -> Any:
        for _ in range(layers):
            brightest = ops.sin(brightest)
        return ops.multiply(brightest, np.float32(0))

    return term


def busy(layers: int) -> Term:
    """Return nothing, by convolutions that take a core more than half a millisecond each for an image."""
    import numpy as np

    def term(ops: Any, brightest: Any) -> Any:
        weights = np.random.default_rng(0).normal(0, 0.01, (64, 64, 3, 3)).astype(np.float32)
        maps = ops.tile(ops.reshape(brightest, np.array([-1, 1, 1, 1]), special_zero=False), np.array([1, 64, 56, 56]))
        for _ in range(layers):
            maps = ops.relu(ops.convolution(maps, weights, [1, 1], [1, 1], [1, 1], [1, 1]))
        mean = ops.reshape(ops.reduce_mean(maps, np.array([1, 2, 3])), np.array([-1, 1]), special_zero=False)
        return ops.multiply(mean, np.float32(0))

    return term


def dazzled(ops: Any, brightest: Any) -> Any:
    """Return NaN for images in which something is as bright as can be, and nothing for others."""
    import numpy as np

    return ops.multiply(ops.log(ops.subtract(np.float32(254.5), brightest)), np.float32(0))


def publish_with(term: Term, source: Path, models: Path) -> Path:
    """Publish the version in folder ``source`` as the next one, with an int8 network that adds ``term`` to its answers.

    The version is valid, and its files are small.
    """
    import numpy as np
    import openvino
    from openvino import opset13 as ops

    record = read_metadata(source)
    network = openvino.Core().read_model(source)
    [images] = network.get_parameters()
    brightest = ops.reduce_max(ops.convert(images, "f32"), np.array([1, 2, 3]), keep_dims=True)
    added = term(ops, ops.reshape(brightest, np.array([-1, 1]), special_zero=False))
    probabilities = ops.add(network.output("probabilities").node.input_value(0), added)
    probabilities.output(0).set_names({"probabilities"})
    with draft(models, record.name) as version:
        shutil.copytree(source, version.path, dirs_exist_ok=True)
        (version.path / INT8_MODEL).parent.mkdir(parents=True, exist_ok=True)
        openvino.save_model(openvino.Model([ops.result(probabilities)], [images]), version.path / INT8_MODEL)
        measured = Int8("none", images=0, accuracy=0.0, float32_accuracy=0.0, calibration_images=1)
        return version.publish(dataclasses.replace(record, int8=measured))


def metadata(name: str, labels: tuple[str, ...] = LABELS, side: int = SIDE) -> Metadata:
    """Return the metadata of such a version; ``publish`` fills in its number and its files."""
    return Metadata(
        name=name,
        version=0,
        labels=labels,
        input=Input(height=side, width=side),
        metrics=Metrics(measured_on="none", images=0, accuracy=0.0, expected_calibration_error=0.0),
        parameters=1,
        megaflops=0.01,
        created="2026-01-01T00:00:00+00:00",
        training={},
        dataset={},
        revision="unknown",
        libraries={},
        hardware="unknown",
        training_seconds=0.0,
    )


def _module(tf: Any, side: int, embedding: bool) -> Any:
    class Colours(tf.Module):  # type: ignore[misc]  # TensorFlow has no types
        def __init__(self) -> None:
            super().__init__()
            self.sharpness = tf.Variable(8.0)
            images = tf.TensorSpec([None, side, side, 3], tf.uint8, name="images")
            image_bytes = tf.TensorSpec([None], tf.string, name="image_bytes")
            self.serve_images = tf.function(self.classify, input_signature=[images])
            self.serve_bytes = tf.function(self.classify_bytes, input_signature=[image_bytes])

        def classify(self, images: Any) -> dict[str, Any]:
            means = tf.reduce_mean(tf.cast(images, tf.float32) / 255.0, axis=[1, 2])  # [N, 3]
            logits = self.sharpness * means
            total = tf.reduce_sum(means, axis=1, keepdims=True)  # [N, 1]
            return {
                "probabilities": tf.nn.softmax(logits),
                "familiarity": tf.math.log(tf.reduce_sum(tf.exp(logits), axis=1)),
                **({"embedding": tf.concat([means, total], axis=1)} if embedding else {}),
            }

        def classify_bytes(self, image_bytes: Any) -> dict[str, Any]:
            def decode(content: Any) -> Any:
                image = tf.io.decode_image(content, channels=3, expand_animations=False)
                return tf.cast(tf.image.resize(image, [side, side]), tf.uint8)

            images = tf.map_fn(decode, image_bytes, fn_output_signature=tf.uint8)
            return self.classify(tf.ensure_shape(images, [None, side, side, 3]))

    return Colours()


def copy(
    source: Path,
    models: Path,
    version: int,
    labels: tuple[str, ...] = LABELS,
    name: str = "colours",
    threshold: float | None = None,
    thresholds: tuple[float, ...] | None = None,
) -> Path:
    """Copy the version in folder ``source`` to ``version`` of model ``name``, with other labels, as one step.

    The labels tell which version answered; they are not under a checksum, as the rest of the metadata is not. With a
    ``threshold`` it tells which pictures are familiar; with ``thresholds``, in the order of the labels, it tells
    several labels of a picture.
    """
    target = version_path(models, name, version)
    target.parent.mkdir(parents=True, exist_ok=True)
    draft_path = target.with_name(f".draft-{version}")
    shutil.copytree(source, draft_path)
    record = json.loads((draft_path / METADATA).read_text(encoding="utf-8"))
    record.update(name=name, version=version, labels=list(labels))
    if threshold is not None:
        record.update(familiarity=dataclasses.asdict(Familiarity(threshold, share=0.95, measured_on="none", images=0)))
    if thresholds is not None:
        record.update(task="multi-label", thresholds=dict(zip(labels, thresholds, strict=True)))
    (draft_path / METADATA).write_text(json.dumps(record), encoding="utf-8")
    return draft_path.rename(target)


def add_reference(version: Path, images: "npt.NDArray[np.uint8]") -> None:
    """Have the version in folder ``version`` tell what it answers to ``images`` uint8 [N, H, W, 3]."""
    from training.evaluation.inference import answers_to
    from training.evaluation.reference import reference_of, write_embedding

    answers = answers_to(version, images)
    reference = reference_of(read_metadata(version).labels, answers, "drawn test")
    assert reference is not None
    if "embedding" in answers:
        write_embedding(version, answers["embedding"])
    record = dataclasses.replace(read_metadata(version), reference=reference, files=checksums(version))
    (version / METADATA).write_text(record.to_json(), encoding="utf-8")


def add_files(version: Path, files: dict[str, bytes]) -> None:
    """Write ``files``, by their paths in it, into the version in folder ``version``, with their checksums."""
    for name, content in files.items():
        (version / name).write_bytes(content)
    record = json.loads((version / METADATA).read_text(encoding="utf-8"))
    record["files"] = checksums(version)
    (version / METADATA).write_text(json.dumps(record), encoding="utf-8")


if __name__ == "__main__":
    for models_, side_, embedding_ in json.loads(sys.argv[1]):
        publish(Path(models_), side=side_, embedding=embedding_)
