"""The whole path without containers: pictures in, a version out, answers over HTTP."""

import signal
import subprocess
import sys
from pathlib import Path

import pytest

from tests.drawings import drawing
from tests.service.running import start

pytestmark = [pytest.mark.process, pytest.mark.slow]


def test_a_trained_version_is_taken_up_and_answers(root: Path, tmp_path: Path) -> None:
    """A service that waits for its first version serves it once it is published, and names the shapes rightly."""
    service = start({"MODEL_DIR": str(tmp_path), "MODEL_POLL_SECONDS": "0.2", "DRAIN_SECONDS": "0"})
    try:
        train = [sys.executable, "-m", "training", "--preset", "smoke", "--models", str(tmp_path)]
        subprocess.run([*train, "--run", str(tmp_path / "run")], cwd=root, check=True, capture_output=True)
        service.wait_until_ready()
        for shape in ("disc", "square", "stripes"):
            answer = service.predict(drawing(shape)).json()
            assert answer["predictions"][0]["label"] == shape
            assert answer["model"] == {"name": "smoke", "version": 1}
        service.process.send_signal(signal.SIGTERM)
        assert service.process.wait(30) == 0
    finally:
        service.kill()
