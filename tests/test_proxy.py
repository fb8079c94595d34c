"""What the proxy of docker/tls.yml must have in common with the service."""

import re
from pathlib import Path

from service.settings import Settings


def test_defaults_are_those_of_the_service(root: Path) -> None:
    """Where nothing is set, the proxy lets through what the service takes, and waits longer than the service does."""
    script = (root / "docker" / "nginx" / "start.sh").read_text(encoding="utf-8")
    defaults = dict(re.findall(r"\$\{(\w+):-(\d+)\}", script))
    assert int(defaults["MAX_BODY_BYTES"]) == Settings().max_body_bytes
    assert int(defaults["REQUEST_DEADLINE_SECONDS"]) == Settings().request_deadline
    assert re.search(r"^proxy_read_timeout .*\+ [1-9]", script, re.MULTILINE)


def test_ci_prepares_the_image_that_compose_starts(root: Path) -> None:
    """The tests run the version of nginx that people get."""
    image = re.search(r"\$\{NGINX_IMAGE:-(\S+)\}", (root / "docker" / "tls.yml").read_text(encoding="utf-8"))
    assert image
    assert f"={image[1]}" in (root / ".ci" / "run").read_text(encoding="utf-8")


def test_keys_and_passwords_are_not_committed(root: Path) -> None:
    """The folder that Compose mounts unless told otherwise is ignored by git, and no part of an image's build."""
    folder = re.search(r"\$\{ACCESS_DIR:-\./(\w+)\}", (root / "docker" / "tls.yml").read_text(encoding="utf-8"))
    assert folder
    assert f"/{folder[1]}/" in (root / ".gitignore").read_text(encoding="utf-8").splitlines()
    assert f"!{folder[1]}" not in (root / ".dockerignore").read_text(encoding="utf-8").splitlines()
