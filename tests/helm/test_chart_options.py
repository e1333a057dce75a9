"""The chart's options that other software reads: the Prometheus operator, KEDA, the Gateway API, Grafana's sidecar.

None of them runs here, and Kubernetes' own schemas do not know their kinds. So each manifest is held against the fields that
their documentation names, and those alone: a field that is spelled wrongly is found.
"""
import hashlib
import json
import os
import subprocess

import jsonschema
import pytest
import yaml
from chart import (APIS, CHART, ROOT, VALUES, component, documents_of, of_kind, pod_spec, run, set_options, template,
                   workloads)

TEXT, NUMBER = {"type": "string", "minLength": 1}, {"type": "integer"}


def record(required, **optional):
    return {"type": "object", "additionalProperties": False, "required": list(required), "properties": {**required, **optional}}


def rows(item):
    return {"type": "array", "minItems": 1, "items": item}


SELECTOR = record({"matchLabels": {"type": "object", "minProperties": 1}})
ENDPOINT = record({"port": {"const": "admin"}, "interval": TEXT}, relabelings=rows(record({"action": TEXT, "regex": TEXT})))
RULE = record({"expr": TEXT}, record=TEXT, alert=TEXT, **{"for": TEXT}, labels={"type": "object"}, annotations={"type": "object"})
TARGET = record({"apiVersion": TEXT, "kind": TEXT, "name": TEXT})
BEHAVIOR = record({"scaleUp": {"type": "object"}, "scaleDown": {"type": "object"}})
GROUP = record({"replicas": NUMBER, "leaderWorkerTemplate": record({
    "size": NUMBER, "restartPolicy": {"const": "None"}, "workerTemplate": record({"metadata": {}, "spec": {}})})})
SPECS = {
    "PodMonitor": record({"selector": SELECTOR, "podMetricsEndpoints": rows(ENDPOINT)}),
    "ServiceMonitor": record({"selector": SELECTOR, "endpoints": rows(ENDPOINT)}),
    "PrometheusRule": record({"groups": rows(record({"name": TEXT, "rules": rows(RULE)}))}),
    "ScaledObject": record({
        "scaleTargetRef": TARGET, "minReplicaCount": NUMBER, "maxReplicaCount": NUMBER, "pollingInterval": NUMBER,
        "advanced": record({"horizontalPodAutoscalerConfig": record({"behavior": BEHAVIOR})}),
        "triggers": rows(record({"type": {"const": "prometheus"},
                                 "metadata": record({"serverAddress": TEXT, "query": TEXT, "threshold": TEXT})}))}),
    "HTTPRoute": record({
        "parentRefs": rows(record({"name": TEXT}, namespace=TEXT)),
        "rules": rows(record({"matches": rows({"type": "object"}), "timeouts": record({"request": TEXT}),
                              "backendRefs": rows(record({"name": TEXT}, port=NUMBER, group=TEXT, kind=TEXT))}))},
        hostnames=rows(TEXT)),
    "InferencePool": record({"selector": SELECTOR, "targetPorts": rows(record({"number": NUMBER})),
                             "endpointPickerRef": record({"name": TEXT, "port": record({"number": NUMBER})})}),
    "LeaderWorkerSet": GROUP,
    "DisaggregatedSet": record({"roles": rows(record({"name": TEXT, "spec": GROUP}))}),
}


def one(documents, kind, end=""):
    (found,) = [document for document in of_kind(documents, kind) if document["metadata"]["name"].endswith(end)]
    return found


@pytest.mark.parametrize("name", VALUES)
def test_manifests_for_others_have_the_fields_that_these_know(rendered, name):
    for document in rendered(name):
        if document["apiVersion"] in APIS:
            assert set(document) == {"apiVersion", "kind", "metadata", "spec"}
            jsonschema.validate(document["spec"], SPECS[document["kind"]])


@pytest.mark.parametrize("name, api", [("watched", APIS[0]), ("watched-by-service", APIS[0]), ("keda", APIS[1]),
                                       ("reached", APIS[2]), ("pool", APIS[3]), ("lws", APIS[4]), ("disaggregated", APIS[5])])
def test_without_what_an_option_needs_the_installation_says_so(helm, name, api):
    done = template(helm, VALUES[name], apis=[other for other in APIS if other != api])
    assert done.returncode != 0 and f"needs the API {api}" in done.stderr and "install" in done.stderr


def test_by_default_nothing_of_others_is_asked_for(helm):
    documents = documents_of(template(helm, [], apis=[]))
    assert not [d["kind"] for d in documents if d["apiVersion"].split("/")[0] in {api.split("/")[0] for api in APIS}]
    assert not of_kind(documents, "Ingress", "HorizontalPodAutoscaler")
    assert [d["metadata"]["name"] for d in of_kind(documents, "ConfigMap")] == ["demo-runahead"]


# ---------------------------------------------------------------------------------------------------------------- metrics
@pytest.mark.parametrize("name, kind, endpoints", [("watched", "PodMonitor", "podMetricsEndpoints"),
                                                   ("watched-by-service", "ServiceMonitor", "endpoints")])
def test_the_monitor_finds_every_process_once(rendered, name, kind, endpoints):
    documents = rendered(name)
    monitor = one(documents, kind)["spec"]
    selector = monitor["selector"]["matchLabels"]
    assert monitor[endpoints][0]["relabelings"] == [{"action": "labeldrop", "regex": "endpoint"}]
    roles = []
    for workload in workloads(documents):
        ports = [port["name"] for port in pod_spec(workload)["containers"][0]["ports"]]
        labels = workload["spec"]["template"]["metadata"]["labels"]
        assert selector.items() <= labels.items() and "admin" in ports
        services = [service for service in of_kind(documents, "Service") if service["spec"]["selector"].items() <= labels.items()
                    and selector.items() <= service["metadata"]["labels"].items()
                    and any(port["name"] == "admin" for port in service["spec"]["ports"])]
        roles += [component(workload)] * (len(services) if kind == "ServiceMonitor" else 1)
    assert sorted(roles) == ["coordinator", "decode", "prefill"]


def test_rules_and_dashboard_are_the_files_that_the_tests_hold_against_the_metrics(rendered, helm):
    documents = rendered("watched")
    own = yaml.safe_load((CHART / "files/rules.yaml").read_text())
    text = json.dumps(own).replace('"docs/operations.md', '"https://wiki.example/runahead/docs/operations.md')
    assert one(documents, "PrometheusRule")["spec"] == json.loads(text) != own
    board = one(documents, "ConfigMap", "-dashboard")
    assert board["metadata"]["labels"]["grafana_dashboard"] == "1"
    assert json.loads(board["data"]["runahead.json"]) == json.loads((ROOT / "deploy/grafana/runahead.json").read_text())
    for kind in ("PodMonitor", "PrometheusRule"):
        assert one(documents, kind)["metadata"]["labels"]["release"] == "prometheus"
    for seconds in ("2.5", "1000000"):
        documents = documents_of(template(helm, ["metrics.rules.enabled=true"], "--set-json",
                                          f"metrics.rules.ttftSeconds={seconds}"))
        rules = one(documents, "PrometheusRule")["spec"]["groups"][0]["rules"]
        target = next(rule["expr"] for rule in rules if rule["record"] == "runahead:ttft_target_seconds")
        assert float(target.removeprefix("vector(").removesuffix(")")) == float(seconds)


# ------------------------------------------------------------------------------------------------------------ autoscaling
def test_the_number_of_prefill_workers_is_the_scalers_and_of_decode_workers_ours(rendered):
    for name in ("hpa", "keda"):
        replicas = {component(w): w["spec"].get("replicas") for w in workloads(rendered(name))}
        assert replicas == {"coordinator": 1, "prefill": None, "decode": 1}, "an upgrade would undo what the scaler did"


def test_the_scalers_follow_the_prompt_tokens_that_wait(rendered):
    hpa, scaled = one(rendered("hpa"), "HorizontalPodAutoscaler")["spec"], one(rendered("keda"), "ScaledObject")["spec"]
    prefill = one(rendered("hpa"), "StatefulSet", "-prefill")["metadata"]["name"]
    assert hpa["scaleTargetRef"] == scaled["scaleTargetRef"] == {"apiVersion": "apps/v1", "kind": "StatefulSet", "name": prefill}
    external = hpa["metrics"][0]["external"]
    assert external["metric"] == {"name": "runahead_queued_prompt_tokens", "selector": {"matchLabels": {"namespace": "llm"}}}
    assert external["target"] == {"type": "AverageValue", "averageValue": "8000"}
    trigger = scaled["triggers"][0]["metadata"]
    assert trigger["query"] == 'sum(runahead_queued_prompt_tokens{namespace="llm", pod=~"demo-runahead-coordinator-.*"})'
    assert trigger["threshold"] == "8000"
    assert scaled["advanced"]["horizontalPodAutoscalerConfig"]["behavior"] == hpa["behavior"]
    assert (hpa["minReplicas"], hpa["maxReplicas"]) == (scaled["minReplicaCount"], scaled["maxReplicaCount"]) == (2, 8)


def test_a_smallest_number_above_the_largest_is_refused(helm):
    done = template(helm, ["autoscaling.kind=HorizontalPodAutoscaler", "autoscaling.minWorkers=9"])
    assert done.returncode != 0 and "minWorkers is above" in done.stderr


# ---------------------------------------------------------------------------------------------------------- ways to the API
def test_ways_from_outside_lead_to_the_api_and_nowhere_else(rendered):
    documents = rendered("reached")
    api = next(s for s in of_kind(documents, "Service") if s["metadata"]["name"] == "demo-runahead")
    ingress, route = one(documents, "Ingress")["spec"], one(documents, "HTTPRoute")["spec"]
    backend = ingress["rules"][0]["http"]["paths"][0]["backend"]["service"]
    assert backend == {"name": "demo-runahead", "port": {"name": "http"}} and api["spec"]["ports"][0]["name"] == "http"
    assert ingress["tls"] == [{"hosts": ["llm.example.org"], "secretName": "tls"}]
    assert route["rules"][0]["backendRefs"] == [{"name": "demo-runahead", "port": api["spec"]["ports"][0]["port"]}]
    assert route["rules"][0]["timeouts"] == {"request": "0s"}, "a proxy's own timeout would cut long prompts"


# ------------------------------------------------------------------------------------------------------------------ the pods
def test_the_pods_are_spread_and_together_as_asked(rendered):
    for name, together in (("default", None), ("checked", "topology.kubernetes.io/zone")):
        for workload in workloads(rendered(name)):
            pod = pod_spec(workload)
            assert pod["topologySpreadConstraints"][0]["topologyKey"] == "kubernetes.io/hostname"
            if together is None:
                assert "affinity" not in pod
                continue
            (term,) = pod["affinity"]["podAffinity"]["preferredDuringSchedulingIgnoredDuringExecution"]
            assert term["podAffinityTerm"]["topologyKey"] == together


@pytest.mark.parametrize("name, containers", [("default", []), ("image", ["model"]), ("checked", ["checksum"]),
                                              ("checked-copy", ["model", "checksum"])])
def test_a_models_file_is_checked_before_the_process_reads_it(rendered, name, containers):
    for workload in workloads(rendered(name)):
        assert [container["name"] for container in pod_spec(workload).get("initContainers", [])] == containers


def test_the_check_of_a_models_file_finds_a_wrong_and_a_missing_one(rendered, tmp_path):
    (tmp_path / "a.gguf").write_bytes(b"weights")
    (container,) = [c for c in pod_spec(workloads(rendered("checked-copy"))[0])["initContainers"] if c["name"] == "checksum"]
    (given,) = container["env"]
    assert given["value"] == 64 * "0" + "  a.gguf\n"
    command = [part.replace("/models", str(tmp_path)) for part in container["command"]]
    good = hashlib.sha256(b"weights").hexdigest()
    for sums, code in ((f"{good}  a.gguf\n", 0), (given["value"], 1), (f"{good}  b.gguf\n", 1)):
        done = subprocess.run(command, env={"PATH": os.environ["PATH"], "SUMS": sums}, capture_output=True, check=False)
        assert done.returncode == code, done.stderr


def test_the_services_take_both_families(rendered):
    for name, policy in (("default", "PreferDualStack"), ("dual-stack", "RequireDualStack")):
        assert {s["spec"]["ipFamilyPolicy"] for s in of_kind(rendered(name), "Service")} == {policy}


# ---------------------------------------------------------------------------------------------------------- groups of workers
@pytest.mark.parametrize("name, prefill, decode", [("lws", 4, 1), ("disaggregated", 2, 2)])
def test_a_group_has_the_pods_that_a_stateful_set_would_have(rendered, name, prefill, decode):
    documents = rendered(name)
    plain = {component(w): pod_spec(w) for w in workloads(rendered("default"))}
    assert {component(w): pod_spec(w) for w in workloads(documents)} == plain
    groups = [document["spec"] for document in of_kind(documents, "LeaderWorkerSet")]
    groups += [role["spec"] for document in of_kind(documents, "DisaggregatedSet") for role in document["spec"]["roles"]]
    sizes = {group["leaderWorkerTemplate"]["workerTemplate"]["metadata"]["labels"]["app.kubernetes.io/component"]:
             (group["replicas"], group["leaderWorkerTemplate"]["size"]) for group in groups}
    assert sizes == {"prefill": (1, prefill), "decode": (1, decode)}
    own = {document["metadata"]["name"] for document in of_kind(documents, "LeaderWorkerSet", "DisaggregatedSet")}
    own |= {f"{name}-{role}" for name in own for role in ("prefill", "decode")}
    services = {service["metadata"]["name"] for service in of_kind(documents, "Service")}
    assert not services - {"demo-runahead"} & own, "a service of the controller's own has that name"


@pytest.mark.parametrize("settings, said", [
    (["workload=LeaderWorkerSet", "autoscaling.kind=HorizontalPodAutoscaler"], "leave workload at StatefulSet"),
    (["workload=DisaggregatedSet", "model.name=x"], "24 letters at most"),
    (["tls.authenticatePages=true"], "tls.authenticatePages needs tls.secrets"),
])
def test_what_does_not_go_together_is_refused(helm, settings, said):
    release = "a-release-with-a-long-name" if "24" in said else "demo"
    apis = [part for api in APIS for part in ("--api-versions", api)]
    done = run(helm, "template", release, CHART, *apis, *set_options(settings))
    assert done.returncode != 0 and said in done.stderr


def test_a_gang_counts_all_workers_and_no_coordinator(rendered, helm):
    documents = rendered("gang")
    group = one(documents, "PodGroup")
    assert group["spec"] == {"schedulingPolicy": {"gang": {"minCount": 3}}}
    asked = {component(w): pod_spec(w).get("schedulingGroup", {}).get("podGroupName") for w in workloads(documents)}
    name = group["metadata"]["name"]
    assert asked == {"coordinator": None, "prefill": name, "decode": name}
    scaled = documents_of(template(helm, ["gang=true", "autoscaling.kind=HorizontalPodAutoscaler", "autoscaling.minWorkers=1"]))
    assert one(scaled, "PodGroup")["spec"]["schedulingPolicy"]["gang"]["minCount"] == 2


def test_a_pool_holds_the_coordinator_and_the_route_leads_to_it(rendered):
    documents = rendered("pool")
    pool, route = one(documents, "InferencePool"), one(documents, "HTTPRoute")
    found = [component(w) for w in workloads(documents)
             if pool["spec"]["selector"]["matchLabels"].items() <= w["spec"]["template"]["metadata"]["labels"].items()]
    assert found == ["coordinator"] and pool["spec"]["targetPorts"] == [{"number": 8000}]
    assert route["spec"]["rules"][0]["backendRefs"] == [
        {"group": "inference.networking.k8s.io", "kind": "InferencePool", "name": pool["metadata"]["name"]}]


def test_rdma_is_the_workers_alone(rendered):
    for workload in workloads(rendered("rdma")):
        (container,) = pod_spec(workload)["containers"]
        worker = component(workload) != "coordinator"
        assert container["resources"]["limits"].get("rdma/hca") == (1 if worker else None)
        annotations = workload["spec"]["template"]["metadata"]["annotations"]
        assert annotations.get("k8s.v1.cni.cncf.io/networks") == ("rdma-net" if worker else None)
        assert ({"name": "UCX_NET_DEVICES", "value": "mlx5_0:1"} in container["env"]) == worker
        assert container["securityContext"]["capabilities"].get("add") == (["IPC_LOCK"] if worker else None)
    config = yaml.safe_load(one(rendered("rdma"), "ConfigMap", "runahead")["data"]["runahead.yaml"])
    assert config["transport"] == "ucx"


def test_readiness_may_rest_on_a_completion(helm):
    for settings, seconds in [(["coordinator.canarySeconds=30"], "30"), ([], None)]:
        (container,) = [container for workload in workloads(documents_of(template(helm, settings)))
                        if component(workload) == "coordinator" for container in pod_spec(workload)["containers"]]
        given = dict(zip(container["args"], container["args"][1:]))
        assert given.get("--ready-canary") == seconds
    assert template(helm, ["coordinator.canarySeconds=soon"]).returncode != 0
