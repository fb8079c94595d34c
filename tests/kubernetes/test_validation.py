"""What the field's own validators say of the manifests."""

import json
import subprocess
from pathlib import Path
from typing import Any

import pytest

from tests.kubernetes.manifests import NAMESPACE, OVERLAYS, of_kind, render, rendered

OLDEST, NEWEST = "1.31", "1.37"  # versions of Kubernetes
# Resources of Prometheus Operator and KServe are not in Kubernetes' own schemas.
FOREIGN = {"InferenceService", "PrometheusRule", "ServiceMonitor"}
DIGEST, PULL, SECRET = "CKV_K8S_43", "CKV_K8S_15", "CKV_K8S_35"


@pytest.fixture(scope="module")
def tools(root: Path) -> Path:
    """Return the folder of the validators' commands."""
    folder = root / ".venv-kubernetes" / "bin"
    if not (folder / "checkov").exists():
        pytest.skip("make .venv-kubernetes/stamp installs the validators")
    return folder


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder with one file for each overlay, and the namespace."""
    folder = tmp_path_factory.mktemp("rendered")
    for overlay in OVERLAYS:
        (folder / f"{overlay}.yaml").write_text(rendered(overlay), encoding="utf-8")
    (folder / "namespace.yaml").write_text(NAMESPACE.read_text(encoding="utf-8"), encoding="utf-8")
    return folder


def run(*command: Path | str) -> subprocess.CompletedProcess[str]:
    """Run a validator and return what it says."""
    return subprocess.run(command, capture_output=True, text=True, check=False, timeout=120)


@pytest.mark.stack
@pytest.mark.parametrize("version", [OLDEST, NEWEST])
def test_every_document_passes_its_schema(tools: Path, folder: Path, version: str) -> None:
    """No field is unknown, missing or of a wrong type, in the oldest and the newest Kubernetes; all kinds are known."""
    files = sorted(folder.iterdir())
    done = run(tools / "kubernetes-validate", "--strict", "--kubernetes-version", version, *files)
    said = done.stdout + done.stderr
    assert done.returncode == 0, said
    documents = [document for overlay in OVERLAYS for document in render(overlay)]
    foreign = [document for document in documents if document["kind"] in FOREIGN]
    assert said.count(" passed for resource ") == len(documents) + 1 - len(foreign)
    assert said.count("Couldn't find schema for kind") == len(foreign)


@pytest.mark.stack
def test_a_field_that_does_not_exist_is_found(tools: Path, folder: Path, tmp_path: Path) -> None:
    """The schema check sees a field with a typing error."""
    bad = tmp_path / "bad.yaml"
    bad.write_text((folder / "minimal.yaml").read_text(encoding="utf-8").replace("runAsNonRoot", "runAsNonroot"))
    done = run(tools / "kubernetes-validate", "--strict", "--kubernetes-version", NEWEST, bad)
    assert done.returncode != 0
    assert "runAsNonroot" in done.stdout + done.stderr


@pytest.mark.stack
def test_checkov_finds_nothing_that_is_not_excused(tools: Path, folder: Path) -> None:
    """Every check passes for every document, but for three that are excused in place, with the reason beside it."""
    report = checkov(tools, folder)
    findings = [f"{each['check_id']} {each['check_name']}: {each['resource']}" for each in report["failed_checks"]]
    assert findings == []
    assert report["parsing_errors"] == []
    assert len(report["passed_checks"]) > 300
    # An image without a digest in the overlays that checkov can read, one that is in no registry, and credentials.
    assert sorted(each["check_id"] for each in report["skipped_checks"]) == [PULL, SECRET] + [DIGEST] * 6
    for each in report["skipped_checks"]:
        assert len(each["check_result"]["suppress_comment"].split()) > 5, each


@pytest.mark.stack
def test_checkov_sees_a_pod_that_may_do_more(tools: Path, folder: Path, tmp_path: Path) -> None:
    """The same command reports a writable root and programs that may gain privileges: its silence means something."""
    text = (folder / "minimal.yaml").read_text(encoding="utf-8")
    for right, wrong in (
        ("readOnlyRootFilesystem: true", "readOnlyRootFilesystem: false"),
        ("allowPrivilegeEscalation: false", "allowPrivilegeEscalation: true"),
    ):
        assert right in text
        text = text.replace(right, wrong)
    (tmp_path / "bad.yaml").write_text(text, encoding="utf-8")
    found = {each["check_id"] for each in checkov(tools, tmp_path)["failed_checks"]}
    assert {"CKV_K8S_20", "CKV_K8S_22"} <= found


def checkov(tools: Path, folder: Path) -> Any:
    """Return checkov's results for the files in ``folder``."""
    done = run(
        tools / "checkov", "--directory", folder, "--framework", "kubernetes", "--output", "json", "--skip-download"
    )
    assert done.returncode in (0, 1), done.stderr
    return json.loads(done.stdout)["results"]


@pytest.mark.process
@pytest.mark.slow
def test_kserve_knows_every_field(root: Path) -> None:
    """KServe's own classes read the InferenceService and write all of it again; unknown fields would be lost."""
    python = root / ".venv-interop" / "bin" / "python"
    if not python.exists():
        pytest.skip("make .venv-interop/stamp installs KServe's classes")
    (document,) = of_kind(render("kserve"), "InferenceService")
    assert _known_to_kserve(python, root, document) == document
    document["spec"]["predictor"]["minReplica"] = 1
    assert _known_to_kserve(python, root, document) != document


def _known_to_kserve(python: Path, root: Path, document: Any) -> Any:
    done = subprocess.run(
        [python, "-m", "tests.interop.inference_service"],
        cwd=root,
        input=json.dumps(document),
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)
