"""Manifests for the Prometheus operator and KEDA, held against models that were made from these projects' own CRDs.

The models come with a plugin for pytest that breaks it, so they live in a folder of their own, where only a process of this
test looks: $RUNAHEAD_CACHE_DIR/crd-models-pyVERSION (default ~/.cache/runahead), filled once by pip.
"""
import copy
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from chart import of_kind

PACKAGES = ["cloudcoil.models.prometheus_operator==0.80.1.0", "cloudcoil.models.keda==2.16.1.0"]
KINDS = ("PodMonitor", "ServiceMonitor", "PrometheusRule", "ScaledObject")
VALIDATE = """
import json, sys
from cloudcoil.models.keda.v1alpha1 import ScaledObject
from cloudcoil.models.prometheus_operator.v1 import PodMonitor, PrometheusRule, ServiceMonitor
for document in json.load(sys.stdin):
    try:
        globals()[document["kind"]].model_validate(document)
        print("good")
    except ValueError as error:
        print(document["kind"], str(error).replace(chr(10), " "))
"""


@pytest.fixture(scope="session")
def said_of():
    """said_of(documents) -> of each "good", or what its model says."""
    cache = Path(os.environ.get("RUNAHEAD_CACHE_DIR") or Path.home() / ".cache" / "runahead") 
    cache /= "crd-models-py{}.{}".format(*sys.version_info)
    done_file = cache / ("-".join(PACKAGES) + ".done")
    if not done_file.exists():
        command = [sys.executable, "-m", "pip", "--disable-pip-version-check", "install", "-q", "--upgrade", "--target", cache]
        done = subprocess.run([*command, *PACKAGES], capture_output=True, text=True, timeout=240, check=False)
        if done.returncode != 0:
            pytest.skip(f"pip could not install {PACKAGES}: {done.stderr.strip()[-200:]}")
        done_file.touch()

    def ask(documents):
        done = subprocess.run([sys.executable, "-I", "-c", f"import sys; sys.path.insert(0, {str(cache)!r})" + VALIDATE],
                              input=json.dumps(documents), capture_output=True, text=True, timeout=60, check=False)
        assert done.returncode == 0, done.stderr
        return done.stdout.splitlines()

    return ask


def test_manifests_are_valid_for_their_crds(rendered, said_of):
    documents = [document for name in ("watched", "watched-by-service", "keda") for document in of_kind(rendered(name), *KINDS)]
    assert {document["kind"] for document in documents} == set(KINDS)
    assert said_of(documents) == ["good"] * len(documents)


def test_the_models_find_a_fault(rendered, said_of):
    changes = [("watched", "PodMonitor", lambda spec: spec.pop("selector")),
               ("watched", "PodMonitor", lambda spec: spec["podMetricsEndpoints"][0].update(interval=15)),
               ("watched", "PrometheusRule", lambda spec: spec["groups"][0].pop("name")),
               ("keda", "ScaledObject", lambda spec: spec["triggers"][0]["metadata"].update(threshold=8000)),
               ("keda", "ScaledObject", lambda spec: spec.pop("scaleTargetRef"))]
    broken = []
    for name, kind, change in changes:
        (document,) = copy.deepcopy(of_kind(rendered(name), kind))
        change(document["spec"])
        broken.append(document)
    assert "good" not in said_of(broken)
