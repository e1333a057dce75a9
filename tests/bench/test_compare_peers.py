"""bench/compare_peers.py: the protocol, the choice of the undisturbed sample, the table; and `runahead bench` as it calls it.

The peers' packages are not needed: a peer made of a few lines stands in for them.
"""
import argparse
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
RUNAHEAD = Path(os.environ.get("RUNAHEAD_BINARY", ROOT / "build" / "release" / "runahead"))
MODELS = Path(os.environ.get("RUNAHEAD_MODEL_DIR", Path.home() / ".cache" / "runahead" / "models"))
MODEL = MODELS / "SmolLM2-135M-Instruct.Q4_1.gguf"

sys.path.insert(0, str(ROOT / "bench"))
import compare_peers  # noqa: E402

SMALL_PEER = """
import sys
import protocol

class Peer:
    version = "small 1"
    def prefill(self, ids):
        print("a library that prints")
        return {"seconds": len(ids) / 1000}
    def decode(self, ids, steps):
        return {"seconds": steps / 100}

protocol.serve(Peer)
"""


@pytest.fixture
def small_peer(tmp_path, monkeypatch):
    monkeypatch.setattr(compare_peers, "CACHE", tmp_path)
    (tmp_path / "peers").mkdir()
    monkeypatch.setenv("PYTHONPATH", str(compare_peers.PEERS))
    peer = compare_peers.PeerProcess("small", [sys.executable, "-c", SMALL_PEER])
    yield peer
    peer.close()


def test_a_peer_answers_by_the_protocol_whatever_its_library_prints(small_peer):
    assert small_peer.version == "small 1"
    assert small_peer.prefill(250, 99) == 0.25
    assert small_peer.decode(0, 7, 99, 1) == 0.07
    assert small_peer.decode(0, 7, 99, 4) is None  # only llama.cpp decodes several
    assert 1 << 20 < small_peer.peak_bytes() < 1 << 30


def test_a_peer_that_ends_is_named_with_its_log(small_peer):
    with pytest.raises(SystemExit, match="small ended; see .*small.log"):
        small_peer.ask(op="no_such_method")


class FakeMachine:
    """Others use the given shares of one core, one sample after the other."""

    cpus = 1

    def __init__(self, shares, clock):
        self.shares, self.clock, self.busy, self.calls = list(shares), clock, 0.0, 0

    def busy_seconds(self):
        self.calls += 1
        if self.calls % 2 == 0:  # after a sample, which takes a second
            self.clock.now += 1
            self.busy += 1 + self.shares.pop(0)
        return self.busy

    def process_seconds(self, _pid):
        return self.clock.now


class FakeClock:
    now = 0.0


@pytest.mark.parametrize("shares, attempts, kept", [([0.05, 0.5], 3, 1), ([0.6, 0.3, 0.4], 3, 2), ([0.6, 0.02], 3, 2)])
def test_the_least_disturbed_sample_counts_and_an_undisturbed_one_ends_the_search(monkeypatch, shares, attempts, kept):
    clock = FakeClock()
    monkeypatch.setattr(compare_peers.time, "monotonic", lambda: clock.now)
    engine = argparse.Namespace(own_seconds=lambda machine: clock.now)
    args = argparse.Namespace(attempts=attempts, others_max=0.1)
    numbers = iter(range(1, 10))
    seconds, others = compare_peers.measure(engine, FakeMachine(shares, clock), args, lambda: next(numbers))
    assert seconds == kept
    assert others == pytest.approx(shares[kept - 1])


def engine(name, rates, quality=None):
    samples = {"prefill 512": [{"tokens_per_second": rate, "others": 0} for rate in rates]}
    return argparse.Namespace(name=name, samples=samples, memory=3 << 20, quality=quality, compute="int16")


def test_the_table_has_medians_with_their_spread_and_ratios_to_the_fastest_rival():
    args = argparse.Namespace(tokens=[512], context=[], batch=[])
    engines = [engine("ours", [90, 100, 120], 30.5), engine("llama:file", [20]), engine("llama:Q8_0", [40, 50, 45]),
               engine("openvino", [80])]
    lines = compare_peers.table(engines, args, "on").splitlines()
    assert lines[2] == "| **Runahead**, the file, int16 | 100 (90–120) | 3 MiB | 30.50 |"
    assert lines[4] == "| llama.cpp, requant Q8_0, flash attention on | 45 (40–50) | 3 MiB | not measured |"
    assert lines[6] == "| ours over the fastest llama.cpp | 2.22x | | |"
    assert lines[7] == "| ours over OpenVINO | 1.25x | | |"


def test_what_an_engine_does_not_decode_at_once_is_not_measured_and_no_rival():
    args = argparse.Namespace(tokens=[512], context=[64], batch=[4])
    engines = [engine("ours", [100]), engine("llama:Q8_0", [50]), engine("openvino", [80])]
    for one, rate in zip(engines, (60, 30, 20)):
        one.samples["decode 64"] = [{"tokens_per_second": rate, "others": 0}]
    for one, rate in zip(engines[:2], (200, 50)):
        one.samples["decode 64 x 4"] = [{"tokens_per_second": rate, "others": 0}]
    lines = compare_peers.table(engines, args, "on").splitlines()
    assert lines[4].split(" | ")[3] == "not measured"
    assert lines[5] == "| ours over the fastest llama.cpp | 2.00x | 2.00x | 4.00x | | |"
    assert lines[6] == "| ours over OpenVINO | 1.25x | 3.00x | not measured | | |"


needs_model = pytest.mark.skipif(not (RUNAHEAD.exists() and MODEL.exists()), reason=f"needs {RUNAHEAD} and {MODEL}")


def bench(*arguments):
    done = subprocess.run([RUNAHEAD, "bench", *arguments, "-o", "json"], capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


@needs_model
def test_bench_prefill_prints_rates_of_the_median_and_its_memory():
    answer = bench("prefill", "--model", str(MODEL), "--tokens", "64,96", "--repetitions", "3", "--threads", "2")
    assert [r["tokens"] for r in answer["results"]] == [64, 96]
    for r in answer["results"]:
        assert r["tokens_per_second"] == pytest.approx(r["tokens"] / r["seconds"])
        assert 0 < r["seconds_min"] <= r["seconds_lower_quartile"] <= r["seconds"]
        assert r["seconds"] <= r["seconds_upper_quartile"] <= r["seconds_max"]
        assert 0 < r["peak_fraction"] < 1.1  # of a peak that is noisy, too
    assert 60 << 20 < answer["peak_resident_bytes"] < 2 << 30


@needs_model
def test_bench_decode_counts_the_bytes_of_weights_and_of_each_sequence():
    answer = bench("decode", "--model", str(MODEL), "--context", "0,64", "--batch", "1,2", "--steps", "4",
                   "--compute", "fp32")
    rows = {(r["context"], r["batch"]): r for r in answer["results"]}
    assert set(rows) == {(0, 1), (0, 2), (64, 1), (64, 2)}
    token_bytes = 30 * 3 * 64 * 2 * 4  # layers, K/V heads, head_dim, K and V, fp32
    assert rows[64, 1]["bytes"] - rows[0, 1]["bytes"] == 64 * token_bytes
    assert rows[64, 2]["bytes"] - rows[64, 1]["bytes"] == (64 + 3) * token_bytes  # the middle of four steps and itself
    for r in rows.values():
        assert r["tokens_per_second"] == pytest.approx(r["batch"] / r["seconds"])
        assert r["read_fraction"] == pytest.approx(r["bytes"] / r["seconds"] / r["read_bytes_per_second"])


@needs_model
def test_bench_kernels_measures_the_products_and_the_attention_of_both_models():
    answer = bench("kernels", "--model", str(MODEL), "--compute", "int16", "--rows", "2,1", "--repetitions", "1")
    results = answer["results"]
    assert {(r["compute"], r["isa"]) for r in results} == {("int16", results[0]["isa"])}
    products = {(r["what"], r["rows"]): r for r in results if r["kernel"] == "gemm"}
    assert len(products) == 2 * 5 + 2 * 4  # Llama 3 8B without its vocabulary
    assert products["model down 1536 -> 576 Q4_1", 2]["operations"] == 2 * 2 * 1536 * 576
    assert products["Llama-3-8B gate_up 4096 -> 28672 Q4_1", 1]["operations"] == 2 * 4096 * 28672
    attention = [r for r in results if r["kernel"] == "attention"]
    assert [r["what"].split("last ")[1] for r in attention] == 2 * [f"64 of {n} tokens" for n in (512, 2048, 8192)]
    assert [r["pair_rate_of_first_context"] == 1 for r in attention] == 2 * [True, False, False]
    for r in results:
        assert r["giga_ops_per_second"] == pytest.approx(r["operations"] / r["seconds"] / 1e9)
        assert r["peak_fraction"] == pytest.approx(r["giga_ops_per_second"] / r["peak_giga_ops_per_second"])


@needs_model
@pytest.mark.parametrize("arguments, says", [(["nothing"], "prefill, decode, kernels, plan, load and rank"),
                                             (["kernels", "--threads", "2"], "one core"),
                                             (["decode", "--context", "9000"], "context")])
def test_bench_says_what_it_cannot_measure(arguments, says):
    done = subprocess.run([RUNAHEAD, "bench", *arguments, "--model", str(MODEL)], capture_output=True, text=True,
                          timeout=60)
    assert done.returncode != 0
    assert says in done.stderr


@needs_model
def test_the_comparison_runs_with_our_engine_alone(tmp_path):
    out = tmp_path / "samples.json"
    command = [sys.executable, ROOT / "bench" / "compare_peers.py", "--binary", str(RUNAHEAD), "--peers", "ours",
               "--python", sys.executable,
               "--tokens", "64", "--context", "0", "--steps", "4", "--rounds", "1", "--attempts", "1", "--no-quality",
               "--json", str(out)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300,
                          env={**os.environ, "RUNAHEAD_CACHE_DIR": str(tmp_path)})
    assert done.returncode == 0, done.stderr
    assert "**Runahead**" in done.stdout
    samples = json.loads(out.read_text())["engines"][0]["samples"]
    assert [len(samples[key]) for key in ("prefill 64", "decode 0")] == [1, 1]
