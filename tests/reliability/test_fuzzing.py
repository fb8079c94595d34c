"""A coverage-guided fuzzer looks for a file on which decoding does anything else than succeed or say that it cannot."""

import re
import subprocess
from pathlib import Path

import pytest
from PIL import features

from imaging import FORMATS
from tests.bombs import HOSTILE
from tests.reliability.campaign import Campaign
from tests.service.pictures import plain

pytestmark = [pytest.mark.process, pytest.mark.slow]

_TARGET = Path("tests") / "reliability" / "fuzz_decoding.py"
_LARGEST = 64 * 1024  # bytes of a file
_SLOWEST = 10  # seconds for a file, with what the fuzzer itself takes
_MEMORY = 2048  # MB
_MODES = ("RGB", "RGBA", "L", "P", "1", "I;16", "CMYK")


@pytest.mark.campaign(
    "a coverage-guided fuzzer (atheris) on decoding, from files of every format and from those made to be slow",
    bar="no error but that a file cannot be decoded, no crash, none that takes 10 s or 2 GB",
)
def test_fuzzing(campaign: Campaign, root: Path, tmp_path: Path) -> None:
    """What it finds is left in a file, whose name is told."""
    python = root / ".venv-fuzz" / "bin" / "python"
    if not python.exists():
        pytest.skip("make .venv-fuzz/stamp installs the fuzzer")
    corpus = tmp_path / "corpus"
    corpus.mkdir()
    seeds = _seeds()
    for number, content in enumerate(seeds):
        (corpus / f"seed-{number}").write_bytes(content)
    seconds = campaign.size(10, 3600)
    options = {
        "max_total_time": seconds,
        "max_len": _LARGEST,
        "timeout": _SLOWEST,
        "rss_limit_mb": _MEMORY,
        "artifact_prefix": f"{tmp_path}/",
    }
    command = [str(python), str(_TARGET), *(f"-{name}={value}" for name, value in options.items()), str(corpus)]
    done = subprocess.run(command, cwd=root, capture_output=True, text=True, errors="replace", check=False)
    tries = re.findall(r"^#(\d+)\s+DONE\s+cov: (\d+)", done.stderr, re.MULTILINE)
    files, coverage = map(int, tries[-1]) if tries else (0, 0)
    found = sorted(path.name for path in tmp_path.iterdir() if path.is_file())
    campaign.report(
        seconds=seconds,
        seeds=len(seeds),
        files=files,
        edges_of_Python=coverage,
        kept=len(list(corpus.iterdir())),
        faults=len(found),
    )
    assert found == [], done.stderr[-4000:]
    assert done.returncode == 0, done.stderr[-4000:]
    assert files > len(seeds)


def _seeds() -> list[bytes]:
    """Return small pictures of every format that can be written here, and such as are made to be slow."""
    seeds = []
    for kind in FORMATS:
        for mode in _MODES if kind != "AVIF" or features.check("avif") else ():
            try:
                seeds.append(plain("teal", kind, size=(19, 13), mode=mode))
            except (OSError, ValueError):  # the format has no such mode
                continue
    return seeds + [content for make in HOSTILE.values() if len(content := make()) <= _LARGEST]
