"""The manifests of docker/kubernetes/ as a cluster would get them: built by kubectl's kustomize."""

import functools
import re
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import yaml

ROOT = Path(__file__).parents[2]
MANIFESTS = ROOT / "docker" / "kubernetes"
NAMESPACE = MANIFESTS / "namespace.yaml"  # applied by itself, before the overlays
OVERLAYS = sorted(path.parent.name for path in MANIFESTS.glob("overlays/*/kustomization.yaml"))

Document = dict[str, Any]


class Pod(NamedTuple):
    """One specification of pods: in which overlay, of what, the labels that it gives them, and what they are."""

    overlay: str
    owner: Document
    labels: dict[str, str]
    spec: Document


def render(overlay: str) -> list[Document]:
    """Return the documents that ``kubectl apply -k`` would send for an overlay."""
    return list(yaml.safe_load_all(rendered(overlay)))


@functools.cache
def rendered(overlay: str) -> str:
    """Return what ``kubectl kustomize`` prints for an overlay; skip where kubectl is missing or too old."""
    _need_kubectl()
    command = ["kubectl", "kustomize", str(MANIFESTS / "overlays" / overlay)]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)
    assert done.returncode == 0, done.stderr[-4000:]
    return done.stdout


def of_kind(documents: list[Document], kind: str) -> list[Document]:
    """Return the documents of one kind."""
    return [document for document in documents if document["kind"] == kind]


def pods(overlay: str) -> Iterator[Pod]:
    """Yield what an overlay would run."""
    for document in render(overlay):
        spec = document.get("spec", {})
        if "template" in spec:
            yield Pod(overlay, document, spec["template"]["metadata"]["labels"], spec["template"]["spec"])
        elif "predictor" in spec:  # KServe gives pods the labels of the InferenceService
            yield Pod(overlay, document, document["metadata"]["labels"], spec["predictor"])


def variables(pod: Pod) -> dict[str, str]:
    """Return the variables that the first container of a pod gets, those of ConfigMaps included."""
    container = pod.spec["containers"][0]
    found: dict[str, str] = {}
    for source in container.get("envFrom", []):
        if "configMapRef" in source:  # a Secret is not in the manifests
            found |= config_map(pod.overlay, source["configMapRef"]["name"])
    return found | {variable["name"]: variable["value"] for variable in container.get("env", [])}


def config_map(overlay: str, name: str) -> dict[str, str]:
    """Return what a ConfigMap of an overlay holds."""
    (data,) = [each["data"] for each in of_kind(render(overlay), "ConfigMap") if each["metadata"]["name"] == name]
    return dict(data)


@functools.cache
def _need_kubectl() -> None:
    if not shutil.which("kubectl"):
        pytest.skip("there is no kubectl command")
    told = subprocess.run(["kubectl", "version", "--client"], capture_output=True, text=True, check=False).stdout
    minor = re.search(r"Client Version: (?:v1\.|.*GitVersion:\"v1\.)(\d+)", told)
    if not minor or int(minor[1]) < 27:  # 1.27 brought kustomize 5
        pytest.skip(f"kubectl is older than 1.27, whose kustomize is version 5: {told.strip()}")
