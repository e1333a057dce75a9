"""bench/open_loop.py: its table, and one scenario on a real cluster."""
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
RUNAHEAD = Path(os.environ.get("RUNAHEAD_BINARY", ROOT / "build" / "release" / "runahead"))

sys.path.insert(0, str(ROOT / "bench"))
import open_loop  # noqa: E402


def test_the_table_has_the_median_of_the_rounds_and_their_quotient():
    text = open_loop.table(["old", "new"], [[{"a": 4.0}, {"a": 2.0}, {"a": 3.0}], [{"a": 1.5, "b": 1.0}]])
    assert "| a | 3.000 (2.000 to 4.000) | 1.500 (1.500 to 1.500) | 0.50 |" in text
    assert "| b | - | 1.000 (1.000 to 1.000) | |" in text


def test_a_percentile_is_one_of_the_samples():
    assert open_loop.percentile([1, 2, 3, 4], 0.95) == 4
    assert open_loop.percentile([7], 0.5) == 7


def test_prompts_are_the_same_for_the_same_seed_only():
    assert open_loop.prompt(50, 1) == open_loop.prompt(50, 1)
    assert open_loop.prompt(50, 1)[:2] != open_loop.prompt(50, 2)[:2]


@pytest.mark.skipif(not RUNAHEAD.exists(), reason=f"{RUNAHEAD} is not built")
def test_a_scenario_runs_on_a_real_cluster(tmp_path):
    out = tmp_path / "ttft.json"
    result = subprocess.run([sys.executable, ROOT / "bench" / "open_loop.py", "--binary", RUNAHEAD, "--scenario", "ninth",
                             "--serve", "--workers 1", "--json", out], capture_output=True, text=True, timeout=280)
    assert result.returncode == 0, result.stderr
    [[figures]] = json.loads(out.read_text())["builds"].values()
    assert figures["ninth: TTFT beside 8 answers"] > 0
    assert "failed" not in result.stderr
