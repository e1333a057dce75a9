"""What the coordinator learns of a link, in a network of the test's own whose loopback is as slow as a cheap switch."""

import json
import shutil
import subprocess

import pytest

from cli import BINARY, NOT_BUILT, ROOT

pytestmark = NOT_BUILT

MEGABYTES_PER_SECOND = 20
# Packets as small as a network card's: with loopback's own 64 kB, the shaper needs a burst so large that a layer's pages pass
# it unshaped.
SLOW_LOOPBACK = ("ip link set lo mtu 9000 gso_max_size 16384 up && "
                 f"tc qdisc add dev lo root tbf rate {8 * MEGABYTES_PER_SECOND}mbit burst 32kb latency 200ms")


def in_slow_network(*command):
    return ["unshare", "--map-root-user", "--net", "sh", "-c", f'{SLOW_LOOPBACK} && exec "$@"', "sh", *command]


def reason_to_skip():
    for tool in ("unshare", "ip", "tc"):
        if shutil.which(tool) is None:
            return f"{tool} is not installed"
    tried = subprocess.run(in_slow_network("true"), capture_output=True, text=True, check=False)
    return f"no slow network can be made here: {tried.stderr.strip()[:200]}" if tried.returncode else None


def test_the_wire_time_of_a_slow_link_is_what_it_takes(tmp_path):
    if reason := reason_to_skip():
        pytest.skip(reason)
    # One worker: two streams would share the loopback.
    document = tmp_path / "document.txt"
    document.write_text((ROOT / "deploy/examples/handbook.txt").read_text()[:5000])
    done = subprocess.run(
        in_slow_network(BINARY, "run", "--raw", "--prompt-file", str(document), "--max-tokens", "2", "-o", "json",
                        "--workers", "1", "--transport", "tcp"),
        capture_output=True, text=True, timeout=180, check=False)
    assert done.returncode == 0, done.stderr
    for rank in json.loads(done.stdout)["workers"]:
        assert rank["kv_sent_bytes"] > 5e6
        measured = rank["kv_sent_bytes"] / rank["kv_wire_seconds"] / 1e6
        assert measured == pytest.approx(MEGABYTES_PER_SECOND, rel=0.35), rank
