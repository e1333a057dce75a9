"""What the tests of the chart share: the ways in which it is meant to be used, rendering, and where things are in manifests."""
import subprocess
from pathlib import Path

import yaml

ROOT = Path(__file__).resolve().parents[2]
CHART = ROOT / "helm" / "runahead"
# Of others, which a cluster may have.
APIS = ["monitoring.coreos.com/v1", "keda.sh/v1alpha1", "gateway.networking.k8s.io/v1", "inference.networking.k8s.io/v1",
        "leaderworkerset.x-k8s.io/v1", "disaggregatedset.x-k8s.io/v1"]
GANG_API = "scheduling.k8s.io/v1beta1"  # Kubernetes' own, from 1.37
SINCE = {"gpu-claim": "1.34", "gang": "1.37"}  # what Kubernetes must be for a way of use

VALUES = {
    "default": [],
    "pvc": ["model.source=pvc", "model.claim=models", "model.name=llama.gguf", "coordinator.jobsClaim=jobs",
            "coordinator.apiKeysSecret=keys"],
    "image": ["model.source=image", "model.image=models:1", "imagePullSecrets[0].name=registry"],
    "hostPath": ["model.source=hostPath", "model.hostPath=/srv/models"],
    "large": ["prefill.workers=64", "decode.workers=8", "prefill.nodeSelector.disk=fast", "prefill.config.compute=bf16",
              "decode.config.compute=bf16",
              "prefill.tolerations[0].key=llm", "prefill.tolerations[0].operator=Exists",
              "networkPolicy.metricsFrom[0].namespaceSelector.matchLabels.name=monitoring"],
    "gpu": ["gpu.enabled=true", "gpu.runtimeClassName=nvidia"],
    "gpu-claim": ["gpu.enabled=true", "gpu.claimTemplate=one-gpu", "gpu.transport=tcp"],
    "watched": ["metrics.monitor=PodMonitor", "metrics.rules.enabled=true", "metrics.dashboard.enabled=true",
                "metrics.labels.release=prometheus", "metrics.rules.docsUrl=https://wiki.example/runahead/"],
    "watched-by-service": ["metrics.monitor=ServiceMonitor"],
    "hpa": ["autoscaling.kind=HorizontalPodAutoscaler"],
    "keda": ["autoscaling.kind=ScaledObject", "autoscaling.prometheusUrl=http://prometheus.monitoring:9090"],
    "reached": ["ingress.enabled=true", "ingress.host=llm.example.org", "ingress.className=nginx", "ingress.tlsSecret=tls",
                "httpRoute.enabled=true", "httpRoute.parents[0].name=public", "httpRoute.hostnames[0]=llm.example.org",
                "coordinator.apiKeysSecret=keys", "networkPolicy.httpFrom[0].namespaceSelector.matchLabels.name=ingress"],
    "checked": ["model.sha256.SmolLM2\\.gguf=" + 64 * "a", "topology.together=topology.kubernetes.io/zone"],
    "checked-copy": ["model.source=image", "model.image=models:1", "model.sha256.a\\.gguf=" + 64 * "0"],
    "pool": ["inferencePool.enabled=true", "inferencePool.picker=epp", "httpRoute.enabled=true", "httpRoute.parents[0].name=p"],
    "lws": ["workload=LeaderWorkerSet", "prefill.workers=4"],
    "disaggregated": ["workload=DisaggregatedSet", "decode.workers=2"],
    "gang": ["gang=true"],
    "tls": [f"tls.secrets.{role}=runahead-{role}" for role in ("coordinator", "prefill", "decode")],
    "rdma": ["rdma.enabled=true", "prefill.resources.limits.hugepages-2Mi=1Gi", "rdma.env.UCX_NET_DEVICES=mlx5_0:1",
             "rdma.annotations.k8s\\.v1\\.cni\\.cncf\\.io/networks=rdma-net"],
    "gpu-file": ["file:values-gpu.yaml"],
    "dual-stack": ["ipFamilyPolicy=RequireDualStack"],
    "seccomp": ["seccompProfile=profiles/runahead.json"],
    "open": ["networkPolicy.enabled=false", "podDisruptionBudget.enabled=false"],
}


def run(*command):
    return subprocess.run([str(part) for part in command], capture_output=True, text=True, timeout=60, check=False)


def set_options(settings):
    """A setting is KEY=VALUE, or file:NAME of a values file of the chart."""
    return [part for setting in settings for part in (("--values", CHART / setting[5:]) if setting.startswith("file:") else
                                                      ("--set", setting))]


def template(helm, settings, *options, apis=APIS):
    known = [part for api in [*apis, GANG_API] for part in ("--api-versions", api)]
    return run(helm, "template", "demo", CHART, "--namespace", "llm", *known, *options, *set_options(settings))


def documents_of(done):
    assert done.returncode == 0, done.stderr
    return [document for document in yaml.safe_load_all(done.stdout) if document]


def of_kind(documents, *kinds):
    return [document for document in documents if document["kind"] in kinds]


def workloads(documents):
    """Deployments and StatefulSets; what LeaderWorkerSet makes of its own kinds, as the latter."""
    found = of_kind(documents, "Deployment", "StatefulSet")
    for document in of_kind(documents, "LeaderWorkerSet", "DisaggregatedSet"):
        roles = [role["spec"] for role in document["spec"].get("roles", [])] or [document["spec"]]
        for template in (role["leaderWorkerTemplate"]["workerTemplate"] for role in roles):
            labels = {key: template["metadata"]["labels"]["app.kubernetes.io/" + key.rpartition("/")[2]]
                      for key in ("app.kubernetes.io/name", "app.kubernetes.io/instance", "app.kubernetes.io/component")}
            found.append({"kind": "StatefulSet", "metadata": document["metadata"],
                          "spec": {"template": template, "selector": {"matchLabels": labels}}})
    return found


def pod_specs(document):
    """Every PodSpec in a document, at any depth: what has containers is one."""
    if isinstance(document, dict):
        if isinstance(document.get("containers"), list):
            yield document
        document = list(document.values())
    for part in document if isinstance(document, list) else []:
        yield from pod_specs(part)


def pod_spec(workload):
    return workload["spec"]["template"]["spec"]


def component(workload):
    return workload["spec"]["template"]["metadata"]["labels"]["app.kubernetes.io/component"]
