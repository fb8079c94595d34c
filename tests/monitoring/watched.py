"""What Prometheus records and alerts on, and what Grafana shows, as the files in docker/ have it."""

import json
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

ROOT = Path(__file__).resolve().parents[2]
PROMETHEUS = ROOT / "docker" / "prometheus"
DASHBOARD = ROOT / "docker" / "grafana" / "dashboards" / "darkroom.json"

# What Grafana puts in their place; the interval is what follows from scrapes every 15 seconds.
_VARIABLES = {"$instance": ".*", "$model": ".*", "$__rate_interval": "1m", "$__range": "1h"}


@dataclass(frozen=True)
class Rule:
    """One rule of Prometheus; ``record`` or ``alert`` is its name."""

    expr: str
    record: str = ""
    alert: str = ""
    labels: tuple[tuple[str, str], ...] = ()
    annotations: tuple[tuple[str, str], ...] = ()

    @property
    def recorded(self) -> str:
        """The expression that gives what a recording rule has recorded."""
        return self.record + "{" + ",".join(f'{name}="{value}"' for name, value in self.labels) + "}"


def rules() -> list[Rule]:
    """Return all rules in the order in which Prometheus evaluates them."""
    files = [yaml.safe_load((PROMETHEUS / name).read_text()) for name in _prometheus()["rule_files"]]
    return [_rule(entry) for file in files for group in file["groups"] for entry in group["rules"]]


def alerts() -> list[Rule]:
    """Return the alerting rules."""
    return [rule for rule in rules() if rule.alert]


def dashboard() -> Any:
    """Return Grafana's dashboard."""
    return json.loads(DASHBOARD.read_text(encoding="utf-8"))


def panel_queries() -> dict[str, str]:
    """Return the query of each line of each panel, as Grafana sends it to Prometheus, by a name for it."""
    return {
        f"{panel['title']} {target['refId']}": filled(target["expr"])
        for panel in dashboard()["panels"]
        for target in panel.get("targets", [])
    }


def filled(expr: str) -> str:
    """Return ``expr`` of the dashboard with all chosen, as Grafana sends it to Prometheus."""
    for variable, value in _VARIABLES.items():
        expr = expr.replace(variable, value)
    assert "$" not in expr, f"a variable that is not known here: {expr}"
    return expr


def metrics_in(expr: str) -> set[str]:
    """Return the service's metrics that ``expr`` names; what other rules have recorded is not among them."""
    return set(re.findall(r"(?<![:\w])darkroom_\w+(?![:\w])", expr))


def _prometheus() -> Any:
    return yaml.safe_load((PROMETHEUS / "prometheus.yml").read_text())


def _rule(entry: dict[str, Any]) -> Rule:
    return Rule(
        entry["expr"],
        entry.get("record", ""),
        entry.get("alert", ""),
        tuple(entry.get("labels", {}).items()),
        tuple(entry.get("annotations", {}).items()),
    )
