"""How many planted faults ``check`` finds where pictures have several labels: labels that are missing, and too many.

``python benchmarks/planted_labels.py FOLDER TABLE [--seeds 1 2 3]`` takes 5% of the labels away, gives 5% of the
pictures one that they have not, and prints what is found of both kinds, and which share of what is told was planted.
"""

import argparse
import sys
import tempfile
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from training.data import label_table
from training.data.dataset import Classes
from training.fit.device import quiet_start

with quiet_start():
    from training.check import labels
    from training.check.neighbours import reduced
    from training.check.pictures import look, network
    from training.fit.features import Features
    from training.network.registry import BACKBONES, DEFAULT

_SHARE = 0.05


def main() -> None:
    """Print a line for each seed."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("table", type=Path)
    parser.add_argument("--seeds", type=int, nargs="+", default=[1, 2, 3])
    parser.add_argument("--features", type=Path, metavar="FILE", help="keep the features there (.npz)")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as beside:
        features = Features(options.features or Path(beside) / "features.npz", network)
        pictures = look(label_table.find(options.table, options.folder), features, BACKBONES[DEFAULT].side)
    main_, groups = reduced(pictures.features), np.arange(len(pictures))
    for seed in options.seeds:
        given = _planted(pictures.classes, np.random.default_rng(seed))
        found = labels.doubtful(labels.ask(main_, given, len(pictures.labels), groups), given)
        told = np.zeros(given.shape, bool)
        told[[place for place, *_ in found], [label for _, label, _ in found]] = True
        wrong = given != pictures.classes
        parts = []
        for what, chosen in (("missing", given == 0), ("too many", given > 0)):
            hits, of = int((told & wrong & chosen).sum()), int((wrong & chosen).sum())
            parts.append(f"{what}: {hits} of {of} found, {hits / max((told & chosen).sum(), 1):.0%} of what is told")
        print(f"seed {seed}: {'; '.join(parts)}")


def _planted(has: Classes, rng: np.random.Generator) -> Classes:
    """Return the labels int64 [N, labels] with faults."""
    given = np.where(rng.random(has.shape) < _SHARE, 0, has)
    for place in np.flatnonzero(rng.random(len(has)) < _SHARE).tolist():
        given[place, rng.choice(np.flatnonzero(has[place] == 0))] = 1
    return given


if __name__ == "__main__":
    main()
