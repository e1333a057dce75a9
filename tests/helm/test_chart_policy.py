"""Every PodSpec that the chart renders, for every way of use, meets the restricted pod security profile and our own rules."""
import json
import re

import pytest
from chart import VALUES, pod_specs, workloads

RESTRICTED_VOLUMES = {"configMap", "secret", "projected", "emptyDir", "persistentVolumeClaim", "csi", "downwardAPI",
                      "ephemeral"}
# The exceptions that values.yaml names.
EXCEPTIONS = {"hostPath": ["volume model is hostPath"] * 3, "rdma": ["decode: drop ALL", "prefill: drop ALL"]}


def breaches(pod):
    """Where a PodSpec misses the restricted profile or our own rules above it."""
    found = []
    security = pod.get("securityContext", {})
    checks = {
        "runAsNonRoot": security.get("runAsNonRoot") is True,
        "runAsUser 65532": security.get("runAsUser") == 65532,
        "seccomp": security.get("seccompProfile") in (
            {"type": "RuntimeDefault"}, {"type": "Localhost", "localhostProfile": "profiles/runahead.json"}),
        "no host namespaces": not any(pod.get(key) for key in ("hostNetwork", "hostPID", "hostIPC")),
        "no token": pod.get("automountServiceAccountToken") is False,
    }
    found += [name for name, good in checks.items() if not good]
    for volume in pod.get("volumes", []):
        found += [f"volume {volume['name']} is {kind}" for kind in set(volume) - {"name"} - RESTRICTED_VOLUMES]
        if "emptyDir" in volume and "sizeLimit" not in volume["emptyDir"]:
            found.append(f"volume {volume['name']} has no sizeLimit")
    for container in pod.get("containers", []) + pod.get("initContainers", []):
        security, resources = container.get("securityContext", {}), container.get("resources", {})
        checks = {
            "allowPrivilegeEscalation": security.get("allowPrivilegeEscalation") is False,
            "readOnlyRootFilesystem": security.get("readOnlyRootFilesystem") is True,
            "drop ALL": security.get("capabilities") == {"drop": ["ALL"]},
            "privileged": not security.get("privileged"),
            "own user": "runAsUser" not in security and "runAsNonRoot" not in security,
            "memory limit": "memory" in resources.get("limits", {}),
            "requests": {"cpu", "memory"} <= set(resources.get("requests", {})),
            "hostPort": not any("hostPort" in port for port in container.get("ports", [])),
            "secrets are files": not container.get("envFrom") and not any(map(is_secret, container.get("env", []))),
        }
        found += [f"{container['name']}: {name}" for name, good in checks.items() if not good]
    for container in pod["containers"] if pod.get("restartPolicy") != "Never" else []:
        found += [f"{container['name']}: {probe}" for probe in ("startupProbe", "readinessProbe", "livenessProbe")
                  if not 1 <= container.get(probe, {}).get("timeoutSeconds", 0) <= 10]
    if pod.get("restartPolicy") == "Never" and not pod.get("activeDeadlineSeconds"):
        found.append("no deadline")
    return found


def is_secret(entry):
    return "secretKeyRef" in entry.get("valueFrom", {}) or re.search(r"KEY|TOKEN|PASSW|SECRET|CREDENTIAL", entry["name"])


def all_pods(documents):
    return [pod for document in documents for pod in pod_specs(document)]


@pytest.mark.parametrize("name", VALUES)
def test_every_pod_meets_the_restricted_profile(rendered, name):
    pods = all_pods(rendered(name))
    assert len(pods) == len(workloads(rendered(name))) + 1, "the workloads and the pod of helm test"
    found = [breach for pod in pods for breach in breaches(pod)]
    assert sorted(found) == EXCEPTIONS.get(name, [])


@pytest.mark.parametrize("name", VALUES)
def test_a_profile_of_ones_own_is_in_force_where_it_is_asked_for(rendered, name):
    kinds = {pod["securityContext"]["seccompProfile"]["type"] for pod in all_pods(rendered(name))}
    assert kinds == {"Localhost" if name == "seccomp" else "RuntimeDefault"}


@pytest.mark.parametrize("change", [
    lambda pod: pod["securityContext"].pop("seccompProfile"),
    lambda pod: pod["securityContext"].update(seccompProfile={"type": "Unconfined"}),
    lambda pod: pod["securityContext"].update(runAsUser=0),
    lambda pod: pod.update(hostNetwork=True),
    lambda pod: pod.pop("automountServiceAccountToken"),
    lambda pod: pod["containers"][0]["securityContext"].update(capabilities={"add": ["IPC_LOCK"]}),
    lambda pod: pod["containers"][0]["securityContext"].pop("readOnlyRootFilesystem"),
    lambda pod: pod["containers"][0]["resources"].pop("limits"),
    lambda pod: pod["volumes"].append({"name": "root", "hostPath": {"path": "/"}}),
    lambda pod: pod["containers"][0]["env"].append({"name": "X", "valueFrom": {"secretKeyRef": {"name": "s", "key": "k"}}}),
    lambda pod: pod["containers"][0]["env"].append({"name": "API_KEY", "value": "x"}),
    lambda pod: pod["containers"][0].update(envFrom=[{"secretRef": {"name": "s"}}]),
    lambda pod: pod["containers"][0].pop("readinessProbe"),
    lambda pod: pod["containers"][0]["livenessProbe"].pop("timeoutSeconds"),
    lambda pod: pod.update(initContainers=[{**pod["containers"][0], "securityContext": {}}]),
])
def test_the_profile_check_finds_a_breach(rendered, change):
    pod = json.loads(json.dumps(workloads(rendered("default"))[0]["spec"]["template"]["spec"]))
    assert breaches(pod) == []
    change(pod)
    assert breaches(pod)
