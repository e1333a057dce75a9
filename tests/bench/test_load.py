"""bench/load.py: what it counts, and short runs on real clusters."""
import json
import os
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest

ROOT = Path(__file__).resolve().parents[2]
RUNAHEAD = Path(os.environ.get("RUNAHEAD_BINARY", ROOT / "build" / "release" / "runahead"))

sys.path.insert(0, str(ROOT / "bench"))
import load  # noqa: E402


def stream_of(*lines):
    stream = load.Stream(SimpleNamespace(host="", port=0), 3, 1, 4)
    stream.status = 200
    stream.read(iter(lines), 0.0)
    return stream


def test_a_stream_is_whole_only_with_its_end():
    assert stream_of(b"data: {\"choices\": []}\n", b"data: [DONE]\n").ok
    assert "without" in stream_of(b"data: {\"choices\": []}\n").error
    assert not stream_of(b"data: {\"error\": {}}\n", b"data: [DONE]\n").ok
    assert not stream_of(b": ping\n", b"data: [DONE]\n").ok, "it has no token"


def test_failed_answers_are_counted_and_are_no_throughput():
    good = SimpleNamespace(ok=True, ttft=0.5, error=None, status=200)
    bad = SimpleNamespace(ok=False, ttft=None, error="gone", status=0)
    figures = load.of_answers([[good, good], [bad]], 4.0, 100)
    assert figures["answers"] == 2 and figures["failed"] == 1 and figures["tokens a second"] == 50


@pytest.mark.skipif(not RUNAHEAD.exists(), reason=f"{RUNAHEAD} is not built")
def test_every_load_of_our_own_runs(tmp_path):
    out = tmp_path / "load.json"
    result = subprocess.run([sys.executable, ROOT / "bench" / "load.py", "--binary", RUNAHEAD, "--serve", "--workers 1",
                             "--json", out, "--seconds", "3", "--readers", "20", "--aways", "5"],
                            capture_output=True, text=True, timeout=280)
    assert result.returncode == 0, result.stderr
    [figures] = [servers["runahead"] for servers in json.loads(out.read_text())]
    assert figures["eight: failed"] == figures["beside: short, failed"] == figures["slow: failed beside them"] == 0
    assert figures["drain: failed"] == 0 and figures["drain: answers"] > 0, "SIGTERM fails no request"
    assert figures["overload: other failures"] == 0, "what is not served is refused with 429"
    assert figures["away: p99, s"] < 10, "a client that goes away leaves no pages behind"  # when load.py gives up
    assert figures["slow: KiB of each in the gateway"] <= 96
