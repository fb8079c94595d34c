"""The monitored stack, ``docker compose --profile monitoring up``, with traffic, and without the service.

Grafana is left out, for its image is not everywhere; what it would ask, the tests ask Prometheus.
"""

import os
import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest
import requests

from tests.end_to_end.conftest import Project
from tests.monitoring.watched import Rule, dashboard, panel_queries, rules
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
def stack(root: Path, docker_engine: None, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Project]:
    """The service with the bundled model and two workers, and Prometheus, both healthy."""
    name = f"darkroom-monitoring-{uuid.uuid4().hex[:8]}"
    quick = quick_configuration(root, tmp_path_factory.mktemp("monitoring"))
    variables = {
        "COMPOSE_PROJECT_NAME": name,
        "COMPOSE_FILE": os.pathsep.join(["docker-compose.yml", "docker-compose.override.yml", str(quick)]),
        "PORT": "0",
        "PROMETHEUS_PORT": "0",
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
def prometheus(stack: Project) -> Iterator[Prometheus]:
    """The stack's Prometheus, while clients ask the service."""
    traffic = Traffic(stack.url())
    try:
        yield prometheus_of(stack)
    finally:
        traffic.stop()


def test_every_query_of_the_dashboard_gives_data(prometheus: Prometheus) -> None:
    """Each line of each panel of Grafana's dashboard has figures, and so has the choice of replicas."""
    assert _without_data(prometheus, panel_queries()) == {}
    [variable] = [one for one in dashboard()["templating"]["list"] if one["type"] == "query"]
    assert variable["query"]["query"] == "label_values(darkroom_workers, instance)"
    assert len(prometheus.label_values("instance", "darkroom_workers")) == 1


def test_every_rule_is_evaluated_and_records(prometheus: Prometheus) -> None:
    """Prometheus has no fault to find with any rule, and each recording rule has recorded figures."""
    recording: list[Rule] = [rule for rule in rules() if rule.record]
    assert _without_data(prometheus, {rule.recorded: rule.recorded for rule in recording}) == {}
    wait_until(lambda: not prometheus.unhealthy_rules(), PATIENCE, prometheus.unhealthy_rules)


def test_the_figures_are_right(prometheus: Prometheus, stack: Project) -> None:
    """Of five requests two are the client's fault, none the service's; both workers have a model; nobody is woken."""
    wait_until(
        lambda: abs(sum(prometheus.query("job:darkroom_requests_rejected:ratio_rate5m")) - 0.4) < 0.1,
        PATIENCE,
        lambda: prometheus.query("job_route_status:darkroom_requests:rate5m"),
    )
    assert prometheus.query("job:darkroom_requests_failed:ratio_rate5m") == [0.0]
    assert prometheus.query("sum(darkroom_model_workers)") == [2.0]
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
    [annotation] = dashboard()["annotations"]["list"]
    wait_until(lambda: bool(prometheus.query(annotation["expr"])), PATIENCE, prometheus.alerts)
    stack.compose("up", "--detach", "--wait", "--no-build", "service")
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
