"""A cluster of real processes on loopback, each behind links of the fault proxy, on ports that stay the same over restarts.

    coordinator  control plane and API on fixed ports, a durable job store
    p1 p2 ... d1 ...  workers: each reaches the coordinator through its link `control-NAME`, and the others reach its K/V pages
                 through its link `data-NAME`, whose address it advertises
"""

import contextlib
import http.client
import json
import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

from frames import ControlUnits, PageUnits
from proxy import Proxy

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "tests" / "e2e"))
from own_cache import cache_of_its_own  # noqa: E402

START_SECONDS_MAX = 120
STOP_SECONDS_MAX = 60
STALL_SECONDS = 5  # --stall-timeout: what a lost order costs


def binary():
    return Path(os.environ.get("RUNAHEAD_BINARY", ROOT / "build" / "release" / "runahead"))


def models():
    return Path(os.environ.get("RUNAHEAD_MODEL_DIR", Path.home() / ".cache" / "runahead" / "models"))


def missing():
    """Why nothing can run here; empty: it can."""
    if not binary().exists():
        return f"{binary()} is not built"
    return "" if list(models().glob("*.gguf")) else f"no model in {models()}"


def free_ports(count):
    """From below the range that outgoing connections take, so that they are free again after a kill."""
    found = []
    for port in range(21000 + os.getpid() * 40 % 9000, 32000):
        with socket.socket() as probe:
            with contextlib.suppress(OSError):
                probe.bind(("127.0.0.1", port))
                found.append(port)
        if len(found) == count:
            return found
    raise RuntimeError("no free ports")


class Process:
    """One role, restarted with the same arguments. Its log goes on over restarts."""

    def __init__(self, name, arguments, log, environment):
        self.name, self.arguments, self.log, self.environment = name, arguments, log, environment
        self.popen = None
        self.starts = 0
        self.meant_to_end = False  # a fault does it
        self.exit_codes = []

    @property
    def role(self):
        return self.arguments[0]

    def start(self, failpoint=None):
        environment = {**self.environment, **({"RUNAHEAD_FAILPOINT": failpoint} if failpoint else {})}
        self.meant_to_end = failpoint is not None
        self.starts += 1
        with open(self.log, "ab") as log:
            log.write(f"--- start {self.starts}\n".encode())
            log.flush()
            # A group of its own: a group with a stopped process in it is hung up when the shell that began it ends.
            self.popen = subprocess.Popen([str(binary()), *self.arguments], stdout=log, stderr=log, env=environment,
                                          stdin=subprocess.DEVNULL, process_group=0)

    @property
    def pid(self):
        return self.popen.pid

    def lives(self):
        return self.popen.poll() is None

    def send(self, number):
        self.meant_to_end = self.meant_to_end or number in (signal.SIGKILL, signal.SIGTERM)
        if self.lives():
            self.popen.send_signal(number)

    def end(self, number=signal.SIGKILL, seconds=STOP_SECONDS_MAX):
        """Its exit code; None: it did not end in time, and was killed."""
        self.send(number)
        try:
            code = self.popen.wait(seconds)
        except subprocess.TimeoutExpired:
            self.popen.kill()
            self.popen.wait()
            code = None
        self.exit_codes.append(code)
        return code


class Cluster:
    def __init__(self, folder, prefill=2, decode=1, seed=0):
        self.folder = Path(folder)
        self.folder.mkdir(parents=True, exist_ok=True)
        self.job_store = self.folder / "jobs.sqlite"
        self.proxy = Proxy()
        names = [f"p{i + 1}" for i in range(prefill)] + [f"d{i + 1}" for i in range(decode)]
        ports = free_ports(2 + 2 * len(names))
        self.http_port, self.control_port = ports[:2]
        self.environment = {**os.environ, "RUNAHEAD_CACHE_DIR": cache_of_its_own()}
        self.environment.pop("RUNAHEAD_FAILPOINT", None)
        self.links, self.admin_ports, self.processes = {}, {}, {}
        self._add("coordinator", ["coordinator", "--listen", f"127.0.0.1:{self.control_port}", "--http",
                                  f"127.0.0.1:{self.http_port}", "--job-store", str(self.job_store), "--stall-timeout",
                                  str(STALL_SECONDS)])
        for i, name in enumerate(names):
            data, admin = ports[2 + 2 * i:4 + 2 * i]
            control = self.proxy.link(f"control-{name}", self.control_port, ControlUnits, seed)
            pages = self.proxy.link(f"data-{name}", data, PageUnits, seed)
            self.links |= {control.name: control, pages.name: pages}
            self.admin_ports[name] = admin
            self._add(name, ["prefill" if name[0] == "p" else "decode", "--name", name, "--coordinator",
                             f"127.0.0.1:{control.port}", "--data-listen", f"127.0.0.1:{data}", "--advertise",
                             f"127.0.0.1:{pages.port}", "--admin", f"127.0.0.1:{admin}", "--transport", "tcp", "--threads", "1",
                             "--kv-memory-mib", "192"])
        self.workers = names

    def _add(self, name, arguments):
        model = os.environ.get("RUNAHEAD_CHAOS_MODEL", "smollm2")
        self.processes[name] = Process(name, [*arguments, "--model", model], self.folder / f"{name}.log", self.environment)

    def __enter__(self):
        try:
            for process in self.processes.values():
                process.start()
            self.wait_until(self.complete, START_SECONDS_MAX, "all workers")
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_):
        for link in self.links.values():
            link.heal()
        for process in reversed(self.processes.values()):
            if process.popen is not None and process.lives():
                process.send(signal.SIGCONT)
                process.end(signal.SIGKILL)
        self.proxy.stop()

    def wait_until(self, condition, seconds, what):
        end = time.monotonic() + seconds
        while not condition():
            if time.monotonic() > end:
                raise TimeoutError(f"{what} did not come true within {seconds} s")
            time.sleep(0.05)

    def request(self, method, path, body=None, headers=None, port=None, timeout=30):
        connection = http.client.HTTPConnection("127.0.0.1", port or self.http_port, timeout=timeout)
        try:
            connection.request(method, path, body and json.dumps(body), {"Content-Type": "application/json", **(headers or {})})
            response = connection.getresponse()
            return response.status, response.read()
        finally:
            connection.close()

    def json(self, path):
        status, body = self.request("GET", path)
        return json.loads(body) if status == 200 else {}

    def state(self):
        try:
            return self.json("/v1/cluster")
        except (OSError, http.client.HTTPException, ValueError):
            return {}

    def complete(self):
        return sorted(worker["name"] for worker in self.state().get("workers", []) if worker["state"] == "ready") \
            == sorted(self.workers)

    def serves(self, name):
        return any(worker["name"] == name and worker["state"] == "ready" for worker in self.state().get("workers", []))

    def at_rest(self):
        state = self.state()
        return bool(state) and state["running"] == 0 and state["waiting"] == 0 \
            and all(worker["pages_total"] == worker["pages_free"] and worker["running"] == 0 for worker in state["workers"])

    def metrics(self, name):
        """{series with labels: value} of one process; empty where nobody answers."""
        port = self.http_port if name == "coordinator" else self.admin_ports[name]
        try:
            status, body = self.request("GET", "/metrics", port=port)
        except (OSError, http.client.HTTPException):
            return {}
        lines = body.decode().splitlines() if status == 200 else []
        return {line.rsplit(" ", 1)[0]: float(line.rsplit(" ", 1)[1]) for line in lines if line and line[0] != "#"}

    def metric(self, name, series, **labels):
        wanted = [f'{key}="{value}"' for key, value in labels.items()]
        return sum(value for key, value in self.metrics(name).items()
                   if key.split("{")[0] == series and all(each in key for each in wanted))
