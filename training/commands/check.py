"""``python -m training check``: look for what is wrong with a folder of pictures, before a training learns it."""

import argparse
import contextlib
import json
import os
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from training.check import correction, tidying
from training.commands.options import LABELS, add
from training.data.pictures import model_name
from training.errors import Interruption
from training.fit.device import quiet_start
from training.network.registry import BACKBONES, DEFAULT, IMAGENET_WEIGHTS


@dataclass(frozen=True)
class CheckSettings:
    """Which folder is checked and where what is found goes; or which table is applied to it, or that it is undone.

    With ``labels`` what is applied makes another table of labels, ``corrected``.
    ``run`` is the folder that keeps what the pretrained network makes of the pictures, for a training that follows.
    """

    folder: Path
    run: Path
    json: bool
    csv: Path | None
    html: Path | None
    apply: Path | None
    undo: bool
    labels: Path | None = None
    corrected: Path | None = None


def parse(arguments: Sequence[str]) -> CheckSettings:
    """Return what the command line asks for."""
    parser = argparse.ArgumentParser(
        prog="darkroom check",
        description="Look for what is wrong with a folder of pictures: duplicates, also across classes and splits, "
        "labels that are probably wrong, pictures that look like none of the others, blank, dark, blurred, tiny and "
        "damaged ones, classes that are small, uneven or easily confused. Nothing in the folder is changed without "
        "--apply or --undo.",
        epilog="To clean up, write the suggestions with --csv, delete the lines that you disagree with, and give the "
        "file to --apply. exit codes: 0 done, whatever was found, 1 it failed (the last line says why), 2 "
        "wrong usage, 130 and 143 interrupted",
        allow_abbrev=False,
    )
    parser.add_argument("folder", type=Path, help="folder of pictures, as darkroom train --data takes it")
    add(parser, (LABELS,))
    parser.add_argument("--json", action="store_true", help="print one JSON object instead of lines")
    parser.add_argument("--csv", type=Path, metavar="FILE", help="write the suggestions to FILE, one a line")
    parser.add_argument("--html", type=Path, metavar="FILE", help="write a page with thumbnails to FILE")
    parser.add_argument(
        "--run",
        type=Path,
        metavar="DIR",
        help="folder for the features of the pictures, which a training of the same name uses again (default: the "
        "folder's name under runs, or under $RUN_DIR)",
    )
    tidy = parser.add_mutually_exclusive_group()
    tidy.add_argument(
        "--apply",
        type=Path,
        metavar="FILE",
        help=f"move pictures as this table says: to another class, or out of the way into {tidying.LEFT_OUT}/ in the "
        "folder; nothing is deleted. With --labels no picture is moved; the corrected table goes to --corrected",
    )
    tidy.add_argument("--undo", action="store_true", help="take back the last --apply")
    parser.add_argument(
        "--corrected",
        type=Path,
        metavar="FILE",
        help="with --labels and --apply: write the corrected table of labels to FILE; the one given stays as it is",
    )
    options = parser.parse_args(arguments)
    if options.labels and options.undo:
        parser.error("--undo moves pictures back; with --labels none was moved, and the table is as it was given")
    if bool(options.labels and options.apply) != bool(options.corrected):
        parser.error(
            "--corrected FILE is where --apply writes the table of --labels with what is changed; give all three"
        )
    run = options.run or Path(os.environ.get("RUN_DIR") or "runs") / model_name(options.folder)
    return CheckSettings(
        folder=options.folder,
        run=run,
        json=options.json,
        csv=options.csv,
        html=options.html,
        apply=options.apply,
        undo=options.undo,
        labels=options.labels,
        corrected=options.corrected,
    )


def run(settings: CheckSettings, _interruption: Interruption) -> int:
    """Check the folder and tell what was found, or move its pictures; return the exit code.

    Raises:
        TrainingError: the folder does not hold classes of pictures, none can be read, or it cannot be changed.
        OSError: a folder cannot be read, or a file not be written.
    """
    if settings.apply or settings.undo:
        _tidy(settings)
        return 0
    # What is told meanwhile must not stand before the one JSON object.
    with contextlib.redirect_stdout(sys.stderr if settings.json else sys.stdout):
        with quiet_start():
            from training.check.check import check
            from training.check.pictures import network
            from training.fit.checkpoints import RunFolder, require_writable
            from training.fit.features import Features
        require_writable(settings.run)
        side = BACKBONES[DEFAULT].side
        file = RunFolder(settings.run).features(DEFAULT, IMAGENET_WEIGHTS, side, side)
        report = check(settings.folder, Features(file, network), settings.labels)
    from training.check import output, page

    if settings.csv:
        output.write_csv(report, settings.csv)
    if settings.html:
        page.write_page(report, settings.html)
    print(json.dumps(report.record()) if settings.json else "\n".join(output.lines(report)))
    if not settings.json:
        _tell_more(settings, something=bool(report.suggestions))
    return 0


def _tell_more(settings: CheckSettings, *, something: bool) -> None:
    written = [str(file) for file in (settings.csv, settings.html) if file]
    if written:
        print(f"Wrote {' and '.join(written)}.")
    if something and not settings.html:
        print("--html FILE shows them, and --csv FILE lists what to do, for --apply.")


def _tidy(settings: CheckSettings) -> None:
    if settings.apply and settings.labels and settings.corrected:
        changed, notes = correction.correct(settings.folder, settings.labels, settings.apply, settings.corrected)
        said = f"Wrote {settings.corrected}, in which {changed:,} pictures have other labels or are left out."
        record = {"written": str(settings.corrected), "changed": changed, "notes": notes}
        print(json.dumps(record) if settings.json else "\n".join([*notes, said]))
        return
    if settings.apply:
        moves = tidying.apply(settings.folder, settings.apply)
        said = f"Moved {len(moves):,} pictures; --undo takes it back." if moves else "There was nothing to move."
    else:
        moves = tidying.undo(settings.folder)
        said = f"Moved {len(moves):,} pictures back."
    if settings.json:
        print(json.dumps({"moved": [vars(move) for move in moves]}))
    else:
        print(said)
