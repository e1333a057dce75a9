"""bench/paper.py: the arithmetic between the paper's machine and this one, and its tables."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(ROOT / "bench"), str(ROOT / "tests/e2e")]
import paper  # noqa: E402
from cli import NOT_BUILT  # noqa: E402

NO_TESTBED = ["no right to make", "no cpu cgroup", "cannot be delegated", "run it as root", "is missing", "than 80 %", "is void"]


def result_of(**seconds):
    return {"rows": [{"scheme": scheme.replace("_", "-"), "ttft": ttft, "prediction_error": 0.02}
                     for scheme, ttft in seconds.items()]}


def test_a_link_has_the_papers_ratio_to_what_a_node_makes():
    # One A100 made 524,288 bytes of each of 4,096 tokens in 0.65 s: 3.30 GB/s, a third of a link of 10 GB/s.
    assert paper.a100_kv_rate(4096) == pytest.approx(3.304e9, rel=1e-3)
    # 4,096 tokens of 10,000 bytes in 20 s are 2.048 MB/s here; the link is 3.03 times that.
    assert paper.link_mbit(10, 4096, 10_000, 20) == pytest.approx(2.048 * 8 * 3.027, rel=1e-3)
    assert paper.link_mbit(300, 4096, 10_000, 0.2) == paper.LINK_MOST


def test_the_tables_have_our_gain_beside_the_papers():
    one = {"nodes": 4, "tokens": 8192, "bandwidth": 10, "mbit": 46.0, "single": 40.0,
           "result": result_of(balanced=10.0, tsp=18.0, paper_kvr=14.0), "noisy": result_of(balanced=10.2, tsp=20.0)}
    row = paper.table([one]).splitlines()[-1]
    assert "| 4 | 8192 | 10 | 46 | 40.00 | 10.00 | 4.00 | 1.80 (1.79) |  |  | 1.40 |  | 2.0 % |" in row
    assert "| +2.0 % | +11.1 % |" in paper.noise_table([one])


def test_the_ablation_says_what_the_time_grows_by_without_each_idea():
    times = dict.fromkeys((name.replace("-", "_") for name in paper.ABLATION), 10.0)
    one = {"nodes": 4, "tokens": 8192, "bandwidth": 10,
           "ablation": result_of(**{**times, "chain_late_receives": 12.5, "paper_kvr": 14.0})}
    head, _, row = paper.ablation_table([one]).splitlines()
    assert "| chain s | with late receives |" in head and head.count("|") == row.count("|")
    assert row.startswith("| 4 | 8192 | 10 | 10.00 | +25.0 % | +0.0 % |") and row.endswith("| +40.0 % |")


@NOT_BUILT
def test_a_small_run_on_the_testbed():
    done = subprocess.run([ROOT / "bench/paper.py", "--nodes", "4", "--tokens", "512", "--bandwidths", "10", "--rounds", "1",
                           "--schemes", "balanced,tsp"], capture_output=True, text=True, check=False, timeout=240,
                          env={**os.environ, "RUNAHEAD_TESTBED": f"paper{os.getpid()}"})
    reasons = [line for line in done.stderr.splitlines() if any(words in line for words in NO_TESTBED)]
    if done.returncode != 0 and reasons:
        pytest.skip(f"no testbed here, or none that holds now: {reasons[-1]}")
    assert done.returncode == 0, done.stderr
    assert "| 4 | 512 | 10 |" in done.stdout
