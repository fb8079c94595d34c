"""The entry point of ``python -m training``."""

import io
import os
import sys

from machine import how_to_install

_USAGE = 2
_INTERRUPTED = 128

if isinstance(sys.stdout, io.TextIOWrapper):
    # Labels and names of files are in any script, and some are no text: no terminal's encoding ends a training.
    sys.stdout.reconfigure(errors="backslashreplace")
try:
    from training.cli import main

    code = main(sys.argv[1:])
except ModuleNotFoundError as missing:
    print(f"error: {how_to_install(missing, 'training', 'training,cpu')}", file=sys.stderr)
    code = _USAGE
if code > _INTERRUPTED:
    # TensorFlow's threads still make batches, and would complain of an interpreter that goes away under them.
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)
sys.exit(code)
