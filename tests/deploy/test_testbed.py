"""deploy/testbed.sh: nodes with the share and the link they were given, and nothing left of them. Needs the right to make
namespaces and cgroups; without it the tests skip with the program's own reason."""

import os
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
ENVIRONMENT = {**os.environ, "RUNAHEAD_TESTBED": f"test{os.getpid()}"}


def call(*words):
    return subprocess.run(["deploy/testbed.sh", *words], cwd=ROOT, env=ENVIRONMENT, capture_output=True, text=True, timeout=60,
                          check=False)


@pytest.fixture
def nodes():
    cores = os.cpu_count()
    if 2 * 25 > cores * 80:
        pytest.skip(f"two nodes of 25 % need more than the {cores} cores of this machine")
    up = call("up", "2", "25", "400mbit")
    try:
        if up.returncode != 0:
            pytest.skip(f"no testbed can be made here: {up.stderr.strip()[:300]}")
        yield
    finally:
        call("down")


def test_nodes_have_their_links_and_nothing_is_left(nodes):
    shaped = call("exec", "2", "tc", "qdisc", "show", "dev", "lan").stdout
    assert "tbf" in shaped and "rate 400Mbit" in shaped
    reached = call("exec", "1", "python3", "-c", "import socket; socket.create_server(('10.77.0.1', 7070)); print('bound')")
    assert reached.stdout == "bound\n", reached.stderr
    assert call("link", "2", "none").returncode == 0
    assert "tbf" not in call("exec", "2", "tc", "qdisc", "show", "dev", "lan").stdout
    again = call("up", "2")
    assert again.returncode == 1 and "is up already" in again.stderr
    assert "there is no node '3'" in call("exec", "3", "true").stderr
    assert call("down").returncode == 0
    assert ENVIRONMENT["RUNAHEAD_TESTBED"] not in subprocess.run(["ip", "netns"], capture_output=True, text=True).stdout
    assert not list(Path("/sys/fs/cgroup").glob(f"**/runahead-{ENVIRONMENT['RUNAHEAD_TESTBED']}"))


def test_a_node_gets_its_share_of_a_core(nodes):
    # A busy loop of one second on the clock; how evenly the share is kept is `testbed.sh check`, no test.
    loop = ("import time; begin, used = time.monotonic(), time.process_time()\n"
            "while time.monotonic() - begin < 1: pass\n"
            "print(time.process_time() - used)")
    got = float(call("exec", "1", "python3", "-c", loop).stdout)
    assert got < 0.35, "a quarter of a core, and what was saved before"
    assert call("cpu", "1", "60").returncode == 0
    assert float(call("exec", "1", "python3", "-c", loop).stdout) > got


@pytest.mark.parametrize(("words", "says"), [
    (["up"], "say how many nodes: 1 to 32"),
    (["up", "0"], "say how many nodes"),
    (["up", "2", "4000"], "more than 80 %"),
    (["upp"], "there is no command 'upp'"),
    (["exec", "1"], "exec NODE COMMAND"),
    (["cluster"], "no testbed is up"),
    (["check"], "no testbed is up"),
])
def test_what_cannot_be_is_one_sentence(words, says):
    done = call(*words)
    assert done.returncode == 1 and says in done.stderr and len(done.stderr.splitlines()) == 1, done.stderr
