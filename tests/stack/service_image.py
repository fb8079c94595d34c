"""The service's image, built for the tests of one module under a tag of its own; Docker's cache makes others quick."""

import os
import subprocess
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.end_to_end.conftest import BUILD_SECONDS, PYTHON_IMAGE


@contextmanager
def built(root: Path) -> Iterator[str]:
    """Give the tag of an image of the service as it is now; remove the tag afterwards."""
    tag = f"darkroom-service:test-{uuid.uuid4().hex[:8]}"
    build = ["docker", "compose", "build", "--quiet", "service"]
    environment = {**os.environ, "SERVICE_IMAGE": tag, "PYTHON_IMAGE": PYTHON_IMAGE}
    try:
        subprocess.run(build, cwd=root, env=environment, check=True, capture_output=True, timeout=BUILD_SECONDS)
        yield tag
    finally:
        subprocess.run(["docker", "image", "rm", "--force", tag], check=False, capture_output=True, timeout=60)
