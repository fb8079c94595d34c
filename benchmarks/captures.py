"""What keeping pictures costs: the same service without and with CAPTURE_DIR, asked in turn.

    python benchmarks/captures.py                      about three minutes
    python benchmarks/captures.py --rounds 1 --seconds 1

No picture comes twice. Of those that the model is sure of only the random share of 1% is kept; of those that it has
never seen the like of, all would be, and a few a second are. Ratios are the medians of the rounds' ratios; needs wrk.
"""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
from contextlib import ExitStack
from pathlib import Path

import numpy as np

ROOT = Path(__file__).resolve().parents[1]
if str(ROOT) not in sys.path:  # run as a file, the folder of the packages is not on the path
    sys.path.insert(0, str(ROOT))

from benchmarks.loads import CROWDS, Rounds, Work, compared, crowd  # noqa: E402
from benchmarks.measuring import JPEG, Body, drawings, jpeg, require_wrk  # noqa: E402
from benchmarks.servers import RAW, darkroom, started  # noqa: E402

_VERSION = ROOT / "models" / "cifar10" / "5"
_SIDE = 32  # pixels
_WITHOUT, _WITH = "without", "with CAPTURE_DIR"
_DIGITS = "000000000"


def main(arguments: list[str]) -> int:
    """Measure, and print a table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5, help="times that everything is measured (default: 5)")
    parser.add_argument("--seconds", type=float, default=3.0, help="of each load (default: 3)")
    options = parser.parse_args(arguments)
    require_wrk()
    works = _works()
    with tempfile.TemporaryDirectory() as name, ExitStack() as stack:
        folder = Path(name)
        servers = [
            stack.enter_context(started(server, works[0].body, folder))
            for server in (
                darkroom(os.environ, _VERSION)._replace(name=_WITHOUT),
                darkroom({**os.environ, "CAPTURE_DIR": str(folder / "captured")}, _VERSION)._replace(name=_WITH),
            )
        ]
        rounds = Rounds(folder)
        for number in range(options.rounds):
            rounds.run(works, servers, options.seconds, number)
        print(f"| work | {_WITHOUT} | {_WITH} | ratio | core time an answer, both |\n|---|---|---|---|---|")
        for work, loads in rounds.figures().items():
            rates = " | ".join(f"{loads[server]['rate']:,.0f}/s" for server in (_WITHOUT, _WITH))
            cores = ", ".join(f"{loads[server]['core_milliseconds']:.3f} ms" for server in (_WITHOUT, _WITH))
            print(f"| {work} | {rates} | {compared(loads, _WITH, _WITHOUT):.3f} | {cores} |")
        print(f"{len(list((folder / 'captured' / 'waiting').glob('*.jpg'))):,} pictures were kept.")
    return 0


def _works() -> list[Work]:
    noise = np.random.default_rng(0).integers(0, 256, (_SIDE, _SIDE, 3), np.uint8)
    kinds = {"sure": drawings(_SIDE, _SIDE)[0], "never seen the like": noise}
    return [
        Work(f"{kind}, {crowd(connections)}", RAW, _numbered(jpeg(pixels)), connections)
        for kind, pixels in kinds.items()
        for connections in CROWDS
    ]


def _numbered(file: bytes) -> Body:
    """Return a JPEG with a comment of digits, so that each request may send another file of the same pixels."""
    comment = b"\xff\xfe" + (2 + len(_DIGITS)).to_bytes(2, "big") + _DIGITS.encode()
    return Body(file[:2] + comment + file[2:], JPEG, different=_DIGITS)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
