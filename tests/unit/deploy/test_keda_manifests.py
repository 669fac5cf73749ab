"""The manifests of `deploy/keda`, against KEDA's own definitions and against what they scale."""

import json
from functools import cache
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import yaml
from tests.support.deploy import REPOSITORY, compose
from typer.testing import CliRunner

from penstock.cli import build_app
from penstock.commands.scaled_object import DEFAULT_MOST
from penstock.errors import OperatorError
from penstock.scaled_object import NAME, Trigger, scaled_object
from penstock.scaling import ScalingPolicy, WorkerRange
from penstock.settings import read_settings
from penstock_shared.contracts.streams import JOB_ACK_WAIT_S
from penstock_worker.settings import Settings

KEDA = REPOSITORY / "deploy" / "keda"
DEFINITIONS = REPOSITORY / "tests" / "data" / "keda"
FILES = {
    Trigger.NATS_JETSTREAM: "scaledobject-nats.yaml",
    Trigger.PROMETHEUS: "scaledobject-prometheus.yaml",
}


def load(path: Path) -> Any:
    return yaml.safe_load(path.read_text())


def bundled_models() -> list[str]:
    found = (REPOSITORY / "models").glob("*/penstock.json")
    return sorted(json.loads(path.read_text())["name"] for path in found)


@cache
def scaled_object_schema() -> dict[str, Any]:
    """KEDA's schema of a ScaledObject, made to refuse what an API server would silently drop."""
    definition = load(DEFINITIONS / "keda.sh_scaledobjects.yaml")
    (version,) = definition["spec"]["versions"]
    schema: dict[str, Any] = closed(version["schema"]["openAPIV3Schema"])
    schema["properties"]["metadata"] = {"type": "object"}  # Kubernetes' own
    return schema


def closed(schema: Any) -> Any:
    """The schema with `additionalProperties: false` wherever it lists the properties."""
    if isinstance(schema, list):
        return [closed(one) for one in schema]
    if not isinstance(schema, dict):
        return schema
    copy = {name: closed(value) for name, value in schema.items()}
    if "properties" in schema and isinstance(schema.get("type"), str):
        copy.setdefault("additionalProperties", False)
    return copy


def validate(manifest: dict[str, Any]) -> None:
    jsonschema.Draft202012Validator(scaled_object_schema()).validate(manifest)


@pytest.fixture
def worker() -> dict[str, Any]:
    deployment: dict[str, Any] = load(KEDA / "deployment.yaml")
    return deployment


def container(deployment: dict[str, Any]) -> dict[str, Any]:
    (only,) = deployment["spec"]["template"]["spec"]["containers"]
    return dict(only)


@pytest.mark.parametrize("file", FILES.values())
def test_scaled_objects_are_what_keda_defines(file):
    """No field that KEDA does not know, none of another type, none missing."""
    validate(load(KEDA / file))


@pytest.mark.parametrize(
    ("path", "value"),
    [
        (("spec", "coolDownPeriod"), 30),
        (("spec", "pollingInterval"), "1"),
        (("spec", "triggers", 0, "metadata", "lagThreshold"), 16),
        (("spec", "triggers", 0, "metdata"), {}),
        (("spec", "advanced", "horizontalPodAutoscalerConfig", "behavior", "scaleDwon"), {}),
        (("spec", "triggers"), []),
    ],
)
def test_a_slip_does_not_pass(path, value):
    """The check can fail: unknown names, wrong types, and triggers that are missing."""
    manifest = load(KEDA / FILES[Trigger.NATS_JETSTREAM])
    node = manifest
    for step in path[:-1]:
        node = node[step]
    node[path[-1]] = value
    with pytest.raises(jsonschema.ValidationError):
        validate(manifest)


@pytest.mark.parametrize("trigger", Trigger)
def test_the_supervisor_and_the_cluster_have_the_same_numbers(trigger):
    """One truth: the files say what the defaults of `penstock up` say, of every bundled model.

    If this fails after a change, print them anew: `penstock scaled-object`, see the files' heads.
    """
    policy = read_settings({}, data_dir=None, port=0, workers="auto").scaling
    expected = scaled_object(trigger, bundled_models(), policy, WorkerRange(0, DEFAULT_MOST))
    assert load(KEDA / FILES[trigger]) == expected


@pytest.mark.parametrize("readme", ["deploy/keda/README.md", "deploy/allinone/README.md"])
def test_the_documented_defaults_are_the_real_ones(readme):
    """Each number's variable and default stand in a row of the table."""
    text = (REPOSITORY / readme).read_text()
    for name, value in ScalingPolicy().model_dump().items():
        assert f"| `PENSTOCK_SCALE_{name.upper()}` | {value:g} |" in text


def test_numbers_that_are_set_reach_the_cluster_and_stay_valid(monkeypatch):
    """The command reads the variables that the supervisor reads."""
    monkeypatch.setenv("PENSTOCK_SCALE_TOLERANCE", "0.05")
    monkeypatch.setenv("PENSTOCK_SCALE_LAG_THRESHOLD", "9")
    printed = CliRunner().invoke(build_app(), ["scaled-object", "m", "--min", "2", "--max", "5"])
    manifest = json.loads(printed.stdout)
    validate(manifest)
    policy = ScalingPolicy(tolerance=0.05, lag_threshold=9)
    assert manifest == scaled_object(Trigger.NATS_JETSTREAM, ["m"], policy, WorkerRange(2, 5))
    assert {one["metadata"]["lagThreshold"] for one in manifest["spec"]["triggers"]} == {"9"}


@pytest.mark.parametrize("wrong", [[], ["m", "--min", "3", "--max", "2"]])
def test_an_object_that_scales_nothing_is_refused(wrong):
    """No model for the NATS trigger, or bounds that cross: a sentence, and nothing to apply."""
    printed = CliRunner().invoke(build_app(), ["scaled-object", *wrong])
    assert isinstance(printed.exception, OperatorError)
    assert not printed.stdout


def test_one_of_the_two_scales_the_deployment(worker):
    """The kustomization has one ScaledObject; its target is the Deployment, which counts none."""
    resources = load(KEDA / "kustomization.yaml")["resources"]
    assert sum(file in resources for file in FILES.values()) == 1
    assert worker["metadata"]["name"] == NAME
    assert "replicas" not in worker["spec"]
    for file in FILES.values():
        assert load(KEDA / file)["spec"]["scaleTargetRef"] == {"name": NAME}


def test_a_replica_has_time_to_drain_and_says_how_it_is(worker):
    """SIGKILL comes after the worker's own grace, and a frozen one is found by its probe."""
    pod, worker_container = worker["spec"]["template"]["spec"], container(worker)
    env = {one["name"]: one.get("value") for one in worker_container["env"]}
    assert pod["terminationGracePeriodSeconds"] > float(env["PENSTOCK_DRAIN_GRACE_S"])
    assert float(env["PENSTOCK_DRAIN_GRACE_S"]) > JOB_ACK_WAIT_S
    probes = {
        name: worker_container[name]["httpGet"]["path"]
        for name in ("startupProbe", "readinessProbe", "livenessProbe")
    }
    assert list(probes.values()) == ["/startupz", "/readyz", "/livez"]


def test_a_replica_gets_settings_that_exist_and_no_secret_in_the_clear(worker):
    """Each variable is one of the worker's; the address with its password comes from a secret."""
    known = {f"PENSTOCK_{name}".upper() for name in Settings.model_fields}
    env = {one["name"]: one for one in container(worker)["env"]}
    assert set(env) <= known
    assert "secretKeyRef" in env["PENSTOCK_NATS_URL"]["valueFrom"]
    assert "//" not in json.dumps([one.get("value", "") for one in env.values()])


def test_a_replica_is_the_image_that_compose_builds(worker):
    """The same image, port and user as `deploy/docker`; what is written to is a volume."""
    assert container(worker)["image"] == compose()["services"]["worker"]["image"]
    mounted = {one["name"] for one in container(worker)["volumeMounts"]}
    assert mounted == {one["name"] for one in worker["spec"]["template"]["spec"]["volumes"]}
    dockerfile = (REPOSITORY / "deploy" / "docker" / "Dockerfile").read_text()
    assert f"PENSTOCK_OPS_PORT={container(worker)['ports'][0]['containerPort']}" in dockerfile
    user = worker["spec"]["template"]["spec"]["securityContext"]["runAsUser"]
    assert f"USER {user}:" in dockerfile
