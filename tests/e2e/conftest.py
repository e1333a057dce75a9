"""A whole local cluster for the tests: `runahead serve` with a coordinator, two prefill workers, a decode worker.

RUNAHEAD_BINARY names another binary than build/release/runahead; RUNAHEAD_URL a service that runs already (then its
processes are not touched: tests that kill some are skipped).
"""

import http.client
import json
import os
import signal
import subprocess
import time
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from own_cache import cache_of_its_own

ROOT = Path(__file__).resolve().parents[2]
START_SECONDS_MAX = 120
STOP_SECONDS_MAX = 60


class Answer:
    def __init__(self, status, headers, body):
        self.status, self.headers, self.body = status, headers, body

    @property
    def json(self):
        return json.loads(self.body)


class Service:
    """One running service, and how to talk to it."""

    def __init__(self, address, process=None):
        self.address, self.process = address, process
        self.url = f"http://{address}"

    def connection(self, timeout=120):
        host, port = self.address.rsplit(":", 1)
        return http.client.HTTPConnection(host, int(port), timeout=timeout)

    def request(self, method, path, body=None, headers=None):
        connection = self.connection()
        if body is not None and not isinstance(body, (str, bytes)):
            body = json.dumps(body)
        headers = dict(headers or {})
        if body is not None:
            headers.setdefault("Content-Type", "application/json")
        connection.request(method, path, body=body, headers=headers)
        response = connection.getresponse()
        answer = Answer(response.status, {k.lower(): v for k, v in response.getheaders()}, response.read())
        connection.close()
        return answer

    def get(self, path, **kwargs):
        return self.request("GET", path, **kwargs)

    def post(self, path, body, **kwargs):
        return self.request("POST", path, body=body, **kwargs)

    def cluster(self):
        return self.get("/v1/cluster").json

    def ready(self):
        try:
            return self.get("/readyz").status == 200
        except OSError:
            return False

    def metric(self, name, **labels):
        """The sum of the series with this name and at least these labels."""
        total, found = 0.0, False
        for line in self.get("/metrics").body.decode().splitlines():
            if not (line.startswith(name + "{") or line.startswith(name + " ")):
                continue
            if all(f'{key}="{value}"' in line for key, value in labels.items()):
                total, found = total + float(line.rsplit(" ", 1)[1]), True
        assert found, f"no series {name} {labels}"
        return total

    def pages_in_use(self):
        return sum(worker["pages_total"] - worker["pages_free"] for worker in self.cluster()["workers"])

    def at_rest(self):
        cluster = self.cluster()
        return cluster["running"] == 0 and cluster["waiting"] == 0 and self.pages_in_use() == 0

    def worker_pid(self, role, index=0):
        """The process of a worker, by its command line among our own children."""
        if self.process is None:
            pytest.skip("the service is not ours to hurt (RUNAHEAD_URL)")
        listed = subprocess.run(["pgrep", "-P", str(self.process.pid)], capture_output=True, text=True, check=False)
        found = []
        for pid in sorted(map(int, listed.stdout.split())):
            arguments = Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")
            if role.encode() in arguments[:3]:
                found.append(pid)
        assert len(found) > index, f"no {role} process {index} among {listed.stdout.split()}"
        return found[index]

    def stop(self):
        if self.process is None or self.process.poll() is not None:
            return
        self.process.send_signal(signal.SIGTERM)
        try:
            self.process.wait(STOP_SECONDS_MAX)
        except subprocess.TimeoutExpired:
            self.process.kill()
            raise


def eventually(condition, seconds=15, what="the condition"):
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        if condition():
            return
        time.sleep(0.05)
    pytest.fail(f"{what} did not come true within {seconds} s")


def binary():
    return Path(os.environ.get("RUNAHEAD_BINARY", ROOT / "build" / "release" / "runahead"))


def start_service(*flags, workers=2, model="smollm2"):
    if not binary().exists():
        pytest.skip(f"{binary()} is not built")
    models = Path(os.environ.get("RUNAHEAD_MODEL_DIR", Path.home() / ".cache" / "runahead" / "models"))
    if not list(models.glob("*.gguf")):
        pytest.skip(f"no model in {models}; deploy/setup.sh fetches it")
    command = [
        str(binary()),
        "serve",
        "--http",
        "127.0.0.1:0",
        "--model",
        str(model),
        "--workers",
        str(workers),
        "-o",
        "json",
    ]
    environment = {**os.environ, "RUNAHEAD_CACHE_DIR": cache_of_its_own()}
    process = subprocess.Popen([*command, *flags], stdout=subprocess.PIPE, text=True, env=environment)
    line = process.stdout.readline()
    assert line, f"{' '.join(command)} ended with {process.wait()} before it was ready"
    service = Service(json.loads(line)["http"], process)
    eventually(service.ready, START_SECONDS_MAX, "/readyz")
    return service


@pytest.fixture(scope="session")
def service(tmp_path_factory):
    if "RUNAHEAD_URL" in os.environ:
        yield Service(urlsplit(os.environ["RUNAHEAD_URL"]).netloc)
        return
    running = start_service("--job-store", str(tmp_path_factory.mktemp("jobs") / "jobs.sqlite"))
    yield running
    running.stop()


@pytest.fixture(scope="session")
def model(service):
    return service.get("/v1/models").json["data"][0]["id"]


@pytest.fixture(scope="session")
def client(service):
    import openai

    return openai.OpenAI(base_url=service.url + "/v1", api_key="unused", max_retries=0, timeout=120)


# About 600 tokens: several pages, so that both workers take part.
LONG_TEXT = " ".join(
    f"In chapter {i} the keeper counts the {n} lamps of the tower before the {w} storm."
    for i, (n, w) in enumerate(zip(["red", "green", "small", "old", "new"] * 6, ["first", "second", "third"] * 10), 1)
)
