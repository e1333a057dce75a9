"""bench/goodput.py: arrivals, lengths, what counts as in time, and a short run on a real cluster."""

import json
import statistics
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest

ROOT = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(ROOT / "bench"), str(ROOT / "tests/e2e")]
import goodput  # noqa: E402
from cli import NOT_BUILT  # noqa: E402


def test_arrivals_are_poisson_of_their_rate_and_the_same_for_the_same_seed():
    times = goodput.arrivals(5, 2000, 1)
    gaps = [b - a for a, b in zip(times, times[1:])]
    assert times == goodput.arrivals(5, 2000, 1) != goodput.arrivals(5, 2000, 2)
    assert statistics.mean(gaps) == pytest.approx(0.2, rel=0.05) and statistics.stdev(gaps) == pytest.approx(0.2, rel=0.1)


def test_lengths_are_the_traces_or_have_a_long_tail():
    assert set(goodput.draw_lengths(100, 1, 7000, [1000, 40000], 0.5)) == {500, 7000}
    drawn = sorted(goodput.draw_lengths(4000, 1, 7000, None, 1.0))
    assert drawn[0] >= goodput.SHORTEST and drawn[2000] == pytest.approx(403, rel=0.1) and drawn[-1] == 7000


def test_what_cannot_be_measured_is_said_in_a_sentence(tmp_path):
    (tmp_path / "trace").write_text('{"input_length": 700}\n{"length": 3}\n')
    with pytest.raises(SystemExit, match="is no trace, JSON lines with input_length"):
        goodput.read_trace(tmp_path / "trace")
    with pytest.raises(SystemExit, match="127.0.0.1:1 does not answer"):
        goodput.calibrate("127.0.0.1:1", 600)
    failed = goodput.summary([SimpleNamespace(tokens=100, seconds=None)], lambda tokens: 1.0)
    assert goodput.in_time(failed, 2.0) == 0 and failed["p95"] == float("inf")


def test_the_parabola_goes_through_its_points():
    idle = goodput.parabola([(128, 0.1), (512, 0.5), (2048, 3.0)])
    assert [idle(n) for n in (128, 512, 2048)] == pytest.approx([0.1, 0.5, 3.0])


def test_what_failed_or_came_late_is_not_in_time():
    callers = [SimpleNamespace(tokens=100, seconds=seconds) for seconds in (1.0, 2.0, 2.1, None)]
    one = goodput.summary(callers, lambda tokens: 1.0)
    assert goodput.in_time(one, 2.0) == 2 and one["requests"] == 4

    def row(rate, **in_time):
        return {"rate": rate, **{policy: {**one, "requests": 20, "slowdowns": [1.4] * count + [9.0] * (20 - count)}
                                 for policy, count in in_time.items()}}

    rows = [row(1, single=18, even=19, auto=20), row(2, single=10, even=4, auto=19)]
    table = goodput.table(rows, [1.3, 1.5], 0.9, 10.0)
    assert "| 1.3 times | 0.00 | 0.00 | 0.00 | no plain policy reaches it |" in table
    assert "| 1.5 times | 1.80 | 1.90 | 2.00 | 1.05 |" in table


@NOT_BUILT
def test_a_short_run_on_a_real_cluster(tmp_path):
    out = tmp_path / "runs.json"
    done = subprocess.run([sys.executable, ROOT / "bench/goodput.py", "--rates", "2", "--seconds", "3", "--longest", "300",
                           "--json", out], capture_output=True, text=True, timeout=240, check=False)
    assert done.returncode == 0, done.stderr
    [row] = json.loads(out.read_text())["rows"]
    assert {len(row[policy]["each"]) for policy in goodput.POLICIES} == {row["auto"]["requests"]}, "the same load for each"
    assert "failed" not in done.stderr and "| 2 | " in done.stdout
