"""Install, test, upgrade, roll back and uninstall, by the real helm binaries against a stand-in for the API server.

The stand-in (tests/helm/k8s_api_stub.py) stores what it is sent and calls every workload ready: it runs no pod and checks no
manifest. What is tested is helm's own part: hooks, notes, the three-way merge, what an upgrade changes and a rollback restores.
"""
import json
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest
from chart import CHART, set_options

STUB = Path(__file__).parent / "k8s_api_stub.py"
START_SECONDS_MAX = 20


class Cluster:
    """The stub, and helm against it."""

    def __init__(self, helm, folder):
        self.helm, self.state = helm, folder / "state.json"
        self.environment = {**os.environ, "KUBECONFIG": str(folder / "kubeconfig"), "HOME": str(folder)}
        self.process = subprocess.Popen([sys.executable, STUB, "--state", self.state, "--kubeconfig", folder / "kubeconfig"],
                                        stdout=subprocess.DEVNULL)
        end = time.monotonic() + START_SECONDS_MAX
        while not (folder / "kubeconfig").exists():
            assert time.monotonic() < end and self.process.poll() is None, "the stub of the API server did not start"
            time.sleep(0.05)

    def run(self, *command):
        done = subprocess.run([self.helm, *command, "--namespace", "llm"], env=self.environment, capture_output=True, text=True,
                              timeout=90, check=False)
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    def objects(self):
        """(kind, name) -> the object, without helm's own records."""
        saved = json.loads(self.state.read_text())["objects"]
        return {(found["kind"], found["metadata"]["name"]): found for _, found in saved if found["kind"] != "Secret"}


@pytest.fixture
def cluster(helm, tmp_path):
    found = Cluster(helm, tmp_path)
    yield found
    found.process.terminate()
    found.process.wait(10)


def test_a_release_lives_from_install_to_uninstall(cluster):
    notes = cluster.run("install", "demo", CHART, "--wait", "--timeout", "60s")
    assert "helm test demo -n llm" in notes and "asks for no key" in notes
    first = cluster.objects()
    assert first["StatefulSet", "demo-runahead-prefill"]["spec"]["replicas"] == 2
    assert ("Pod", "demo-runahead-test") not in first, "a test runs when it is asked for"
    assert ("PodMonitor", "demo-runahead") not in first

    assert "Succeeded" in cluster.run("test", "demo")
    assert ("Pod", "demo-runahead-test") in cluster.objects()

    more = ["prefill.workers=4", "metrics.monitor=PodMonitor", "metrics.rules.enabled=true", "httpRoute.enabled=true",
            "httpRoute.parents[0].name=public"]
    notes = cluster.run("upgrade", "demo", CHART, "--wait", "--timeout", "60s", *set_options(more))
    assert "WARNING: the network policy lets nobody scrape" in notes
    second = cluster.objects()
    assert second["StatefulSet", "demo-runahead-prefill"]["spec"]["replicas"] == 4
    assert {("PodMonitor", "demo-runahead"), ("PrometheusRule", "demo-runahead"), ("HTTPRoute", "demo-runahead")} <= set(second)
    assert second["Deployment", "demo-runahead-coordinator"]["spec"] == first["Deployment", "demo-runahead-coordinator"]["spec"]

    cluster.run("rollback", "demo", "1", "--wait", "--timeout", "60s")
    third = cluster.objects()
    assert third["StatefulSet", "demo-runahead-prefill"]["spec"]["replicas"] == 2
    assert not {kind for kind, _ in third} & {"PodMonitor", "PrometheusRule", "HTTPRoute"}
    assert "Rollback to 1" in cluster.run("history", "demo")

    cluster.run("uninstall", "demo", "--wait", "--timeout", "60s")
    assert {kind for kind, _ in cluster.objects()} <= {"Namespace", "Pod"}, "helm leaves a test's pod, for its log"


def test_the_number_of_workers_that_a_scaler_chose_survives_an_upgrade(cluster):
    scaled = ["autoscaling.kind=ScaledObject", "autoscaling.prometheusUrl=http://prometheus:9090"]
    cluster.run("install", "demo", CHART, *set_options(scaled))
    assert ("ScaledObject", "demo-runahead-prefill") in cluster.objects()
    cluster.run("upgrade", "demo", CHART, *set_options([*scaled, "decode.workers=2"]))
    spec = cluster.objects()["StatefulSet", "demo-runahead-prefill"]["spec"]
    assert "replicas" not in spec and cluster.objects()["StatefulSet", "demo-runahead-decode"]["spec"]["replicas"] == 2
