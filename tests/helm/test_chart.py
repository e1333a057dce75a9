"""The chart, by the real helm binaries (3 and 4): lint, render, schema, the Kubernetes schemas, how it fits together.

No cluster runs here: what the API server and the scheduler add is not tested. VALUES (tests/helm/chart.py) are
the ways in which the chart is meant to be used; each must render to valid manifests.
"""
import json
import re
import sys

import jsonschema
import pytest
import yaml
from chart import APIS, CHART, ROOT, SINCE, VALUES, component, of_kind, pod_spec, run, set_options, template, workloads

KUBERNETES_VERSIONS = ["1.27", "1.31", "1.37"]  # the oldest that the chart takes, one between, the newest schemas
DRAIN_SECONDS = 45                              # limits::kDrainTimeout (base/limits.h)


# ---------------------------------------------------------------------------------------------------- helm's own checks
def test_lint_is_strict_and_clean(helm):
    done = run(helm, "lint", "--strict", CHART)
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize("name", VALUES)
def test_every_way_of_use_renders_and_lints(helm, name):
    done = run(helm, "lint", "--strict", CHART, *set_options(VALUES[name]))
    assert done.returncode == 0, done.stdout + done.stderr
    assert template(helm, VALUES[name]).returncode == 0


@pytest.mark.parametrize("setting", [
    "prefill.workers=0", "prefill.workers=65", "prefill.workers=two", "prefill.worker=2", "modle.name=x", "model.name=",
    "model.source=web", "model.source=pvc", "model.source=image", "model.source=hostPath", "image.pullPolicy=Sometimes",
    "coordinator.service.port=0", "coordinator.service.type=Ingress", "terminationGracePeriodSeconds=45",
    "prefill.resources.limits.memory=2GB", "networkPolicy.enabled=maybe", "decode.config.nested.key=1",
    "decode.kvMemoryMib=0",
    "startupSeconds=1", "gpu.transport=ucx", "gpu.enabled=maybe", "gpu.resource=gpu", "gpu.count=2",
    "metrics.monitor=Monitor", "metrics.interval=15", "metrics.rules.ttftSeconds=0", "metrics.rules.docsUrl=wiki",
    "metrics.dashboard.enabled=1", "metrics.label.a=b", "autoscaling.kind=HPA", "autoscaling.kind=ScaledObject",
    "autoscaling.maxWorkers=65", "autoscaling.queuedPromptTokens=0", "ingress.enabled=true", "ingress.port=80",
    "httpRoute.enabled=true", "httpRoute.parents[0].namespace=n", "ipFamilyPolicy=IPv6", "topology.spreadOver=a host",
    "workload=Deployment", "gang=maybe", "rdma.resource=hca", "rdma.count=0", "rdma.env.PATH=/tmp", "inferencePool.enabled=true",
    "inferencePool.pickerPort=0", "model.sha256.file=abc", "model.sha256./etc/passwd=" + 64 * "a",
])
def test_a_wrong_value_is_refused_by_the_schema(helm, setting):
    done = template(helm, [setting])
    assert done.returncode != 0, f"--set {setting} was accepted"
    assert "schema" in done.stderr, done.stderr


def test_an_old_kubernetes_is_refused(helm):
    done = template(helm, [], "--kube-version", "1.25.0")
    assert done.returncode != 0 and "kubeVersion" in done.stderr


def test_the_schema_is_a_schema_and_covers_every_default():
    schema = json.loads((CHART / "values.schema.json").read_text())
    jsonschema.Draft7Validator.check_schema(schema)
    values = yaml.safe_load((CHART / "values.yaml").read_text())
    jsonschema.validate(values, schema)
    assert set(schema["properties"]) == set(values) | {"global"}


def test_package_works(helm, tmp_path):
    done = run(helm, "package", CHART, "--destination", tmp_path)
    assert done.returncode == 0 and list(tmp_path.glob("runahead-*.tgz")), done.stderr


# -------------------------------------------------------------------------------------------------- Kubernetes' schemas
@pytest.mark.parametrize("version", KUBERNETES_VERSIONS)
@pytest.mark.parametrize("name", VALUES)
def test_manifests_are_valid_for_kubernetes(rendered, name, version):
    import kubernetes_validate
    if float(version) < float(SINCE.get(name, version)):
        pytest.skip(f"what this way of use needs is of Kubernetes {SINCE[name]} and newer")
    for document in rendered(name):
        if document["apiVersion"] not in APIS:  # these have tests of their own: tests/helm/test_chart_options.py
            kubernetes_validate.validate(document, version, strict=True)


@pytest.mark.parametrize("name", VALUES)
def test_enumerations_that_the_schemas_do_not_check(rendered, name):
    for workload in workloads(rendered(name)):
        spec = workload["spec"]
        assert spec.get("podManagementPolicy", "Parallel") in ("Parallel", "OrderedReady")
        for constraint in spec["template"]["spec"]["topologySpreadConstraints"]:
            assert constraint["whenUnsatisfiable"] in ("DoNotSchedule", "ScheduleAnyway")
        for volume in spec["template"]["spec"]["volumes"]:
            assert volume.get("emptyDir", {}).get("medium", "") in ("", "Memory")


# ------------------------------------------------------------------------------------------------- how it fits together
def test_the_workloads_are_what_the_design_says(rendered):
    kinds = {component(w): (w["kind"], w["spec"]["replicas"]) for w in workloads(rendered("default"))}
    assert kinds == {"coordinator": ("Deployment", 1), "prefill": ("StatefulSet", 2), "decode": ("StatefulSet", 1)}


@pytest.mark.parametrize("name", VALUES)
def test_selectors_find_exactly_their_pods(rendered, name):
    documents = rendered(name)
    pods = {component(w): w["spec"]["template"]["metadata"]["labels"] for w in workloads(documents)}
    selectors = [(w["metadata"]["name"], w["spec"]["selector"]["matchLabels"]) for w in
                 workloads(documents) + of_kind(documents, "PodDisruptionBudget")]
    selectors += [(s["metadata"]["name"], s["spec"]["selector"]) for s in of_kind(documents, "Service")]
    for name, selector in selectors:
        matched = [role for role, labels in pods.items() if selector.items() <= labels.items()]
        assert len(matched) == 1, f"{name} selects {matched}"


@pytest.mark.parametrize("name", VALUES)
def test_services_and_probes_name_ports_that_exist(rendered, name):
    documents = rendered(name)
    names = {component(w): [port["name"] for port in w["spec"]["template"]["spec"]["containers"][0]["ports"]]
             for w in workloads(documents)}
    for service in of_kind(documents, "Service"):
        for port in service["spec"]["ports"]:
            assert port["targetPort"] in names[service["spec"]["selector"]["app.kubernetes.io/component"]]
    for workload in workloads(documents):
        container = workload["spec"]["template"]["spec"]["containers"][0]
        for probe in ("startupProbe", "livenessProbe", "readinessProbe"):
            assert container[probe]["httpGet"]["port"] in names[component(workload)]
        assert container["livenessProbe"]["httpGet"]["path"] == "/livez", "liveness asks only for the process itself"


def test_a_stall_costs_no_pod_its_life_and_the_only_coordinator_not_its_place(rendered):
    for workload in workloads(rendered("default")):
        container = workload["spec"]["template"]["spec"]["containers"][0]
        for name, seconds in (("startupProbe", 60), ("livenessProbe", 45), ("readinessProbe", 15)):
            probe = container[name]
            assert probe["timeoutSeconds"] >= 5, f"{name} takes a short stall for a failure"
            assert probe["periodSeconds"] * probe["failureThreshold"] >= seconds, name


def test_every_listener_takes_both_families(rendered):
    listened = [argument for w in workloads(rendered("default")) for argument in pod_spec(w)["containers"][0]["args"]
                if argument.rsplit(":", 1)[-1] in ("8000", "7070", "7071", "9100") and "control" not in argument]
    assert listened and all(argument.startswith("*:") for argument in listened), listened


def test_large_numbers_of_a_values_file_stay_integers(helm, tmp_path):
    values = {"prefill": {"workers": 64, "threads": 256, "kvMemoryMib": 1048576, "config": {"some-bytes": 12345678}},
              "decode": {"kvMemoryMib": 16777216}, "startupSeconds": 7200, "terminationGracePeriodSeconds": 3600,
              "coordinator": {"service": {"port": 65535}}, "networkPolicy": {"dnsPorts": [65535]}}
    (tmp_path / "values.yaml").write_text(yaml.safe_dump(values))
    done = template(helm, [], "--values", tmp_path / "values.yaml")
    assert done.returncode == 0, done.stderr
    assert "e+0" not in done.stdout, [line for line in done.stdout.splitlines() if "e+0" in line]
    documents = [document for document in yaml.safe_load_all(done.stdout) if document]
    config = yaml.safe_load(of_kind(documents, "ConfigMap")[0]["data"]["runahead.yaml"])
    assert config["prefill"]["kv-memory-mib"] == 1048576 and config["decode"]["kv-memory-mib"] == 16777216
    assert config["prefill"]["some-bytes"] == 12345678


def test_the_image_is_that_of_the_version_and_of_compose(rendered):
    version = re.search(r"project\(runahead VERSION (\S+)", (ROOT / "CMakeLists.txt").read_text())[1]
    compose = yaml.safe_load((ROOT / "deploy" / "compose.yaml").read_text())
    images = {pod_spec(w)["containers"][0]["image"] for w in workloads(rendered("default"))}
    images |= {service["image"] for service in compose["services"].values()}
    assert images == {f"runahead:{version}"}


def test_what_the_processes_write_lies_in_a_volume(rendered):
    """The root file system is read-only."""
    for workload in workloads(rendered("default")):
        container = pod_spec(workload)["containers"][0]
        written = [entry["value"] for entry in container["env"] if entry["name"] in ("TMPDIR", "RUNAHEAD_CACHE_DIR")]
        mounts = {mount["mountPath"] for mount in container["volumeMounts"] if not mount.get("readOnly")}
        assert len(written) == 2 and set(written) <= mounts


def test_stateful_sets_name_their_headless_service(rendered):
    documents = rendered("default")
    headless = {s["metadata"]["name"] for s in of_kind(documents, "Service") if s["spec"].get("clusterIP") == "None"}
    assert {w["spec"]["serviceName"] for w in of_kind(documents, "StatefulSet")} <= headless


def test_workers_find_a_coordinator_that_is_not_ready_yet(rendered):
    documents = rendered("default")
    services = {s["metadata"]["name"]: s["spec"] for s in of_kind(documents, "Service")}
    for workload in of_kind(documents, "StatefulSet"):
        arguments = workload["spec"]["template"]["spec"]["containers"][0]["args"]
        host, port = arguments[arguments.index("--coordinator") + 1].split(":")
        assert services[host]["publishNotReadyAddresses"] is True
        assert services[host]["ports"][0]["port"] == int(port)


def test_the_grace_period_covers_the_drain(rendered):
    for workload in workloads(rendered("default")):
        pod = workload["spec"]["template"]["spec"]
        pause = int(pod["containers"][0]["lifecycle"]["preStop"]["exec"]["command"][1])
        assert pod["terminationGracePeriodSeconds"] > DRAIN_SECONDS + pause


def test_a_changed_config_restarts_the_pods(helm):
    def sums(*settings):
        documents = [document for document in yaml.safe_load_all(template(helm, settings).stdout) if document]
        return {w["spec"]["template"]["metadata"]["annotations"]["checksum/config"] for w in workloads(documents)}
    assert len(sums()) == 1 and sums() == sums() and sums() != sums("prefill.config.compute=bf16")


def test_config_files_hold_what_the_values_say(rendered):
    config = yaml.safe_load(of_kind(rendered("large"), "ConfigMap")[0]["data"]["runahead.yaml"])
    assert config == {"model": "smollm2", "log-format": "json", "transport": "tcp",
                      "prefill": {"threads": 4, "kv-memory-mib": 1024, "compute": "bf16"},
                      "decode": {"threads": 2, "kv-memory-mib": 1024, "compute": "bf16"}}


def test_two_releases_can_share_a_namespace(helm):
    def names(release):
        done = run(helm, "template", release, CHART)
        return {(d["kind"], d["metadata"]["name"]) for d in yaml.safe_load_all(done.stdout) if d}
    assert not names("one") & names("two")


# ------------------------------------------------------------------------------------------------------------------ GPUs
def test_each_worker_and_nobody_else_has_a_gpu(rendered):
    expected = {"gpu": {"limits": {"memory": "3Gi", "nvidia.com/gpu": 1}}, "gpu-claim": {"claims": [{"name": "gpu"}]}}
    for name, resources in expected.items():
        for workload in workloads(rendered(name)):
            pod = pod_spec(workload)
            has = pod["containers"][0]["resources"]
            if component(workload) == "coordinator":
                assert "claims" not in has and "nvidia.com/gpu" not in has["limits"] and "runtimeClassName" not in pod
                continue
            assert {key: has[key] for key in resources} == resources
            assert pod.get("runtimeClassName") == ("nvidia" if name == "gpu" else None)
            claims = [{"name": "gpu", "resourceClaimTemplateName": "one-gpu"}] if name == "gpu-claim" else None
            assert pod.get("resourceClaims") == claims
    for workload in workloads(rendered("default")):
        assert "nvidia" not in json.dumps(workload)


@pytest.mark.parametrize("name, transport", [("gpu", "nccl"), ("gpu-claim", "tcp")])
def test_workers_with_gpus_are_told_so(rendered, name, transport):
    config = yaml.safe_load(of_kind(rendered(name), "ConfigMap")[0]["data"]["runahead.yaml"])
    assert config["transport"] == transport and config["prefill"]["compute"] == config["decode"]["compute"] == "cuda"


@pytest.mark.parametrize("name, any_port", [("gpu", True), ("rdma", True), ("gpu-claim", False), ("default", False)])
def test_only_nccl_and_ucx_open_the_workers_to_each_other_on_every_port(rendered, name, any_port):
    policy = next(p for p in of_kind(rendered(name), "NetworkPolicy") if p["metadata"]["name"].endswith("workers"))
    wide = [rule for rule in policy["spec"]["ingress"] + policy["spec"]["egress"] if "ports" not in rule]
    assert len(wide) == (2 if any_port else 0)
    for rule in wide:
        (peer,) = rule.get("from") or rule.get("to")
        (expression,) = peer["podSelector"]["matchExpressions"]
        assert sorted(expression["values"]) == ["decode", "prefill"], "never the coordinator, never a stranger"


def test_the_values_for_gpus_render(helm):
    done = template(helm, VALUES["gpu-file"])
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("nvidia.com/gpu: 1") == 2 and done.stdout.count("key: nvidia.com/gpu") == 2


# ------------------------------------------------------------------------------------------------------------------ README
def test_the_readme_is_what_its_generator_writes():
    done = run(sys.executable, ROOT / "helm/readme.py", "--check")
    assert done.returncode == 0, done.stderr
