"""Grafana's dashboard and its place in Compose."""

import json
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from grafana_foundation_sdk.cog.encoder import JSONEncoder
from grafana_foundation_sdk.cog.plugins import register_default_plugins
from grafana_foundation_sdk.models.dashboard import Dashboard

from tests.monitoring.watched import dashboard, panel_queries

ROWS = (
    "At a glance",
    "Traffic",
    "Errors",
    "Latency",
    "Where the time goes",
    "Batches",
    "Answers",
    "Model",
    "Versions",
    "Resources",
    "Saturation",
    "Drift",
)
# Only Prometheus' annotations have these; the SDK does not know them.
_OF_PROMETHEUS = {f".annotations.list[{index}].{name}" for index in (0, 1) for name in ("titleFormat", "textFormat")}


@pytest.fixture(scope="module")
def compose(root: Path, docker_engine: None) -> Any:
    """Return what Compose makes of its files under the profile ``monitoring``."""
    command = ["docker", "compose", "--profile", "monitoring", "config", "--format", "json"]
    return json.loads(subprocess.run(command, cwd=root, capture_output=True, text=True, check=True).stdout)["services"]


def lost(before: Any, after: Any, path: str = "") -> Iterator[str]:
    """Yield where ``after`` lacks something of ``before`` or has another value."""
    if isinstance(before, dict) and isinstance(after, dict):
        for key, value in before.items():
            yield from lost(value, after.get(key), f"{path}.{key}")
    elif isinstance(before, list) and isinstance(after, list) and len(before) == len(after):
        for index, (value, other) in enumerate(zip(before, after, strict=True)):
            yield from lost(value, other, f"{path}[{index}]")
    elif before != after:
        yield path


def test_grafanas_own_types_hold_the_dashboard() -> None:
    """Read into the types of Grafana's SDK and written again, nothing of the dashboard is lost or another."""
    register_default_plugins()
    again = json.loads(JSONEncoder().encode(Dashboard.from_json(dashboard())))
    assert set(lost(dashboard(), again)) == _OF_PROMETHEUS


def test_panels_stand_in_rows_and_beside_each_other() -> None:
    """Each row has panels, none covers another or sticks out, and each has a number of its own."""
    panels = dashboard()["panels"]
    assert tuple(panel["title"] for panel in panels if panel["type"] == "row") == ROWS
    assert len({panel["id"] for panel in panels}) == len(panels)
    taken: set[tuple[int, int]] = set()
    for panel in panels:
        place = panel["gridPos"]
        assert place["x"] + place["w"] <= 24
        cells = {(place["x"] + x, place["y"] + y) for x in range(place["w"]) for y in range(place["h"])}
        assert not cells & taken, panel["title"]
        taken |= cells
    for panel, following in zip(panels, [*panels[1:], {"type": "row"}], strict=True):
        assert {panel["type"], following["type"]} != {"row"}


def test_panels_ask_the_source_and_for_the_replicas_that_are_chosen(root: Path) -> None:
    """Every query goes to the chosen data source, which is provisioned, and follows the choice of replicas."""
    provisioned = yaml.safe_load((root / "docker/grafana/provisioning/datasources/prometheus.yml").read_text())
    variables = {variable["name"]: variable for variable in dashboard()["templating"]["list"]}
    assert variables["datasource"]["current"]["value"] in [source["uid"] for source in provisioned["datasources"]]
    targets = [target for panel in dashboard()["panels"] for target in panel.get("targets", [])]
    assert len(targets) == len(panel_queries()) > 30
    for target in targets:
        assert target["datasource"] == {"type": "prometheus", "uid": "${datasource}"}
        whole_service = target["expr"].startswith(("job:", "count(ALERTS"))
        assert ('instance=~"$instance"' in target["expr"]) is not whole_service, target["expr"]


@pytest.mark.containers
def test_files_are_mounted_where_grafana_looks(compose: Any, root: Path) -> None:
    """The folder of dashboards that is provisioned, and the first page, are where Compose mounts them."""
    mounted = {volume["target"]: Path(volume["source"]) for volume in compose["grafana"]["volumes"]}
    provider = yaml.safe_load((root / "docker/grafana/provisioning/dashboards/darkroom.yml").read_text())
    [folder] = [entry["options"]["path"] for entry in provider["providers"]]
    assert (mounted[folder] / "darkroom.json").is_file()
    assert f"{folder}/darkroom.json" in mounted["/etc/grafana/grafana.ini"].read_text(encoding="utf-8")
    assert (mounted["/etc/grafana/provisioning/datasources"] / "prometheus.yml").is_file()
    assert (mounted["/etc/grafana/provisioning/dashboards"] / "darkroom.yml").is_file()


@pytest.mark.containers
@pytest.mark.parametrize("name", ["prometheus", "grafana"])
def test_what_watches_is_confined(compose: Any, name: str) -> None:
    """Prometheus and Grafana have no privileges, limits, small logs, and ports on this machine only."""
    service = compose[name]
    assert service["profiles"] == ["monitoring"]
    assert service["read_only"] is True
    assert service["cap_drop"] == ["ALL"]
    assert service["security_opt"] == ["no-new-privileges:true"]
    assert service["deploy"]["resources"]["limits"].keys() == {"cpus", "memory", "pids"}
    assert service["logging"]["options"]["max-size"]
    assert [port["host_ip"] for port in service["ports"]] == ["127.0.0.1"]
    assert all(volume["type"] == "volume" or volume["read_only"] for volume in service["volumes"])
    assert service["healthcheck"]["test"]
