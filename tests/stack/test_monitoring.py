"""The monitored stack, ``docker compose --profile monitoring up``, with traffic, and without the service.

Grafana is left out, for its image is not everywhere; what it would ask, the tests ask Prometheus.
"""

import os
import shutil
import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest
import requests
from PIL import Image

from artifact import read_metadata
from service.inference.plan import Plan, write_plan
from tests.end_to_end.conftest import Project
from tests.models import copy
from tests.monitoring.watched import Rule, dashboard, filled, panel_queries, rules
from tests.service.pictures import encoded
from tests.stack.monitored import (
    Prometheus,
    Traffic,
    prometheus_of,
    quick_configuration,
    wait_until,
)
from tests.stack.service_image import built

pytestmark = [pytest.mark.stack, pytest.mark.slow, pytest.mark.containers, pytest.mark.timing]

PATIENCE = 90.0  # seconds; machines that run tests are busy


@pytest.fixture(scope="module")
def models(root: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of models, with the bundled version."""
    folder = tmp_path_factory.mktemp("served")
    folder.chmod(0o755)
    shutil.copytree(root / "models" / "cifar10" / "5", folder / "cifar10" / "5")
    return folder


@pytest.fixture(scope="module")
def stack(root: Path, models: Path, docker_engine: None, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Project]:
    """The service with the bundled model and two workers, and Prometheus, both healthy."""
    name = f"darkroom-monitoring-{uuid.uuid4().hex[:8]}"
    quick = quick_configuration(root, tmp_path_factory.mktemp("monitoring"))
    variables = {
        "COMPOSE_PROJECT_NAME": name,
        "COMPOSE_FILE": os.pathsep.join(["docker-compose.yml", "docker-compose.override.yml", str(quick)]),
        "PORT": "0",
        "PROMETHEUS_PORT": "0",
        "RUNBOOK_URL": "https://git.example.com/operations.md",
        "MODELS_DIR": str(models),
        "CAPTURE_DIR": "/tmp/captured",  # noqa: S108 - in the container nobody else is
        "CAPTURE_SHARE": "1",
        "WORKERS": "2",
    }
    with built(root) as image:
        project = Project(root, name, {**os.environ, **variables, "SERVICE_IMAGE": image})
        try:
            project.compose("--profile", "monitoring", "up", "--detach", "--wait", "service", "prometheus")
            yield project
        finally:
            project.compose("--profile", "*", "down", "--volumes", "--timeout", "5", check=False)


@pytest.fixture(scope="module")
def prometheus(stack: Project, models: Path) -> Iterator[Prometheus]:
    """The stack's Prometheus, while clients ask, and a second version, which confuses all labels, is compared."""
    labels = read_metadata(models / "cifar10" / "5").labels
    copy(models / "cifar10" / "5", models, 6, (*labels[1:], labels[0]), name="cifar10")
    write_plan(models / "cifar10", Plan(labels={"stable": 5}, shadow="6"))
    traffic = Traffic(stack.url())
    try:
        yield prometheus_of(stack)
    finally:
        traffic.stop()


def test_the_number_of_an_alert_is_that_of_the_pictures_that_were_sent(stack: Project) -> None:
    """Of a mix of pictures Prometheus pages the share that is unfamiliar as the answers themselves say it."""
    prometheus, url = prometheus_of(stack), stack.url()
    counted = "sum(darkroom_predictions_total)"
    wait_until(lambda: bool(prometheus.query(counted)), PATIENCE, prometheus.alerts)  # before the first picture
    [before] = prometheus.query(counted)
    samples = [path.read_bytes() for path in (stack.root / "service/web/static/samples").glob("*.webp")]
    strange = [encoded(Image.linear_gradient("L").rotate(angle).convert("RGB")) for angle in range(0, 360, 40)]
    answers = [
        requests.post(f"{url}/predict", picture, headers={"Content-Type": "image/png"}, timeout=30).json()
        for picture in (samples + strange * 2) * 5
    ]
    unfamiliar = sum(answer["familiar"] is False for answer in answers)
    assert len(answers) > 100
    assert 0.35 < unfamiliar / len(answers) < 0.95
    [alert] = [rule for rule in rules() if rule.alert == "UnfamiliarPictures"]

    def told() -> list[float]:
        """Return what it pages; while some pictures are not counted yet, nothing."""
        all_counted = prometheus.query(counted) == [before + len(answers)]
        return prometheus.query(alert.expr) if all_counted else []

    def right() -> bool:  # the rules follow what is counted by one evaluation
        return [abs(share - unfamiliar / len(answers)) < 0.02 for share in told()] == [True]

    wait_until(right, PATIENCE, lambda: (told(), prometheus.query("sum by (label) (darkroom_predictions_total)")))


def test_every_query_of_the_dashboard_gives_data(prometheus: Prometheus) -> None:
    """Each line of each panel of Grafana's dashboard has figures, and so has the choice of replicas."""
    queries = panel_queries()
    for name in [name for name, query in queries.items() if "embedding" in query]:
        del queries[name]  # the bundled version has none
    assert _without_data(prometheus, queries) == {}
    asked = [one["query"]["query"] for one in dashboard()["templating"]["list"] if one["type"] == "query"]
    assert asked == ["label_values(darkroom_workers, instance)", "label_values(darkroom_refused_versions, model)"]
    assert len(prometheus.label_values("instance", "darkroom_workers")) == 1
    assert prometheus.label_values("model", "darkroom_refused_versions") == ["cifar10"]


def test_every_rule_is_evaluated_and_records(prometheus: Prometheus) -> None:
    """Prometheus has no fault to find with any rule, and each recording rule has recorded figures."""
    recording: list[Rule] = [rule for rule in rules() if rule.record]
    assert _without_data(prometheus, {rule.recorded: rule.recorded for rule in recording}) == {}
    wait_until(lambda: not prometheus.unhealthy_rules(), PATIENCE, prometheus.unhealthy_rules)


def test_the_figures_are_right(prometheus: Prometheus, stack: Project) -> None:
    """Of five requests two are the client's fault, none the service's; both workers have both versions; all is calm."""
    wait_until(
        lambda: abs(sum(prometheus.query("job:darkroom_requests_rejected:ratio_rate5m")) - 0.4) < 0.1,
        PATIENCE,
        lambda: prometheus.query("job_route_status:darkroom_requests:rate5m"),
    )
    assert prometheus.query("job:darkroom_requests_failed:ratio_rate5m") == [0.0]
    assert prometheus.query("sum by (version) (darkroom_model_workers)") == [2.0, 2.0]
    assert prometheus.query("darkroom_ready_workers") == [2.0]
    [age] = prometheus.query("time() - darkroom_model_created_timestamp_seconds")
    assert age > 0
    [memory] = prometheus.query("darkroom_memory_bytes")
    assert 50e6 < memory < 2e9
    critical = prometheus.query('ALERTS{alertstate="firing",severity="critical"}')
    assert critical == []
    assert requests.get(f"{stack.url()}/health/ready", timeout=30).status_code == 200


def test_prometheus_says_when_the_service_is_down_and_when_it_is_back(prometheus: Prometheus, stack: Project) -> None:
    """The service is killed, and ServiceDown fires within two minutes; it is started again, and the alert ends."""
    assert "ServiceDown" not in prometheus.alerts()
    stack.compose("kill", "service")
    seconds = wait_until(lambda: prometheus.alerts().get("ServiceDown") == "firing", 120, prometheus.alerts)
    print(f"ServiceDown fires {seconds:.0f} s after the kill")
    assert prometheus.runbook("ServiceDown") == "https://git.example.com/operations.md#servicedown"
    alerts, versions = (filled(each["expr"]) for each in dashboard()["annotations"]["list"])
    wait_until(lambda: bool(prometheus.query(alerts)), PATIENCE, prometheus.alerts)
    stack.compose("up", "--detach", "--wait", "--no-build", "service")
    wait_until(lambda: bool(prometheus.query(versions)), PATIENCE, prometheus.alerts)
    seconds = wait_until(lambda: "ServiceDown" not in prometheus.alerts(), PATIENCE, prometheus.alerts)
    print(f"ServiceDown ends {seconds:.0f} s after the service is healthy again")


def _without_data(prometheus: Prometheus, queries: dict[str, str]) -> dict[str, str]:
    """Return those of ``queries`` that have given no figures yet when the patience is at its end."""
    missing = dict(queries)

    def ask() -> bool:
        for name, query in list(missing.items()):
            if prometheus.query(query):
                del missing[name]
        return not missing

    wait_until(ask, PATIENCE, lambda: missing)
    return missing
