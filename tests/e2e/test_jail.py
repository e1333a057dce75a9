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
call("process_vm_readv", -1, None, 0, None, 0, 0)  # ESRCH or EINVAL where it is allowed
call("getpid")
found["mapped"] = ctypes.c_long(libc.syscall(56, 0x10000000 | 17, 0, 0, 0, 0)).value  # clone into a user namespace; x86-64
found["mapped"] = ctypes.get_errno() if found["mapped"] == -1 else 0
for name, family, kind, protocol in (("packet", 17, 2, 0), ("inet", 2, 2, 0), ("routes", 16, 3, 0), ("firewall", 16, 3, 12)):
    try:
        socket.socket(family, kind, protocol).close()
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
    for name in ("mount", "ptrace", "unshare", "setns", "chroot", "personality", "mapped", "packet", "process_vm_readv",
                 "firewall"):
        assert found[name] == errno.EPERM, (name, found)
    for name in ("getpid", "inet", "routes", "/mnt/scratch/of-the-probe", "/dev/shm/of-the-probe"):
        assert found[name] == 0, (name, found)
    for path in ("/of-the-probe", "/tmp/of-the-probe", "/var/tmp/of-the-probe", "/mnt/of-the-probe"):
        assert found[path] == errno.EROFS, (path, found)
    assert found["Uid"].split() == ["65532"] * 4 and found["NoNewPrivs"] == "1" and found["Seccomp"] == "2"
    assert int(found["CapEff"], 16) == int(found["CapBnd"], 16) == 0


def test_the_tools_of_the_other_containers_work(tmp_path):
    """A model's sum is checked, a model is copied, a pod that stops sleeps: bash and coreutils under the same profile."""
    script = ("printf text >a && sum=$(sha256sum <a) && echo \"${sum%% *}  a\" | sha256sum --check --strict --status"
              " && cp -r a b && sleep 0.1 && cat b")
    process = jailed(tmp_path, ["/bin/bash", "-ec", script], [], env={"PATH": "/usr/bin:/bin"})
    said, _ = process.communicate(timeout=60)
    assert said == "text" and process.returncode == 0


PLACES = {  # what cannot be written: the sentence
    "--job-store /mnt/jobs.sqlite": "the job store /mnt/jobs.sqlite cannot be opened for writing; check the path and its rights",
    "--job-store /mnt/scratch/a.sqlite --files-dir /mnt/files": "the folder of files /mnt/files cannot be made",
    "--job-store /mnt/scratch/b.sqlite --files-dir /mnt": "the folder of files /mnt cannot be written; check its rights",
}


@pytest.mark.parametrize("flags", PLACES)
def test_a_place_that_cannot_be_written_is_named_in_one_sentence(tmp_path, flags):
    if not binary().exists() or not list(MODELS.glob("*.gguf")):
        pytest.skip(f"{binary()} is not built, or no model in {MODELS}")
    environment = {"PATH": "/usr/bin:/bin", "RUNAHEAD_MODEL_DIR": f"/mnt/{MODELS.name}", "RUNAHEAD_CACHE_DIR": "/mnt/scratch",
                   "RUNAHEAD_PACKED_CACHE": "off"}
    command = [f"/mnt/{binary().name}", "serve", "--http", "127.0.0.1:0", "--workers", "1", *flags.split()]
    process = jailed(tmp_path, command, [binary().resolve(), MODELS], env=environment, stderr=subprocess.PIPE)
    try:
        _, said = process.communicate(timeout=START_SECONDS_MAX)
    except subprocess.TimeoutExpired:
        process.terminate()
        process.communicate(timeout=STOP_SECONDS_MAX)
        raise
    sentences = [line for line in said.splitlines() if line.startswith("runahead: ")]
    assert process.returncode > 0 and len(sentences) == 1 and PLACES[flags] in sentences[0], said


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
