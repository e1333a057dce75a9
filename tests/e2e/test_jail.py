"""The service as a pod of the chart with deploy/seccomp.json runs it: only the calls that the profile allows, a root that is
read-only, nobody's rights. No container engine is needed (jail.py)."""

import errno
import http.client
import json
import os
import select
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from cli import children
from conftest import LONG_TEXT, ROOT, START_SECONDS_MAX, STOP_SECONDS_MAX, binary

PROFILE = ROOT / "deploy" / "seccomp.json"
MODELS = Path(os.environ.get("RUNAHEAD_MODEL_DIR") or Path.home() / ".cache/runahead/models")
PYTHON = "/usr/bin/python3"  # one that nobody may read
# Forbidden calls, and what is written where: as JSON, name -> errno, 0 where it was done.
PROBE = """
import ctypes, json, socket
libc = ctypes.CDLL(None, use_errno=True)
found = {}
def call(name, *arguments):
    ctypes.set_errno(0)
    found[name] = ctypes.get_errno() if getattr(libc, name)(*arguments) == -1 else 0
call("mount", b"none", b"/mnt/scratch", b"tmpfs", 0, None)
call("ptrace", 0, 0, None, None)
call("unshare", 0x10000000)
call("setns", 0, 0)
call("chroot", b"/")
call("personality", 0xffffffff)
call("getpid")
found["mapped"] = ctypes.c_long(libc.syscall(56, 0x10000000 | 17, 0, 0, 0, 0)).value  # clone into a user namespace; x86-64
found["mapped"] = ctypes.get_errno() if found["mapped"] == -1 else 0
for name, family in (("packet", 17), ("inet", socket.AF_INET)):
    try:
        socket.socket(family, socket.SOCK_DGRAM).close()
        found[name] = 0
    except OSError as error:
        found[name] = error.errno
for folder in ("", "/tmp", "/var/tmp", "/mnt", "/mnt/scratch", "/dev/shm"):
    path = folder + "/of-the-probe"
    try:
        open(path, "w").close()
        found[path] = 0
    except OSError as error:
        found[path] = error.errno
status = dict(line.split(":", 1) for line in open("/proc/self/status"))
found |= {name: status[name].strip() for name in ("Uid", "CapEff", "CapBnd", "NoNewPrivs", "Seccomp")}
print(json.dumps(found))
"""


def jailed(folder, command, readable, **options):
    root = folder / "root"
    root.mkdir()
    return subprocess.Popen(
        ["unshare", "--mount", "--propagation", "private", sys.executable, Path(__file__).with_name("jail.py"), PROFILE, root,
         *readable, "--", *command], stdout=subprocess.PIPE, text=True, **options)


@pytest.fixture(autouse=True)
def may_unshare():
    if os.geteuid() != 0:
        pytest.skip("a root of its own needs the rights of root")
    tried = subprocess.run(["unshare", "--mount", "mount", "-t", "tmpfs", "none", "/mnt"], capture_output=True, text=True,
                           check=False)
    if tried.returncode != 0:
        pytest.skip(f"unshare is not permitted here: {tried.stderr.strip()}")


def test_what_is_forbidden_is_refused_and_what_is_writable_is_named(tmp_path):
    if not Path(PYTHON).exists() or os.uname().machine != "x86_64":
        pytest.skip(f"no {PYTHON} for x86-64")
    process = jailed(tmp_path, [PYTHON, "-I", "-c", PROBE], [])
    said, _ = process.communicate(timeout=60)
    found = json.loads(said)
    for name in ("mount", "ptrace", "unshare", "setns", "chroot", "personality", "mapped", "packet"):
        assert found[name] == errno.EPERM, (name, found)
    for name in ("getpid", "inet", "/mnt/scratch/of-the-probe", "/dev/shm/of-the-probe"):
        assert found[name] == 0, (name, found)
    for path in ("/of-the-probe", "/tmp/of-the-probe", "/var/tmp/of-the-probe", "/mnt/of-the-probe"):
        assert found[path] == errno.EROFS, (path, found)
    assert found["Uid"].split() == ["65532"] * 4 and found["NoNewPrivs"] == "1" and found["Seccomp"] == "2"
    assert int(found["CapEff"], 16) == int(found["CapBnd"], 16) == 0


@pytest.mark.parametrize("transport", ["tcp", "ucx"])
def test_a_cluster_answers_there(tmp_path, transport):
    if not binary().exists() or not list(MODELS.glob("*.gguf")):
        pytest.skip(f"{binary()} is not built, or no model in {MODELS}")
    scratch = {name: "/mnt/scratch" for name in ("RUNAHEAD_CACHE_DIR", "TMPDIR")}
    environment = {"PATH": os.environ["PATH"], "HOME": "/nonexistent", "RUNAHEAD_MODEL_DIR": f"/mnt/{MODELS.name}", **scratch}
    command = [f"/mnt/{binary().name}", "serve", "--http", "127.0.0.1:0", "--workers", "2", "--transport", transport, "-o",
               "json", "--admin", "127.0.0.1:0", "--job-store", "/mnt/scratch/jobs.sqlite"]
    with open(tmp_path / "log", "wb") as log:
        process = jailed(tmp_path, command, [binary().resolve(), MODELS], env=environment, stderr=log)
    try:
        readable, _, _ = select.select([process.stdout], [], [], START_SECONDS_MAX)
        line = process.stdout.readline() if readable else ""
        assert line, (tmp_path / "log").read_text()
        assert (tmp_path / "log").read_text().count(f"; {transport} at ") == 3, "two prefill workers and a decode worker"
        connection = http.client.HTTPConnection(json.loads(line)["http"], timeout=60)
        connection.request("POST", "/v1/completions", json.dumps({"model": "smollm2", "prompt": LONG_TEXT, "max_tokens": 4,
                                                                  "runahead": {"strategy": "even"}}),
                           {"Content-Type": "application/json"})
        answer = connection.getresponse()
        body = json.loads(answer.read())
        assert answer.status == 200 and body["usage"]["completion_tokens"] == 4, body
        for pid in [process.pid, *children(process.pid)]:
            status = Path(f"/proc/{pid}/status").read_text()
            assert "Seccomp:\t2" in status and "Uid:\t65532" in status and "CapEff:\t0000000000000000" in status
        assert len(children(process.pid)) == 4, "a coordinator, two prefill workers, a decode worker"
        assert len(body["usage"]["runahead"]["workers"]) == 2, body
    finally:
        process.send_signal(signal.SIGTERM)  # the loader has become the service
        try:
            process.wait(STOP_SECONDS_MAX)
        finally:
            process.kill()
            process.stdout.close()
    assert process.returncode == 0, (tmp_path / "log").read_text()
