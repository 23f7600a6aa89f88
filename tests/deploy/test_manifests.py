"""Every rendered manifest against its schema, and the manifests against each other."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from typing import Any

import jsonschema
import kubernetes_validate
import pytest
import yaml
from ray.serve.schema import ServeDeploySchema

from tests.deploy.conftest import ROOT, Manifest

KUBERNETES = "1.32"
RAYSERVICE_SCHEMA = ROOT / "../shared/schemas/rayservice.v1.schema.json"
SECRETS_MADE_BY_HAND = {"sitsearch-redis"}


def only(manifests: list[Manifest], kind: str) -> list[Manifest]:
    return [manifest for manifest in manifests if manifest["kind"] == kind]


def ray_service(manifests: list[Manifest]) -> Manifest:
    (manifest,) = only(manifests, "RayService")
    return manifest


def pod_templates(manifests: list[Manifest]) -> Iterator[tuple[str, Manifest]]:
    """The name and the template of each kind of pod."""
    for manifest in manifests:
        if manifest["kind"] in ("Deployment", "StatefulSet"):
            yield manifest["metadata"]["name"], manifest["spec"]["template"]
        if manifest["kind"] == "RayService":
            cluster = manifest["spec"]["rayClusterConfig"]
            yield "ray head", cluster["headGroupSpec"]["template"]
            for group in cluster["workerGroupSpecs"]:
                yield f"ray {group['groupName']}", group["template"]


def containers(manifests: list[Manifest]) -> Iterator[tuple[str, Manifest]]:
    for name, template in pod_templates(manifests):
        for container in template["spec"]["containers"] + template["spec"].get("initContainers", []):
            yield f"{name}/{container['name']}", container


def selects(selector: dict[str, Any], labels: dict[str, str]) -> bool:
    """Whether a Kubernetes label selector matches."""
    equal = all(labels.get(key) == value for key, value in selector.get("matchLabels", {}).items())
    rules = selector.get("matchExpressions", [])
    assert all(rule["operator"] == "In" for rule in rules), "only In is known here"
    return equal and all(labels.get(rule["key"]) in rule["values"] for rule in rules)


def made_strict(schema: Any) -> Any:
    """The schema with unknown fields refused wherever fields are listed, but not where the API server keeps them."""
    if isinstance(schema, list):
        return [made_strict(item) for item in schema]
    if not isinstance(schema, dict):
        return schema
    strict = {key: made_strict(value) for key, value in schema.items()}
    if isinstance(strict.get("properties"), dict) and not strict.get("x-kubernetes-preserve-unknown-fields"):
        strict.setdefault("additionalProperties", False)
    return strict


def rayservice_schema() -> Any:
    if not RAYSERVICE_SCHEMA.exists():
        pytest.skip(f"{RAYSERVICE_SCHEMA.name} is not beside this checkout, in ../shared/schemas")
    return made_strict(json.loads(RAYSERVICE_SCHEMA.read_text(encoding="utf-8")))


def cpus(quantity: str) -> float:
    return float(quantity[:-1]) / 1000 if quantity.endswith("m") else float(quantity)


def test_built_in_kinds_pass_the_schemas_of_kubernetes(manifests: list[Manifest]) -> None:
    built_in = [manifest for manifest in manifests if manifest["kind"] != "RayService"]
    assert built_in
    for manifest in built_in:
        kubernetes_validate.validate(manifest, KUBERNETES, strict=True)


def test_the_rayservice_passes_the_schema_of_kuberay(manifests: list[Manifest]) -> None:
    jsonschema.Draft7Validator(rayservice_schema()).validate(ray_service(manifests))


def test_the_strict_schema_refuses_a_misspelt_field(manifests: list[Manifest]) -> None:
    manifest = json.loads(json.dumps(ray_service(manifests)))
    manifest["spec"]["rayClusterConfig"]["headGroupSpec"]["template"]["spec"]["container"] = []
    with pytest.raises(jsonschema.ValidationError, match="'container' was unexpected"):
        jsonschema.Draft7Validator(rayservice_schema()).validate(manifest)


def test_the_serve_config_is_one_that_ray_takes(manifests: list[Manifest]) -> None:
    config = ServeDeploySchema.model_validate(yaml.safe_load(ray_service(manifests)["spec"]["serveConfigV2"]))
    (app,) = config.applications
    assert (app.name, app.import_path, app.route_prefix) == ("sitsearch", "sitsearch.workers.serving.app:build", None)


def test_the_deployments_of_the_serve_config_fit_on_the_workers(manifests: list[Manifest]) -> None:
    spec = ray_service(manifests)["spec"]
    (app,) = yaml.safe_load(spec["serveConfigV2"])["applications"]
    for resource, option in (("cpu", "num_cpus"), ("nvidia.com/gpu", "num_gpus")):
        needed = sum(d["num_replicas"] * d["ray_actor_options"][option] for d in app["deployments"])
        present = sum(
            group["replicas"]
            * cpus(group["template"]["spec"]["containers"][0]["resources"]["limits"].get(resource, "0"))
            for group in spec["rayClusterConfig"]["workerGroupSpecs"]
        )
        assert needed <= present, f"{resource}: {needed} asked for, {present} there"


def test_every_object_but_the_namespace_is_in_the_namespace(manifests: list[Manifest]) -> None:
    (namespace,) = only(manifests, "Namespace")
    others = [manifest for manifest in manifests if manifest is not namespace]
    assert {manifest["metadata"].get("namespace") for manifest in others} == {namespace["metadata"]["name"]}


def test_every_name_that_a_pod_refers_to_exists(manifests: list[Manifest]) -> None:
    config_maps = {m["metadata"]["name"] for m in only(manifests, "ConfigMap")}
    accounts = {m["metadata"]["name"] for m in only(manifests, "ServiceAccount")}
    claims = {c["metadata"]["name"] for m in only(manifests, "StatefulSet") for c in m["spec"]["volumeClaimTemplates"]}
    used = set()
    for name, template in pod_templates(manifests):
        spec = template["spec"]
        assert spec["serviceAccountName"] in accounts, name
        used |= {volume["configMap"]["name"] for volume in spec["volumes"] if "configMap" in volume}
        mounts = {mount["name"] for container in spec["containers"] for mount in container["volumeMounts"]}
        assert mounts <= {volume["name"] for volume in spec["volumes"]} | claims, name
    for name, container in containers(manifests):
        used |= {source["configMapRef"]["name"] for source in container.get("envFrom", [])}
        sources = [variable["valueFrom"] for variable in container.get("env", []) if "valueFrom" in variable]
        assert {source["secretKeyRef"]["name"] for source in sources} <= SECRETS_MADE_BY_HAND, name
    assert used == config_maps


def test_the_readme_says_how_to_make_each_secret() -> None:
    readme = (ROOT / "deploy/README.md").read_text(encoding="utf-8")
    assert all(f"create secret generic {name} " in readme for name in SECRETS_MADE_BY_HAND)


def test_settings_reach_the_pods_that_read_them(manifests: list[Manifest]) -> None:
    for name, container in containers(manifests):
        maps = {re.sub(r"-[a-z0-9]{10}$", "", s["configMapRef"]["name"]) for s in container.get("envFrom", [])}
        variables = {variable["name"]: variable.get("value", "") for variable in container["env"]}
        if name.startswith("sitsearch-redis"):
            continue
        assert maps == {"sitsearch-shared"} | ({"sitsearch-gateway"} if "gateway" in name else set())
        # The address names the Service of the Redis StatefulSet, and the password stands before it is referred to.
        assert variables["SITSEARCH_REDIS_URL"] == "redis://:$(REDIS_PASSWORD)@sitsearch-redis:6379/0"
        assert list(variables).index("REDIS_PASSWORD") < list(variables).index("SITSEARCH_REDIS_URL")


def test_selectors_match_the_pods_they_mean_and_no_others(manifests: list[Manifest]) -> None:
    pods = {name: template["metadata"]["labels"] for name, template in pod_templates(manifests)}

    def selected(selector: dict[str, Any]) -> set[str]:
        return {name for name, labels in pods.items() if selects(selector, labels)}

    ray = {name for name in pods if name.startswith("ray ")}
    for manifest in [m for kind in ("Deployment", "StatefulSet", "PodDisruptionBudget") for m in only(manifests, kind)]:
        assert selected(manifest["spec"]["selector"]) == {manifest["metadata"]["name"]}
    for manifest in only(manifests, "Service"):
        assert selected({"matchLabels": manifest["spec"]["selector"]}) == {manifest["metadata"]["name"]}
    policies = {m["metadata"]["name"]: selected(m["spec"]["podSelector"]) for m in only(manifests, "NetworkPolicy")}
    assert policies == {
        "default-deny": set(pods),
        "dns": set(pods),
        "gateway": {"sitsearch-gateway"},
        "redis": {"sitsearch-redis"},
        "ray": ray,
    }
    (redis,) = (m for m in only(manifests, "NetworkPolicy") if m["metadata"]["name"] == "redis")
    (rule,) = redis["spec"]["ingress"]
    assert selected(rule["from"][0]["podSelector"]) == {"sitsearch-gateway"} | ray


def test_ports_that_are_named_exist_where_they_lead(manifests: list[Manifest]) -> None:
    ports = {
        name: {port["name"]: port["containerPort"] for c in template["spec"]["containers"] for port in c["ports"]}
        for name, template in pod_templates(manifests)
    }
    for service in only(manifests, "Service"):
        for port in service["spec"]["ports"]:
            assert port["targetPort"] in ports[service["metadata"]["name"]]
    for name, container in containers(manifests):
        for probe in ("startupProbe", "livenessProbe", "readinessProbe"):
            action = container.get(probe, {})
            port = (action.get("httpGet") or action.get("tcpSocket") or {}).get("port")
            assert not isinstance(port, str) or port in ports[name.split("/")[0]], (name, probe)
    (settings,) = (
        m["data"] for m in only(manifests, "ConfigMap") if m["metadata"]["name"].startswith("sitsearch-gateway")
    )
    assert ports["sitsearch-gateway"]["http"] == int(settings["SITSEARCH_PORT"])
    assert ports["sitsearch-redis"]["redis"] == 6379


def test_a_stateful_set_names_a_headless_service(manifests: list[Manifest]) -> None:
    headless = {s["metadata"]["name"] for s in only(manifests, "Service") if s["spec"].get("clusterIP") == "None"}
    assert {m["spec"]["serviceName"] for m in only(manifests, "StatefulSet")} <= headless


def test_pods_are_restricted(manifests: list[Manifest]) -> None:
    for name, template in pod_templates(manifests):
        spec = template["spec"]
        assert spec["automountServiceAccountToken"] is False, name
        assert spec["securityContext"]["runAsNonRoot"] is True and spec["securityContext"]["runAsUser"] > 0, name
        assert spec["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}, name
        kinds = {kind for volume in spec["volumes"] for kind in volume if kind != "name"}
        assert kinds <= {"emptyDir", "configMap"}, name
    for name, container in containers(manifests):
        assert container["securityContext"] == {
            "allowPrivilegeEscalation": False,
            "readOnlyRootFilesystem": True,
            "capabilities": {"drop": ["ALL"]},
        }, name
        assert "memory" in container["resources"]["limits"] and "cpu" in container["resources"]["requests"], name


def test_our_images_have_a_tag_and_a_container_file(manifests: list[Manifest]) -> None:
    images = {container["image"] for _, container in containers(manifests)}
    ours = {image for image in images if image.startswith("sitsearch/")}
    assert {image.rsplit(":", 1)[0] for image in ours} == {"sitsearch/gateway", "sitsearch/workers"}
    for image in images:
        assert re.fullmatch(r"[a-z]+/[a-z]+:\d+\.\d+\.\d+", image), "an exact version, never a moving tag"
    for image in ours:
        name = image.removeprefix("sitsearch/").split(":")[0]
        assert (ROOT / f"deploy/images/{name}.Containerfile").exists()
