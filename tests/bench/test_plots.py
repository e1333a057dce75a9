"""bench/plots.py: the drawings are well-formed, and bars are as long as what they show."""

import sys
import xml.etree.ElementTree as xml
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "bench"))
import chain  # noqa: E402
import paper  # noqa: E402
import plots  # noqa: E402

SVG = "{http://www.w3.org/2000/svg}"


def drawn(picture, kind):
    return xml.fromstring(picture).iter(SVG + kind)


def titled(picture):
    return {rect.find(SVG + "title").text: float(rect.get("width")) for rect in drawn(picture, "rect") if len(rect)}


@pytest.mark.parametrize("most,last", [(0.31, 0.35), (1.0, 1.0), (7.9, 8.0), (8.1, 10.0), (30.3, 35.0), (999, 1000)])
def test_ticks_are_round_and_enclose(most, last):
    marks = plots.ticks(most)
    assert marks[0] == 0 and marks[-1] == pytest.approx(last) and len(marks) <= 11


def test_bars_are_as_long_as_their_medians():
    rows = [{"label": "single", "median": 8.0, "fastest": 7.9, "slowest": 8.2, "predicted": None},
            {"label": "<balanced>", "median": 2.0, "fastest": 1.9, "slowest": 2.2, "predicted": 2.1}]
    lengths = titled(plots.bars("a & b", rows))
    assert lengths["single: 8.000 s"] == pytest.approx(4 * lengths["<balanced>: 2.000 s"])


def test_a_waterfall_divides_the_time_to_first_token():
    picture = plots.waterfall("run", 10.0, 9.0, [{"compute": 6.0, "wait": 1.0}, {"compute": 4.0, "wait": 0.0}])
    lengths = titled(picture)
    assert set(lengths) == {"rank 0, compute: 6.000 s", "rank 0, waits for K/V: 1.000 s", "rank 0, other: 3.000 s",
                            "rank 1, compute: 4.000 s", "rank 1, other: 6.000 s"}
    assert lengths["rank 0, compute: 6.000 s"] == pytest.approx(2 * lengths["rank 0, other: 3.000 s"])
    assert "predicted 9.00 s" in picture


def test_lines_have_a_point_for_each_measurement():
    picture = plots.lines("t", "nodes", "speed-up", {"ours": [(4, 3.7), (8, 7.1)], "tsp": [(4, 2.8)]})
    assert [title.text for title in drawn(picture, "title")] == ["ours: 3.7", "ours: 7.1", "tsp: 2.8"]


def test_a_run_is_drawn_into_a_folder(tmp_path):
    def run(scheme, ttft):
        return {"scheme": scheme, "tokens": 512, "ttft": ttft, "predicted": 0.9 * ttft, "cuts": [256], "logits": "a",
                "ranks": [{"compute_seconds": ttft / 2, "kv_wait_seconds": 0.1}] * 2}
    runs = [run("balanced", 1.0), run("balanced", 1.2), run("tsp@256", 2.0)]
    chain.draw(tmp_path / "chain", chain.rows_of(runs), runs)
    assert {path.name for path in (tmp_path / "chain").iterdir()} == {"ttft-512.svg", "waterfall-512-balanced.svg",
                                                                      "waterfall-512-tsp-256.svg"}
    one = {"nodes": 4, "tokens": 512, "bandwidth": 10, "single": 4.0, "result": {"rows": chain.rows_of(runs), "runs": runs}}
    paper.draw(tmp_path / "paper", [one])
    assert "balanced: 3.64" in (tmp_path / "paper/scaling-512-10.svg").read_text()
