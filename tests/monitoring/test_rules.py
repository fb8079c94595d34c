"""Prometheus' rules: promtool finds them right, each alert is tried and explained, and they name what there is."""

import re
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest
import yaml
from PIL import Image

from tests.monitoring.watched import PROMETHEUS, alerts, metrics_in, panel_queries, rules
from tests.service.pictures import encoded
from tests.service.running import start

PROMTOOL_TESTS = Path(__file__).with_name("rules.test.yml")
Promtool = Callable[..., str]


@pytest.fixture(scope="session")
def promtool(root: Path, request: pytest.FixtureRequest) -> Promtool:
    """Runs promtool in the repository's root: this machine's, or that of the image that Compose starts."""
    command = ["promtool"]
    if not shutil.which("promtool"):
        request.getfixturevalue("docker_engine")
        mount = ["--volume", f"{root}:/repository:ro", "--workdir", "/repository"]
        command = ["docker", "run", "--rm", "--network", "none", *mount, "--entrypoint", "promtool", _image(root)]

    def run(*arguments: str) -> str:
        done = subprocess.run(
            [*command, *arguments], cwd=root, capture_output=True, text=True, timeout=300, check=False
        )
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout + done.stderr

    return run


def _image(root: Path) -> str:
    command = ["docker", "compose", "--profile", "monitoring", "config", "--format", "json"]
    config = subprocess.run(command, cwd=root, capture_output=True, text=True, check=True).stdout
    image: str = yaml.safe_load(config)["services"]["prometheus"]["image"]
    return image


@pytest.mark.containers
def test_promtool_finds_nothing_wrong(promtool: Promtool) -> None:
    """Configuration and rules are valid, and none is written twice."""
    checked = promtool("check", "config", "--lint=all", "--lint-fatal", "docker/prometheus/prometheus.yml")
    assert f"{len(alerts())} rules found" in checked
    assert f"{len(rules()) - len(alerts())} rules found" in checked


@pytest.mark.containers
def test_every_alert_fires_when_it_should(promtool: Promtool, root: Path) -> None:
    """promtool plays series of metrics to the rules: each alert fires on its own, and none where all is well."""
    promtool("test", "rules", str(PROMTOOL_TESTS.relative_to(root)))
    text = PROMTOOL_TESTS.read_text(encoding="utf-8")
    tried = set(re.findall(r"alertname: (\w+)", text)) | set(
        re.findall(r'alertname="(\w+)", alertstate="firing"', text)
    )
    assert tried == {rule.alert for rule in alerts()}


def test_every_alert_is_explained(root: Path) -> None:
    """Each alert says how urgent it is and what is the matter, and leads to a section that says what to do."""
    text = (root / "docs" / "operations.md").read_text(encoding="utf-8")
    section = text.partition("\n## Alerts\n")[2].partition("\n## ")[0]
    assert re.findall(r"^### (\w+)$", section, re.MULTILINE) == [rule.alert for rule in alerts()]
    for rule in alerts():
        annotations = dict(rule.annotations)
        assert dict(rule.labels)["severity"] in ("critical", "warning"), rule.alert
        assert annotations["summary"], rule.alert
        assert annotations["description"], rule.alert
        assert annotations["runbook_url"] == f"docs/operations.md#{rule.alert.lower()}"


def test_rules_and_panels_name_what_is_recorded() -> None:
    """What a rule or a panel takes from a recording rule is recorded by one, and an earlier one."""
    recorded: set[str] = set()
    expressions = [(rule.record, rule.expr) for rule in rules()] + [("", expr) for expr in panel_queries().values()]
    for record, expr in expressions:
        assert set(re.findall(r"\b\w+:\w+:\w+", expr)) <= recorded, expr
        recorded.add(record)


def test_rules_and_panels_name_what_the_service_tells(root: Path) -> None:
    """Every metric of the service that a rule or a panel asks for is there once it has answered a picture."""
    named = set().union(*(metrics_in(expr) for expr in (*(rule.expr for rule in rules()), *panel_queries().values())))
    assert len(named) > 20
    running = start({"MODEL_DIR": str(root / "models")})
    try:
        running.wait_until_ready()
        assert running.predict(encoded(Image.new("RGB", (32, 32), "red"))).status_code == 200
        told = set(re.findall(r"^(darkroom_\w+)[ {]", running.get("/metrics").text, re.MULTILINE))
    finally:
        running.kill()
    assert named - told == set()


def test_prometheus_finds_all_replicas() -> None:
    """The addresses come from a name that Swarm gives to all replicas, which Compose knows as well."""
    config = yaml.safe_load((PROMETHEUS / "prometheus.yml").read_text())
    compose = yaml.safe_load((PROMETHEUS.parents[1] / "docker-compose.override.yml").read_text())
    [found] = config["scrape_configs"][0]["dns_sd_configs"]
    assert found["names"] == compose["services"]["service"]["networks"]["default"]["aliases"] == ["tasks.service"]
