"""Measure what a picture costs every backbone: MFLOP, and milliseconds in float32 and int8 as the service runs it.

Pictures come one at a time, of the size that the backbone was trained on. Each figure is the median of some seconds in
a process of its own; int8 gets a dash where quantising takes too long. With --write the figures go into the registry,
and the table in docs/backbones.md is made of it anew. Nothing else should run on the machine.
"""

import argparse
import importlib
import json
import subprocess
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from benchmarks.measuring import ROOT, processor
from machine import import_openvino, usable_cores
from training.network import registry
from training.network.registry import BACKBONES, MEASUREMENTS

PAGE = ROOT / "docs" / "backbones.md"
BEGIN, END = "<!-- made by benchmarks/backbones.py --write -->\n", "<!-- end of the table -->\n"

_MEASUREMENTS = ("megaflops", "float32_ms", "int8_ms")

Figures = dict[str, float | None]


def main() -> int:
    """Measure, and print a line for each backbone."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("names", nargs="*", metavar="BACKBONE", help="which (default: all)")
    parser.add_argument("--seconds", type=float, default=3.0, help="for each figure (default: %(default)s)")
    parser.add_argument(
        "--patience",
        type=float,
        default=180.0,
        metavar="SECONDS",
        help="until a network has to be built, quantised and measured in int8 (default: %(default)s)",
    )
    parser.add_argument(
        "--write", action="store_true", help="write the figures into the registry and the documentation"
    )
    parser.add_argument("--one", choices=_MEASUREMENTS, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if unknown := set(options.names) - BACKBONES.keys():
        parser.error(f"there is no backbone {', '.join(sorted(unknown))}")
    if options.one:
        print(json.dumps(_measure(options.names[0], options.one, options.seconds)))
        return 0
    print("| backbone | MFLOP | ms, float32 | ms, int8 |\n|---|---|---|---|")
    for name in options.names or BACKBONES:
        patience = dict.fromkeys(_MEASUREMENTS) | {"int8_ms": options.patience}
        figures = {what: _in_process(name, what, options.seconds, patience[what]) for what in _MEASUREMENTS}
        cells = ("-" if value is None else f"{value:,.1f}" for value in figures.values())
        print(f"| {name} | {' | '.join(cells)} |", flush=True)
        if options.write:
            _write(name, figures)
    return 0


def _in_process(name: str, what: str, seconds: float, patience: float | None) -> float | None:
    """Return a figure; None where it takes longer than ``patience``, in seconds, or fails, which is then told."""
    command = [sys.executable, __file__, name, "--one", what, "--seconds", str(seconds)]
    try:
        done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True, timeout=patience)
    except (subprocess.TimeoutExpired, subprocess.CalledProcessError) as error:
        print(f"{name}, {what}: {error}", file=sys.stderr)
        return None
    figure: float = json.loads(done.stdout.splitlines()[-1])
    return figure


def _measure(name: str, what: str, seconds: float) -> float:
    from training.fit.device import start_of_training

    with start_of_training(cpu=True):
        from training.network.model import megaflops
        from training.publish.latency import build, measure

    if what == "megaflops":
        return round(megaflops(build(name)), 1)
    return round(measure(name, "int8" if what == "int8_ms" else "float32", seconds=seconds), 2)


def _write(name: str, figures: Figures) -> None:
    """Put the figures of a backbone into the registry's file, and the registry's table into the documentation."""
    record = json.loads(MEASUREMENTS.read_text(encoding="utf-8"))
    backbones = {**record["backbones"], name: figures}
    lines = [f"    {json.dumps(each)}: {json.dumps(backbones[each])}" for each in BACKBONES if each in backbones]
    version = import_openvino().__version__.partition("-")[0]
    machine = f"{usable_cores()} cores of {processor()}, by OpenVINO {version}"
    content = ",\n".join(lines)
    MEASUREMENTS.write_text(
        f'{{\n  "machine": {json.dumps(machine)},\n  "backbones": {{\n{content}\n  }}\n}}\n', encoding="utf-8"
    )
    table = importlib.reload(registry).table()  # of the file as it is now
    before, _, rest = PAGE.read_text(encoding="utf-8").partition(BEGIN)
    _, _, after = rest.partition(END)
    PAGE.write_text(before + BEGIN + table + END + after, encoding="utf-8")


if __name__ == "__main__":
    sys.exit(main())
