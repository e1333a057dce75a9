"""deploy/quickstart.sh with a stand-in for the binary: it starts the right processes, shows the answer, leaves none."""

import os
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
SETUP = """
ROOT=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd); LOGS=$ROOT/build/logs
say() { echo "runahead: $*" >&2; }
die() { say "$@"; exit 1; }
setup_packages() { echo "setup_packages $*" >>"$ROOT/steps"; }
setup_model() { echo setup_model >>"$ROOT/steps"; }
setup_build() { echo "setup_build $*" >>"$ROOT/steps"; }
"""
BINARY = f"""#!{sys.executable}
import os, signal, sys
from http.server import ThreadingHTTPServer
sys.path.insert(0, {str(ROOT / "tests" / "deploy")!r})
from test_ask import Gateway
root = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
with open(os.path.join(root, "started"), "a") as file:
    print(os.getpid(), *sys.argv[1:], file=file)
if os.environ.get("DIES") == sys.argv[1]:
    sys.exit("the model file is damaged")
signal.signal(signal.SIGTERM, signal.SIG_IGN if os.environ.get("STUCK") == sys.argv[1] else lambda *_: sys.exit(0))
if sys.argv[1] == "coordinator":
    port = int(sys.argv[sys.argv.index("--http") + 1].split(":")[1])
    server = ThreadingHTTPServer(("127.0.0.1", port), Gateway)
    server.bodies, server.refusal, server.breaks = [], None, False
    server.prefill_workers = 0 if "DIES" in os.environ else 2
    server.serve_forever()
while True:
    signal.pause()
"""


@pytest.fixture
def checkout(tmp_path):
    """A folder with the real quickstart and examples, and stand-ins for set-up and binary."""
    shutil.copytree(ROOT / "deploy" / "examples", tmp_path / "deploy" / "examples")
    shutil.copy(ROOT / "deploy" / "quickstart.sh", tmp_path / "deploy")
    (tmp_path / "deploy" / "setup.sh").write_text(SETUP)
    binary = tmp_path / "build" / "release" / "runahead"
    binary.parent.mkdir(parents=True)
    binary.write_text(BINARY)
    binary.chmod(0o755)
    return tmp_path


def quickstart(checkout, *options, **environment):
    return subprocess.run(["bash", checkout / "deploy" / "quickstart.sh", *options], capture_output=True, text=True,
                          timeout=60, check=False, env=dict(os.environ, **environment))


def started(checkout):
    """[(pid, role, arguments)]"""
    lines = [line.split() for line in (checkout / "started").read_text().splitlines()]
    return [(int(line[0]), line[1], line[2:]) for line in lines]


def alive(pid):
    try:
        os.kill(pid, 0)
        return True
    except ProcessLookupError:
        return False


def test_it_sets_up_starts_four_processes_answers_and_ends_them(checkout):
    done = quickstart(checkout)
    assert done.returncode == 0, done.stderr
    assert "In the barometer." in done.stdout and "2.00x as fast" in done.stdout
    assert (checkout / "steps").read_text().split("\n")[:3] == ["setup_packages build", "setup_model",
                                                               "setup_build release runahead"]
    processes = started(checkout)
    assert sorted(role for _, role, _ in processes) == ["coordinator", "decode", "prefill", "prefill"]
    listen = next(arguments for _, role, arguments in processes if role == "coordinator")
    control = listen[listen.index("--listen") + 1]
    assert all(control in arguments for _, role, arguments in processes if role != "coordinator")
    assert not [pid for pid, _, _ in processes if alive(pid)]


def test_a_process_that_ends_early_is_named_with_its_last_words(checkout):
    done = quickstart(checkout, DIES="prefill")
    assert done.returncode == 1
    assert "the model file is damaged" in done.stderr
    assert re.search(r"prefill-[01] ended early", done.stderr)  # both die; either may be seen first
    assert not [pid for pid, _, _ in started(checkout) if alive(pid)]


def test_a_process_that_does_not_stop_is_killed(checkout):
    done = quickstart(checkout, STUCK="decode")
    assert done.returncode == 0, done.stderr
    assert not [pid for pid, _, _ in started(checkout) if alive(pid)]


def test_keep_leaves_the_cluster_until_a_signal(checkout):
    process = subprocess.Popen(["bash", checkout / "deploy" / "quickstart.sh", "--keep"], stderr=subprocess.PIPE,
                               stdout=subprocess.DEVNULL, text=True)
    for line in process.stderr:
        if "until Ctrl-C" in line:
            break
    time.sleep(0.5)
    assert process.poll() is None and all(alive(pid) for pid, _, _ in started(checkout))
    process.send_signal(signal.SIGTERM)
    assert process.wait(timeout=30) == 130
    process.stderr.close()
    assert not [pid for pid, _, _ in started(checkout) if alive(pid)]


def test_an_unknown_option_is_refused(checkout):
    done = quickstart(checkout, "--port")
    assert done.returncode == 1 and "unknown option --port" in done.stderr and not (checkout / "steps").exists()
