"""Prometheus' rules: promtool finds them right, each alert is tried and explained, and they name what there is."""

import re
from pathlib import Path

import numpy as np
import pytest
import yaml
from PIL import Image

from service.inference.plan import Plan, write_plan
from tests.models import LABELS, SIDE, add_reference, copy
from tests.monitoring.conftest import Promtool
from tests.monitoring.watched import PROMETHEUS, alerts, dashboard, metrics_in, panel_queries, rules
from tests.service.pictures import encoded
from tests.service.running import metric, start, wait_for

PROMTOOL_TESTS = Path(__file__).with_name("rules.test.yml")


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
        base = '{{ or $externalLabels.runbook "docs/operations.md" }}'
        assert annotations["runbook_url"] == f"{base}#{rule.alert.lower()}"


def test_rules_and_panels_name_what_is_recorded() -> None:
    """What a rule or a panel takes from a recording rule is recorded by one, and an earlier one."""
    recorded: set[str] = set()
    expressions = [(rule.record, rule.expr) for rule in rules()] + [("", expr) for expr in panel_queries().values()]
    for record, expr in expressions:
        assert set(re.findall(r"\b\w+:\w+:\w+", expr)) <= recorded, expr
        recorded.add(record)


@pytest.mark.process
def test_rules_and_panels_name_what_the_service_tells(embedding: Path, tmp_path: Path) -> None:
    """Every metric of the service that a rule or a panel asks for is there once it has answered a picture.

    The version tells all that a version can tell, and another one is compared with it, which calls red another name.
    What is told of each model is shown for those that are chosen.
    """
    named = set().union(*(metrics_in(expr) for expr in (*(rule.expr for rule in rules()), *panel_queries().values())))
    assert len(named) > 20
    version = copy(embedding, tmp_path, 1, threshold=4.0)
    add_reference(version, np.random.default_rng(0).integers(256, size=(50, SIDE, SIDE, 3), dtype=np.uint8))
    copy(embedding, tmp_path, 2, ("cherry", *LABELS[1:]), threshold=4.0)
    write_plan(version.parent, Plan(labels={"stable": 1}, shadow="2"))
    captures = {"CAPTURE_DIR": str(tmp_path / ".captures"), "CAPTURE_SHARE": "1"}
    running = start({"MODEL_DIR": str(tmp_path), "MODEL_SOURCE": "http://127.0.0.1:9/models.tar", **captures})
    try:
        running.wait_until_ready()
        assert running.predict(encoded(Image.new("RGB", (32, 32), "red"))).status_code == 200
        wait_for(lambda: metric(running, "captures_total") + metric(running, "shadow_images_total") == 2, running.log)
        text = running.get("/metrics").text
    finally:
        running.kill()
    assert named - set(re.findall(r"^(darkroom_\w+)[ {]", text, re.MULTILINE)) == set()
    of_a_model = set(re.findall(r'^(darkroom_\w+){.*\bmodel="', text, re.MULTILINE))
    shown = [target["expr"] for panel in dashboard()["panels"] for target in panel.get("targets", [])]
    for name, chosen in re.findall(r"(darkroom_\w+)({.*?})", " ".join(shown)):
        assert ('model=~"$model"' in chosen) is (name in of_a_model), name


def test_prometheus_finds_all_replicas() -> None:
    """The addresses come from a name that Swarm gives to all replicas, which Compose knows as well."""
    config = yaml.safe_load((PROMETHEUS / "prometheus.yml").read_text())
    compose = yaml.safe_load((PROMETHEUS.parents[1] / "docker-compose.override.yml").read_text())
    [found] = config["scrape_configs"][0]["dns_sd_configs"]
    assert found["names"] == compose["services"]["service"]["networks"]["default"]["aliases"] == ["tasks.service"]
