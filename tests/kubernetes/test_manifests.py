"""Manifests that fit together, and fit the service: what a cluster would find out when pods are already missing."""

import re
from pathlib import Path
from typing import Any

import pytest
import yaml

from service import __version__
from service.settings import Settings, documentation
from tests.kubernetes.manifests import MANIFESTS, NAMESPACE, OVERLAYS, Document, of_kind, pods, render, variables

GRACEFUL_SECONDS = 5  # that the service adds to the deadline before it gives a request up


@pytest.fixture(params=OVERLAYS)
def overlay(request: pytest.FixtureRequest) -> str:
    """Return the name of each overlay in turn."""
    return str(request.param)


def test_every_manifest_is_used() -> None:
    """Each file in docker/kubernetes/ is part of some overlay, or is the namespace that is applied before them."""
    used = {NAMESPACE}
    for name in OVERLAYS:
        used |= _reached(MANIFESTS / "overlays" / name)
    files = {path for path in MANIFESTS.rglob("*") if path.is_file()}
    assert files - used == set()


def test_every_overlay_is_documented(root: Path, overlay: str) -> None:
    """The page for operators has a row for each overlay."""
    assert f"| `{overlay}` |" in (root / "docs" / "operations.md").read_text(encoding="utf-8")


def _reached(folder: Path) -> set[Path]:
    """Return the files that a kustomization is made of, its own included."""
    file = folder / "kustomization.yaml"
    parts = yaml.safe_load(file.read_text(encoding="utf-8"))
    reached = {file}
    for part in [*parts.get("resources", []), *parts.get("components", [])]:
        path = (folder / part).resolve()
        reached |= _reached(path) if path.is_dir() else {path}
    reached |= {folder / patch["path"] for patch in parts.get("patches", []) if "path" in patch}
    for generator in parts.get("configMapGenerator", []):
        reached |= {folder / name for name in [*generator.get("envs", []), *generator.get("files", [])]}
    return reached


def test_everything_goes_to_the_namespace_with_the_restricted_profile(overlay: str) -> None:
    """Every document names the namespace, in which the cluster itself enforces the restricted profile."""
    namespace = yaml.safe_load(NAMESPACE.read_text(encoding="utf-8"))["metadata"]
    assert namespace["labels"]["pod-security.kubernetes.io/enforce"] == "restricted"
    documents = render(overlay)
    assert documents
    assert {document["metadata"].get("namespace") for document in documents} == {namespace["name"]}


def test_pods_keep_to_the_restricted_profile(overlay: str) -> None:
    """Also what no validator looks into (KServe's predictor) asks for nothing that the restricted profile forbids."""
    for pod in pods(overlay):
        spec = pod.spec
        assert not {"hostNetwork", "hostPID", "hostIPC"} & set(spec)
        assert spec["automountServiceAccountToken"] is False
        assert spec["enableServiceLinks"] is False
        assert spec["securityContext"]["runAsNonRoot"] is True
        assert spec["securityContext"]["runAsUser"] > 0
        assert spec["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
        assert {kind for volume in spec["volumes"] for kind in volume} <= {
            "name", "emptyDir", "configMap", "persistentVolumeClaim",
        }  # fmt: skip
        for container in spec["containers"]:
            assert container["securityContext"] == {
                "allowPrivilegeEscalation": False,
                "readOnlyRootFilesystem": True,
                "capabilities": {"drop": ["ALL"]},
            }
            assert {"cpu", "memory"} <= set(container["resources"]["limits"])
            assert {"cpu", "memory"} <= set(container["resources"]["requests"])
            assert not any("hostPort" in port for port in container.get("ports", []))


def test_pods_run_as_the_user_of_the_image(root: Path, overlay: str) -> None:
    """The manifests' user is the one that the service's image was made for, and owns what the Jobs write."""
    dockerfile = (root / "docker" / "service.Dockerfile").read_text(encoding="utf-8")
    user = re.search(r"^USER (\d+):(\d+)$", dockerfile, re.MULTILINE)
    assert user
    for pod in pods(overlay):
        context = pod.spec["securityContext"]
        assert (context["runAsUser"], context["runAsGroup"], context["fsGroup"]) == (
            int(user[1]), int(user[2]), int(user[2]),
        )  # fmt: skip


def test_images_are_those_of_this_version(overlay: str) -> None:
    """Each image has a registry that is not a public one by default, and the tag of the service's version."""
    for pod in pods(overlay):
        for container in pod.spec["containers"]:
            registry, _, image = container["image"].partition("/")
            assert registry in ("localhost", "registry.example.com")
            assert image.endswith((f"service:{__version__}", f"trainer:{__version__}"))


@pytest.mark.parametrize("name", ["minimal", "production"])
def test_selectors_and_ports_meet(name: str) -> None:
    """Service, budget, policy, spread constraints and autoscaler find the Deployment's pods and their port."""
    documents = render(name)
    (pod,) = pods(name)
    assert pod.owner["kind"] == "Deployment"
    labels = pod.labels.items()
    (service,) = of_kind(documents, "Service")
    selectors = [
        service["spec"]["selector"],
        pod.owner["spec"]["selector"]["matchLabels"],
        *(each["spec"]["selector"]["matchLabels"] for each in of_kind(documents, "PodDisruptionBudget")),
        *(each["spec"]["podSelector"]["matchLabels"] for each in of_kind(documents, "NetworkPolicy")),
        *(each["labelSelector"]["matchLabels"] for each in pod.spec["topologySpreadConstraints"]),
    ]
    for selector in selectors:
        assert selector
        assert selector.items() <= labels
    ports = {port["name"]: port["containerPort"] for port in pod.spec["containers"][0]["ports"]}
    assert ports == {"http": Settings().port}
    assert [port["targetPort"] for port in service["spec"]["ports"]] == ["http"]
    (policy,) = of_kind(documents, "NetworkPolicy")
    assert [port["port"] for rule in policy["spec"]["ingress"] for port in rule["ports"]] == ["http"]
    for scaler in of_kind(documents, "HorizontalPodAutoscaler"):
        assert scaler["spec"]["scaleTargetRef"]["name"] == pod.owner["metadata"]["name"]
        assert "replicas" not in pod.owner["spec"]  # or every apply would undo the autoscaler's work


def test_production_is_scaled_and_kept_and_minimal_is_neither() -> None:
    """Production has an autoscaler from two pods on and a budget; minimal is one pod without them."""
    kinds = {name: {document["kind"] for document in render(name)} for name in ("minimal", "production")}
    assert {"HorizontalPodAutoscaler", "PodDisruptionBudget", "NetworkPolicy", "ServiceMonitor"} <= kinds["production"]
    assert not {"HorizontalPodAutoscaler", "PodDisruptionBudget"} & kinds["minimal"]
    (deployment,) = of_kind(render("minimal"), "Deployment")
    assert deployment["spec"]["replicas"] == 1
    (scaler,) = of_kind(render("production"), "HorizontalPodAutoscaler")
    assert scaler["spec"]["minReplicas"] >= 2
    (deployment,) = of_kind(render("production"), "Deployment")
    assert deployment["spec"]["strategy"]["rollingUpdate"]["maxUnavailable"] == 0


def test_prometheus_is_led_to_the_service() -> None:
    """The ServiceMonitor selects the Service by its labels, and scrapes a port that this one has."""
    documents = render("production")
    (monitor,) = of_kind(documents, "ServiceMonitor")
    (service,) = of_kind(documents, "Service")
    assert monitor["spec"]["selector"]["matchLabels"].items() <= service["metadata"]["labels"].items()
    assert {port["name"] for port in service["spec"]["ports"]} == {
        each["port"] for each in monitor["spec"]["endpoints"]
    }
    assert [each["path"] for each in monitor["spec"]["endpoints"]] == ["/metrics"]


def test_rules_are_those_of_compose(root: Path) -> None:
    """Prometheus Operator gets just the rules that docker/prometheus/ has; `make manifests` writes them anew."""
    sources = sorted((root / "docker" / "prometheus").glob("*.rules.yml"))
    assert sources
    ours = [yaml.safe_load(source.read_text(encoding="utf-8")) for source in sources]
    theirs = [document["spec"] for document in of_kind(render("production"), "PrometheusRule")]
    assert theirs == ours


@pytest.mark.parametrize("name", ["minimal", "production", "kserve"])
def test_variables_are_settings(name: str) -> None:
    """Every variable of the service's pods is a setting, with a value that the service takes."""
    (pod,) = pods(name)
    given = variables(pod)
    assert set(given) <= {setting.variable for setting in documentation()}
    assert Settings.from_environment(given).drain_seconds == 10


@pytest.mark.parametrize("name", ["minimal", "production", "kserve"])
def test_pods_have_time_to_drain(name: str) -> None:
    """SIGKILL comes later than the drain and the slowest request together may take."""
    (pod,) = pods(name)
    settings = Settings.from_environment(variables(pod))
    slowest = settings.drain_seconds + settings.request_deadline + GRACEFUL_SECONDS
    assert pod.spec["terminationGracePeriodSeconds"] > slowest
    probe = pod.spec["containers"][0]["readinessProbe"]
    assert probe["periodSeconds"] * probe["failureThreshold"] < settings.drain_seconds


def test_volumes_exist(overlay: str) -> None:
    """Each claim that a pod mounts is made by some overlay, and each ConfigMap by its own."""
    claims = {
        document["metadata"]["name"] for name in OVERLAYS for document in of_kind(render(name), "PersistentVolumeClaim")
    }
    maps = {document["metadata"]["name"] for document in of_kind(render(overlay), "ConfigMap")}
    accounts = {document["metadata"]["name"] for document in of_kind(render(overlay), "ServiceAccount")}
    for pod in pods(overlay):
        for volume in pod.spec["volumes"]:
            assert volume.get("persistentVolumeClaim", {}).get("claimName") in {*claims, None}
            assert volume.get("configMap", {}).get("name") in {*maps, None}
        assert pod.spec.get("serviceAccountName") in {*accounts, None}
        mounted = {mount["name"] for container in pod.spec["containers"] for mount in container["volumeMounts"]}
        assert mounted == {volume["name"] for volume in pod.spec["volumes"]}


def test_only_production_owns_the_models() -> None:
    """Deleting the overlay of a training or of the seed does not take the volume of models with it."""
    owners = [
        name
        for name in OVERLAYS
        for document in of_kind(render(name), "PersistentVolumeClaim")
        if document["metadata"]["name"] == "darkroom-models"
    ]
    assert owners == ["production"]


def test_pods_with_a_source_may_ask_it_and_keep_what_it_has() -> None:
    """They write into a cache that is bounded and their own, and nothing but names and HTTPS leaves them."""
    [pod] = [pod for pod in pods("source") if pod.owner["kind"] == "Deployment"]
    [container] = pod.spec["containers"]
    [mount] = [each for each in container["volumeMounts"] if each["name"] == "models"]
    assert mount == {"name": "models", "mountPath": "/models"}
    [volume] = [each for each in pod.spec["volumes"] if each["name"] == "models"]
    assert set(volume["emptyDir"]) == {"sizeLimit"}
    assert {"secretRef": {"name": "darkroom-source", "optional": True}} in container["envFrom"]
    assert variables(pod)["MODEL_SOURCE"] == "s3://my-bucket/models"
    [policy] = of_kind(render("source"), "NetworkPolicy")
    [way] = policy["spec"]["egress"]
    assert {(port["port"], port["protocol"]) for port in way["ports"]} == {(443, "TCP"), (53, "UDP"), (53, "TCP")}
    assert of_kind(render("production"), "NetworkPolicy")[0]["spec"]["egress"] == []


def test_the_service_cannot_write_models_and_the_jobs_can() -> None:
    """The volume of models is read-only for the service and writable for trainings, the seed and the canary."""

    def mount(name: str) -> Any:
        (pod,) = pods(name)
        (found,) = [each for each in pod.spec["containers"][0]["volumeMounts"] if each["name"] == "models"]
        return found

    assert (mount("production")["mountPath"], mount("production")["readOnly"]) == ("/models", True)
    assert mount("training")["mountPath"] == "/models"
    assert not mount("training").get("readOnly")
    assert not mount("seed").get("readOnly")
    assert not mount("canary").get("readOnly")


def test_a_training_gets_one_gpu() -> None:
    """The training asks for a GPU, may run on nodes kept for those, and is not repeated where that cannot help."""
    (pod,) = pods("training")
    assert pod.spec["containers"][0]["resources"]["limits"]["nvidia.com/gpu"] == 1
    assert {"key": "nvidia.com/gpu", "operator": "Exists", "effect": "NoSchedule"} in pod.spec["tolerations"]
    rules = pod.owner["spec"]["podFailurePolicy"]["rules"]
    assert [rule["onExitCodes"]["values"] for rule in rules if rule["action"] == "FailJob"] == [[2, 3]]


def test_kserve_runs_the_same_container() -> None:
    """The predictor differs from the Deployment's pod only in names, in its probes' paths and where KServe must."""
    (predictor,) = pods("kserve")
    (pod,) = pods("production")
    assert predictor.spec["securityContext"] == pod.spec["securityContext"]
    assert predictor.spec["terminationGracePeriodSeconds"] == pod.spec["terminationGracePeriodSeconds"]
    (ours,), (theirs,) = pod.spec["containers"], predictor.spec["containers"]
    for key in ("image", "resources", "securityContext"):
        assert ours[key] == theirs[key]
    assert variables(predictor) == variables(pod)
    assert [port["containerPort"] for port in theirs["ports"]] == [port["containerPort"] for port in ours["ports"]]
    for probe in ("startupProbe", "livenessProbe", "readinessProbe"):
        assert _without_path(ours[probe]) == _without_path(theirs[probe])
        assert theirs[probe]["httpGet"]["path"].startswith("/v2/health/")


def _without_path(probe: Document) -> Document:
    return {key: value for key, value in probe.items() if key != "httpGet"}
