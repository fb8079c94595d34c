"""The service under Prometheus as Compose starts both, real traffic for them, and Prometheus' own API."""

import math
import re
import shutil
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import requests
import yaml
from PIL import Image

from tests.end_to_end.conftest import Project
from tests.service.pictures import encoded, plain

SCRAPE_SECONDS = 2


class Prometheus:
    """Asks the API of a running Prometheus."""

    def __init__(self, url: str) -> None:
        self.url = url

    def query(self, expr: str) -> list[float]:
        """Return the values that an instant query gives now, without those that are no numbers."""
        samples = self._get("query", query=expr)["result"]
        return [value for sample in samples if math.isfinite(value := float(sample["value"][1]))]

    def alerts(self) -> dict[str, str]:
        """Return the states of the alerts that are pending or firing, by their names."""
        return {alert["labels"]["alertname"]: alert["state"] for alert in self._get("alerts")["alerts"]}

    def runbook(self, name: str) -> str:
        """Return where an alert that is pending or firing says that its runbook is."""
        alerts = {alert["labels"]["alertname"]: alert for alert in self._get("alerts")["alerts"]}
        return str(alerts[name]["annotations"]["runbook_url"])

    def unhealthy_rules(self) -> list[str]:
        """Return what Prometheus says of rules that it could not evaluate, or not yet."""
        groups = self._get("rules")["groups"]
        return [
            f"{rule['name']}: {rule['health']} {rule.get('lastError', '')}"
            for group in groups
            for rule in group["rules"]
            if rule["health"] != "ok"
        ]

    def label_values(self, label: str, series: str) -> list[str]:
        """Return the values of a label of ``series``."""
        values: list[str] = self._get(f"label/{label}/values", **{"match[]": series})
        return values

    def _get(self, path: str, **parameters: str) -> Any:
        response = requests.get(f"{self.url}/api/v1/{path}", params=parameters, timeout=30)
        assert response.ok, response.text
        return response.json()["data"]


class Traffic:
    """Clients of every kind, one request after the other: pictures, batches, noise, and what is no picture."""

    def __init__(self, url: str) -> None:
        """Begin to ask the service at ``url``; while it is down, go on trying."""
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._ask, args=(url,))
        self._thread.start()

    def stop(self) -> None:
        """Stop and wait for the last answer."""
        self._stop.set()
        self._thread.join()

    def _ask(self, url: str) -> None:
        photograph = encoded(Image.effect_noise((64, 48), 60).convert("RGB"), "JPEG")
        png = {"Content-Type": "image/png"}
        while not self._stop.is_set():
            try:
                requests.post(f"{url}/predict", files={"image": photograph}, timeout=30)
                requests.post(f"{url}/predict", plain("black"), headers=png, timeout=30)
                requests.post(
                    f"{url}/predict/batch", files=[("images", plain("red")), ("images", plain("blue"))], timeout=30
                )
                requests.post(f"{url}/predict", plain("red")[:60], headers=png, timeout=30)  # 400: cut short
                requests.post(f"{url}/predict", b"words", headers=png, timeout=30)  # 415
            except requests.RequestException:
                pass  # the service is down, which is what a test may want
            time.sleep(0.05)


def quick_configuration(root: Path, folder: Path) -> Path:
    """Write a Compose file that lets Prometheus look every two seconds, with the same rules; return its path."""
    copied = folder / "prometheus"
    shutil.copytree(root / "docker" / "prometheus", copied)
    text = (copied / "prometheus.yml").read_text(encoding="utf-8")
    text, changed = re.subn(r"(interval|timeout): 1[05]s", rf"\1: {SCRAPE_SECONDS}s", text)
    assert changed == 4
    (copied / "prometheus.yml").write_text(text, encoding="utf-8")
    override = {"services": {"prometheus": {"volumes": [f"{copied}:/etc/prometheus:ro"]}}}
    (folder / "quick.yml").write_text(yaml.safe_dump(override), encoding="utf-8")
    return folder / "quick.yml"


def prometheus_of(project: Project) -> Prometheus:
    """Return the Prometheus that runs in ``project``."""
    return Prometheus(f"http://{project.compose('port', 'prometheus', '9090').strip()}")


def wait_until(condition: Callable[[], bool], seconds: float, explain: Callable[[], object]) -> float:
    """Wait until ``condition`` holds and return how long that took; fail with ``explain()`` after ``seconds``."""
    started = time.monotonic()
    while not condition():
        assert time.monotonic() - started < seconds, explain()
        time.sleep(0.5)
    return time.monotonic() - started
