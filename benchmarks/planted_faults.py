"""How many planted faults ``python -m training check`` finds in a folder of pictures: wrong labels, near duplicates.

``python benchmarks/planted_faults.py FOLDER [--seeds 1 2 3]`` links the pictures into a folder beside, gives 5% of
them another label, and adds copies of another 5% that are resized, compressed anew, cropped, mirrored, brighter or
darker. It prints a line for each seed. What is found where nothing is planted is real, or false: ``--html`` shows it.
"""

import argparse
import contextlib
import io
import sys
import tempfile
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from PIL import Image, ImageEnhance, ImageOps

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from training.data.folders import File, Found, find
from training.fit.device import quiet_start

with quiet_start():
    from training.check.check import check
    from training.check.findings import Kind, Report
    from training.check.page import write_page
    from training.check.pictures import network
    from training.fit.features import Features

_SHARE = 0.05
_COPIES = (Kind.ACROSS_SPLITS, Kind.ACROSS_CLASSES, Kind.EXACT, Kind.NEAR)

Change = Callable[[Image.Image, np.random.Generator], Image.Image]


def _resized(image: Image.Image, rng: np.random.Generator) -> Image.Image:
    scale = rng.uniform(0.3, 0.8)
    return image.resize((max(32, round(scale * image.width)), max(32, round(scale * image.height))))


def _cropped(image: Image.Image, rng: np.random.Generator) -> Image.Image:
    """Keep 0.75 to 0.95 of each side, and nearly its aspect."""
    scale = rng.uniform(0.75, 0.95)
    width = round(image.width * min(scale * rng.uniform(0.95, 1.05), 1.0))
    height = round(image.height * scale)
    left, top = int(rng.integers(image.width - width + 1)), int(rng.integers(image.height - height + 1))
    return image.crop((left, top, left + width, top + height))


def _relit(image: Image.Image, rng: np.random.Generator) -> Image.Image:
    factor = rng.uniform(0.6, 0.85) if rng.random() < 0.5 else rng.uniform(1.15, 1.5)
    return ImageEnhance.Brightness(image).enhance(factor)


CHANGES: dict[str, tuple[Change, int]] = {
    "resized": (_resized, 90),
    "recompressed": (lambda image, _rng: image, 35),
    "cropped": (_cropped, 90),
    "mirrored": (lambda image, _rng: ImageOps.mirror(image), 90),
    "relit": (_relit, 90),
    "cropped and mirrored": (lambda image, rng: ImageOps.mirror(_cropped(image, rng)), 75),
}
"""How copies are changed, each with the quality that it is saved with as a JPEG."""


def main() -> None:
    """Print what is found for each seed."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--seeds", type=int, nargs="+", default=[1, 2, 3])
    parser.add_argument("--html", type=Path, metavar="FILE", help="write the page of the folder as it is")
    parser.add_argument("--features", type=Path, metavar="FILE", help="keep the features there (.npz)")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as beside:
        known = Features(options.features or Path(beside) / "features.npz", network)
        before = _checked(options.folder, known)
        if options.html:
            write_page(before, options.html)
        copies = {found.path: found.beside[0] for kind in _COPIES for found in before.of(kind)}
        print(
            f"{before.pictures:,} pictures; as they are: {len(copies)} duplicates, {_wrong(before)} labels called wrong"
        )
        print("seed  labels found  precision  copies found  false copies  seconds")
        for seed in options.seeds:
            planted = Path(beside) / f"planted-{seed}"
            faults = plant(find(options.folder), options.folder, planted, seed)
            report = _checked(planted, known)
            print(f"{seed:4}  {_measured(report, faults, copies)}", flush=True)


@dataclass
class Planted:
    """Paths in a folder with faults: of wrong labels, of copies with their kinds, and what each was before."""

    labels: set[str] = field(default_factory=set)
    copies: dict[str, str] = field(default_factory=dict)
    original: dict[str, str] = field(default_factory=dict)


def plant(found: Found, folder: Path, planted: Path, seed: int) -> Planted:
    """Link the pictures of ``folder`` into folder ``planted``, with faults."""
    rng = np.random.default_rng(seed)
    files = [*found.train, *(found.validation or []), *(found.test or [])]
    number = round(_SHARE * len(files))
    chosen = rng.permutation(len(files))
    wrong, copied = set(chosen[:number].tolist()), chosen[number : 2 * number].tolist()
    faults = Planted()
    for place, file in enumerate(files):
        original = path = file.path.relative_to(folder)
        if place in wrong:
            path = _relabelled(path, file, str(rng.choice([label for label in found.labels if label != file.label])))
            faults.labels.add(path.as_posix())
        link = planted / path
        link.parent.mkdir(parents=True, exist_ok=True)
        link.symlink_to(file.path.resolve())
        faults.original[path.as_posix()] = original.as_posix()
    for turn, place in enumerate(copied):
        name, (change, quality) = list(CHANGES.items())[turn % len(CHANGES)]
        original = files[place].path.relative_to(folder)
        path = original.with_name(f"planted-{turn}-of-{original.stem}.jpg")
        image = ImageOps.exif_transpose(Image.open(files[place].path)).convert("RGB")
        change(image, rng).save(planted / path, quality=quality)
        faults.copies[path.as_posix()] = name
        faults.original[path.as_posix()] = original.as_posix()
    return faults


def _relabelled(path: Path, file: File, label: str) -> Path:
    root = path.parents[len(Path(file.name).parts) - 1]
    return root / label / f"planted-{path.name}"


def _measured(report: Report, faults: Planted, before: dict[str, str]) -> str:
    """Return the figures of a seed; ``before`` are the duplicates of the folder as it is, each with what it copies."""
    called = {found.path for found in report.of(Kind.WRONG_LABEL)}
    copies = [found for kind in _COPIES for found in report.of(kind)]
    together = {path for found in copies for path in (found.path, *found.beside)}
    missed = faults.copies.keys() - together

    def source(path: str) -> str:
        original = faults.original[path]
        return before.get(original, original)

    false = sum(source(found.path) != source(found.beside[0]) for found in copies)
    right, added = len(called & faults.labels), len(faults.copies)
    kinds = f"  (missed: {', '.join(sorted(faults.copies[path] for path in missed))})" if missed else ""
    return (
        f"{right:4}/{len(faults.labels)} {right / len(faults.labels):5.0%}  {right / max(len(called), 1):9.0%}  "
        f"{added - len(missed):4}/{added} {1 - len(missed) / added:5.0%}  {false:6}/{len(copies)}  "
        f"{report.seconds:7.0f}{kinds}"
    )


def _wrong(report: Report) -> int:
    return len(report.of(Kind.WRONG_LABEL))


def _checked(folder: Path, known: Features) -> Report:
    with contextlib.redirect_stdout(io.StringIO()):
        return check(folder, known)


if __name__ == "__main__":
    main()
