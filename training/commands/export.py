"""``python -m training export``: write a published version as a file for another runtime, and compare the two."""

import argparse
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

import artifact
from artifact import Input, Metadata
from training.commands import labelled
from training.commands.options import LABELS, LAYOUT, MAX_UNREADABLE, add, data_of, reading_of
from training.data.dataset import Pixels, evenly_spaced
from training.data.pictures import Reading
from training.errors import Interruption
from training.evaluation.inference import openvino_answer, openvino_predict
from training.evaluation.out_of_distribution import KINDS, draw
from training.evaluation.tasks import thresholds_of
from training.publish import litert, onnx
from training.publish.conversion import require, whole_file

_FORMATS = {"onnx": onnx, "litert": litert}
_MOST_COMPARED = 500
_DRAWN_OF_A_KIND = 10


@dataclass(frozen=True)
class ExportSettings:
    """Which version is written as what; ``output`` is None for a name that follows from the version's."""

    version: Path
    to: str
    data: Path | None
    reading: Reading
    output: Path | None


def parse(arguments: Sequence[str]) -> ExportSettings:
    """Return what the command line asks for."""
    parser = argparse.ArgumentParser(
        prog="darkroom export",
        description="Write a version as one file for another runtime. The file takes the same pictures, uint8 "
        "[N, H, W, 3], and gives the same outputs: scaling, temperature and softmax are in it, and its labels too. It "
        "is read back by its own runtime and compared with the version, and kept only where it answers as it should.",
        epilog="onnx is float32, and kept where all outputs are within 1e-3 of the version's. litert is int8, and kept "
        "unless it costs more than 2 points of accuracy on the test pictures, beyond noise, or 0.02 of mean average "
        "precision where a picture may have several labels. Needs pip install "
        "'darkroom[export]'. exit codes: 0 written, 1 it failed (the last line says why), 2 wrong usage, 130 and 143 "
        "interrupted",
        allow_abbrev=False,
    )
    parser.add_argument("version", type=Path, help="folder of the version, e.g. models/cifar10/5")
    parser.add_argument("--to", required=True, choices=tuple(_FORMATS), help="for ONNX Runtime or LiteRT (TFLite)")
    parser.add_argument(
        "--data",
        type=Path,
        metavar="PATH",
        help="the data that it was trained on, which litert needs; onnx takes any with its labels (default for onnx: "
        "compare on drawn pictures)",
    )
    add(parser, (MAX_UNREADABLE, LAYOUT, LABELS))
    parser.add_argument(
        "--output",
        type=Path,
        metavar="FILE",
        help="file to write (default: NAME-VERSION.onnx or .tflite in the current folder)",
    )
    options = parser.parse_args(arguments)
    data = data_of(options)
    if options.to == "litert" and data is None:
        parser.error("--to litert needs --data: the ranges of int8 come from pictures of the training")
    return ExportSettings(options.version, options.to, data, reading_of(options), options.output)


def run(settings: ExportSettings, interruption: Interruption) -> int:
    """Write the file, compare it with the version and keep it; return the exit code.

    Raises:
        InvalidVersion: the folder is no version that can be trusted.
        AccuracyLost: int8 costs too much accuracy.
        TrainingError: a converter or runtime is not installed or fails, the data cannot be read or is other data than
            it was trained on, the file answers otherwise, or it cannot be written.
        OSError: the disk is full.
    """
    metadata = artifact.validate(settings.version)
    format_ = _FORMATS[settings.to]
    require(format_.NEEDS, f"an export to {settings.to}")
    output = settings.output or Path(f"{metadata.name}-{metadata.version}{format_.SUFFIX}")
    with whole_file(output) as draft:
        to = _to_onnx if settings.to == "onnx" else _to_litert
        compared = to(settings, metadata, draft)
        interruption.check()
    print(f"Wrote {output} ({output.stat().st_size / 1e6:.1f} MB): {compared}.")
    return 0


def _to_onnx(settings: ExportSettings, metadata: Metadata, draft: Path) -> str:
    """Write and compare; return in words how well it does."""
    images, what = _pictures(settings, metadata)
    print(f"Converting {settings.version} to ONNX.", flush=True)
    onnx.convert(settings.version, metadata, draft)
    compared_on = f"{len(images):,} pictures ({what})"
    print(f"Comparing on {compared_on}.", flush=True)
    gap = onnx.compare(onnx.answer(draft), openvino_answer(settings.version), images)
    return f"all outputs within {gap:.1g} of the version's on {compared_on}"


def _pictures(settings: ExportSettings, metadata: Metadata) -> tuple[Pixels, str]:
    """Return pictures to compare on, and in words what they are."""
    if settings.data is None:
        return _drawn(metadata.input), "drawn"
    source = labelled.Source(
        settings.data,
        settings.reading.max_unreadable,
        settings.reading.layout,
        "test",
        json=False,
        labels=settings.reading.labels,
    )
    pictures = labelled.for_version(metadata, source)
    return pictures.split.images[evenly_spaced(len(pictures.split), _MOST_COMPARED)], pictures.measured_on


def _drawn(size: Input) -> Pixels:
    """Return pictures of every kind that is drawn to measure the familiarity, uint8 [N, H, W, 3]."""
    known = draw("blobs", np.zeros((1, size.height, size.width, 3), np.uint8), _DRAWN_OF_A_KIND)
    return np.concatenate([draw(kind, known, _DRAWN_OF_A_KIND) for kind in KINDS])


def _to_litert(settings: ExportSettings, metadata: Metadata, draft: Path) -> str:
    """Write and compare; return in words how well it does."""
    version = settings.version
    dataset = labelled.of_training(version, metadata, settings.data, settings.reading)
    pictures = dataset.train.images[evenly_spaced(len(dataset.train), litert.CALIBRATION_IMAGES)]
    print(f"Converting {version} to LiteRT in int8, with the ranges of {len(pictures)} training pictures.", flush=True)
    litert.convert(version, metadata, pictures, draft)
    several = metadata.task == "multi-label"
    split = labelled.with_labels(dataset.test, dataset.labels, metadata.labels, multi_label=several)
    measured_on = f"{dataset.name} test"
    print(f"Comparing on {len(split):,} pictures ({measured_on}).", flush=True)
    found, expected = litert.predict(draft), openvino_predict(version)
    return str(litert.compare(found, expected, metadata.labels, split, measured_on, thresholds_of(metadata)))
