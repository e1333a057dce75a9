"""bench/chain.py: what it asks for, the check of the logits, the table."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(ROOT / "bench"), str(ROOT / "tests/e2e")]
import chain  # noqa: E402
import rank_processes  # noqa: E402
from cli import BINARY, NOT_BUILT  # noqa: E402


def run_of(scheme, ttft, logits="a", tokens=1024, ranks=2):
    rank = {"compute_seconds": ttft / 2, "kv_wait_seconds": 0.01}
    return {"scheme": scheme, "tokens": tokens, "ttft": ttft, "predicted": ttft * 0.9, "cuts": [512], "ranks": [rank] * ranks,
            "logits": logits}


def test_cuts_and_strategies_are_told_apart():
    assert chain.options_of("balanced") == {"strategy": "balanced"}
    assert chain.options_of("64+128") == {"cuts": [64, 128]}


def test_the_table_has_medians_and_speed_ups():
    runs = [run_of("single", seconds, ranks=1) for seconds in (2.0, 2.2, 9.0)] + [run_of("even", 1.1)]
    single, even = chain.rows_of(runs)
    assert (single["ttft"], single["fastest"], single["slowest"]) == (2.2, 2.0, 9.0)
    assert even["speed_up"] == pytest.approx(2) and even["prediction_error"] == pytest.approx(0.1)
    assert "| 1024 | even | 2 | 1.100 (1.100 to 1.100) | 2.00 | 10.0 % |" in chain.table([even])


def test_a_rival_has_no_prediction():
    rival = {**run_of("tsp", 1.0), "predicted": None}
    assert "| tsp | 2 | 1.000 (1.000 to 1.000) |  |  | 0.50 0.50 |" in chain.table(chain.rows_of([rival]))


def test_chunks_are_whole_pages_even_or_of_equal_time():
    assert rank_processes.even_chunks(1024, 4) == [256, 512, 768]
    assert rank_processes.even_chunks(1000, 3) == [320, 640]
    assert rank_processes.equal_time_chunks(1024, 4, 1.0, 0.0) == [256, 512, 768]
    cuts = [0, *rank_processes.equal_time_chunks(8192, 4, 1.0, 0.001), 8192]
    seconds = [1.0 * (b - a) + 0.001 * (b * b - a * a) / 2 for a, b in zip(cuts, cuts[1:])]
    assert max(seconds) - min(seconds) < 2 * 64 * (1 + 0.001 * 8192)
    assert cuts[1] > 8192 - cuts[3]


def test_unlike_logits_make_the_run_void():
    chain.check_logits([run_of("single", 1), run_of("even", 1), run_of("even", 1, "b", tokens=2048)])
    with pytest.raises(SystemExit, match="unlike logits for 1024 tokens"):
        chain.check_logits([run_of("single", 1), run_of("even", 1, "b")])
    ring = {**run_of("ring", 1, None), "token": 7}
    chain.check_logits([run_of("single", 1), ring, {**run_of("tsp", 1), "token": 7}])
    with pytest.raises(SystemExit, match="unlike tokens for 1024 tokens"):
        chain.check_logits([ring, {**run_of("tsp", 1), "token": 8}])


@NOT_BUILT
def test_on_a_real_cluster(tmp_path):
    with subprocess.Popen([BINARY, "serve", "--workers", "2", "--http", "127.0.0.1:0", "-q", "-o", "json"],
                          stdout=subprocess.PIPE, text=True) as process:
        try:
            url = json.loads(process.stdout.readline())["http"]
            file = tmp_path / "runs.json"
            done = subprocess.run([ROOT / "bench/chain.py", "--url", url, "--tokens", "256", "--schemes", "single,even,192",
                                   "--rounds", "1", "--json", str(file)], capture_output=True, text=True, check=False)
            assert done.returncode == 0, done.stderr
            assert done.stdout.count("| 256 |") == 3
            rivals = subprocess.run([ROOT / "bench/chain.py", "--url", url, "--tokens", "256", "--rounds", "1", "--schemes",
                                     "balanced,tsp,tsp-causal,ring,paper-kvr@192,pipeline@t3", "--rank-command",
                                     f"{BINARY} bench rank"], capture_output=True, text=True, check=False)
            assert rivals.returncode == 0, rivals.stderr
            assert rivals.stdout.count("| 256 |") == 6, "and all of one worker's logits, or it would be void"
            assert {len(run["ranks"]) for run in json.loads(file.read_text())["runs"]} == {1, 2}
            refused = subprocess.run([ROOT / "bench/chain.py", "--url", url, "--workers", "3"], capture_output=True, text=True,
                                     check=False)
            assert "2 prefill workers are ready, 3 are wanted" in refused.stderr
        finally:
            process.terminate()
