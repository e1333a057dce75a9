"""bench/gpu.py: its order, budget and tables, what it says without a GPU or PyTorch, and a short run over the emulated GPU."""
import importlib.util
import json
import os
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace

import pytest

ROOT = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(ROOT / "bench"), str(ROOT / "tests/e2e")]
import gpu  # noqa: E402
import random_model  # noqa: E402
from cli import BINARY, NOT_BUILT  # noqa: E402

EMULATION = Path(BINARY).resolve().parent / "tests/support/simt/librunahead_cuda_emulation.so"
needs_torch = pytest.mark.skipif(importlib.util.find_spec("torch") is None, reason="this Python has no torch")
needs_emulation = pytest.mark.skipif(not (EMULATION.exists() and random_model.TOKENIZER.exists()),
                                     reason=f"needs {EMULATION} and {random_model.TOKENIZER}")


class Clock:
    now = 100.0

    def __call__(self):
        return self.now


def spread(seconds):
    return {"seconds": seconds, "seconds_min": seconds / 2, "seconds_max": seconds * 2}


def test_small_sizes_come_first_and_the_default_models_first_token_among_them():
    steps = gpu.steps_of(["smollm2-135m", "falcon-7b"], [4096, 1024], [16384])
    assert [str(step) for step in steps] == [
        "prefill of smollm2-135m at 1024 tokens", "prefill of falcon-7b at 1024 tokens",
        "first token of smollm2-135m at 1024 tokens", "decode of smollm2-135m at 16384 tokens",
        "decode of falcon-7b at 16384 tokens", "prefill of smollm2-135m at 4096 tokens", "prefill of falcon-7b at 4096 tokens"]


def test_what_does_not_fit_the_time_is_left_out_and_named_and_a_failure_ends_one_step_alone():
    clock, reports = Clock(), []
    budget = gpu.Budget(100, clock)

    def measure(step):
        if step.shape == "b":
            raise gpu.Failed("the device has no room")
        clock.now += 10 + step.size / 64
        return [{"size": step.size}], step.size / 64

    steps = [gpu.Step("prefill", shape, size) for size in (64, 640, 1280) for shape in "ab"]
    rows, left_out = gpu.run_steps(steps, budget, measure, lambda rows, left_out: reports.append(len(rows)))
    assert rows == [{"size": 64}] and reports == [1]
    # Ten seconds of starting and one of computing, 100 times as much at 640 tokens.
    assert left_out == ["prefill of b at 64 tokens: the device has no room",
                        "prefill of a at 640 tokens: it would take 110 s, and 89 s are left",
                        "prefill of b at 640 tokens: the device has no room",
                        "prefill of a at 1280 tokens: it would take 410 s, and 89 s are left",
                        "prefill of b at 1280 tokens: the device has no room"]


def test_what_waits_for_ever_fails():
    with pytest.raises(gpu.Failed, match="within 1 s"), gpu.within(1):
        time.sleep(20)


def test_rounds_are_pooled_and_one_without_numbers_does_not_count():
    assert gpu.pooled([(2, 1, 3), None, (4, 2, 9)]) == {"seconds": 3, "seconds_min": 1, "seconds_max": 9}
    assert gpu.pooled([None]) is None


def test_the_sides_take_turns_and_ours_counts_where_pytorch_cannot():
    turns = []

    def bench(_, what, *flags):
        turns.append(f"ours {what}")
        return [(2.0, 1.0, 3.0)] * (len(flags[3].split(",")) if what == "decode" else 1)

    def decode(shape, context, batch, steps):
        turns.append(f"torch decode {batch}")
        return None if batch == 8 else (4.0, 3.0, 5.0)

    def prefill(*_):
        turns.append("torch prefill")
        return 1.0, 1.0, 1.0

    options = gpu.parse(["--folder", "models", "--shapes", "tiny"])
    measure = gpu.Measurement(options, SimpleNamespace(bench=bench), SimpleNamespace(decode=decode, prefill=prefill),
                              random_model.SHAPES, 300)
    (one, eight), computing = measure(gpu.Step("decode", "tiny", 1024))
    assert turns == ["ours decode", "torch decode 1", "torch decode 8"] * 2
    assert one["torch"]["seconds"] == 4 and eight["torch"] is None and eight["ours"]["seconds"] == 2
    assert eight["bytes"] > one["bytes"] and computing == 2 * 33 * (2 + 4 + 2)
    turns.clear()
    [row], computing = measure(gpu.Step("prefill", "tiny", 64))
    assert turns == ["ours prefill", "torch prefill"] * 2 and computing == 2 * 4 * 3
    assert row["operations"] == row["whole_operations"] == gpu.prefill_operations(random_model.SHAPES["tiny"][:4], 3, 300, 64)


def test_the_tables_say_ratios_shares_and_the_whole_model():
    common = {"shape": "llama-3-8b", "layers": 4}
    rows = [{"what": "prefill", **common, "tokens": 1000, "ours": spread(0.5), "torch": spread(0.25), "operations": 10**14,
             "whole_operations": 8 * 10**14},
            {"what": "prefill", **common, "tokens": 64, "ours": spread(0.5), "torch": None, "operations": 1e12,
             "whole_operations": 2e12},
            {"what": "decode", **common, "tokens": 1024, "batch": 8, "ours": spread(0.002), "torch": spread(0.003),
             "bytes": 4 * 10**9},
            {"what": "first token", **common, "tokens": 1024, "ours": spread(0.01)}]
    told = gpu.tables(rows, ["one: why"], {"device": "H", "torch": "2", "operations_per_second": 8e14, "bytes_per_second": 4e12})
    assert "H, PyTorch 2: a product of bf16 800 TFLOP/s, a copy 4.00 TB/s." in told
    assert ("| llama-3-8b | 4 | 1,000 | 2,000 (1,000 to 4,000) | 4,000 (2,000 to 8,000) | 0.50 | 200.00 (25 %) | 4.000 |" in told)
    assert "| llama-3-8b | 4 | 64 | 128 (64 to 256) | - | - | 2.00 (0 %) | 1.000 |" in told
    assert told.index("| 64 |") < told.index("| 1,000 |")
    assert ("| llama-3-8b | 4 | 1,024 | 8 | 2.00 (1.00 to 4.00) | 3.00 (1.50 to 6.00) | 1.50 | 4,000 | 2,000.00 (50 %) |" in told)
    assert "1,024 tokens, by `runahead serve`: 10.00 (5.00 to 20.00) ms." in told and told.endswith("Left out: one: why.")
    assert "| 2.00 |" in gpu.tables(rows, [], {}), "without a ceiling there are no shares"


def test_what_is_missing_is_said_in_a_sentence(monkeypatch, tmp_path):
    options = SimpleNamespace(binary=tmp_path / "runahead", without_torch=False)
    assert gpu.missing(options) == f"{options.binary} is not built"
    options.binary.touch()
    known = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name == "torch" else known(name))
    assert "has no package torch to measure beside; --without-torch" in gpu.missing(options)
    options.without_torch = True
    assert gpu.missing(options) is None


@pytest.fixture
def tiny(monkeypatch, tmp_path):
    monkeypatch.setenv("RUNAHEAD_CACHE_DIR", str(tmp_path / "cache"))
    return ["--binary", BINARY, "--folder", str(tmp_path), "--shapes", "tiny", "--tokens", "64", "--contexts", "0", "--batches",
            "1", "--rounds", "1", "--repetitions", "1", "--steps", "1", "--without-torch"]


@NOT_BUILT
@needs_emulation
def test_without_a_gpu_it_says_so(tiny, monkeypatch, tmp_path):
    monkeypatch.setenv("RUNAHEAD_CUDA_LIBRARY", str(tmp_path / "none.so"))
    with pytest.raises(SystemExit, match="no GPU is used"):
        gpu.main(tiny)


@NOT_BUILT
@needs_emulation
def test_a_short_run_over_the_emulation(tiny, monkeypatch, tmp_path, capsys):
    monkeypatch.setenv("RUNAHEAD_CUDA_LIBRARY", str(EMULATION))
    monkeypatch.setattr(gpu, "FIRST_TOKEN_SHAPE", "tiny")
    monkeypatch.setattr(gpu, "FIRST_TOKEN_PROMPT", 64)
    monkeypatch.setattr(gpu, "FIRST_TOKENS", 1)
    gpu.main([*tiny, "--json", str(tmp_path / "gpu.json")])
    told, written = capsys.readouterr().out, json.loads((tmp_path / "gpu.json").read_text())
    assert [row["what"] for row in written["rows"]] == ["prefill", "first token", "decode"], written["left_out"]
    assert "| tiny | 3 | 64 |" in told and "| tiny | 3 | 0 | 1 |" in told and "after a prompt of 64 tokens" in told
    measured = subprocess.run([BINARY, "bench", "prefill", "--model", tmp_path / "tiny.gguf", "--tokens", "64", "-o", "json"],
                              capture_output=True, text=True, check=True, env={**os.environ})
    assert json.loads(measured.stdout)["results"][0]["operations"] == written["rows"][0]["operations"]


@needs_torch
def test_pytorchs_layers_decode_what_they_prefill():
    import torch
    import torch_llama
    *shape, layers = random_model.SHAPES["tiny"]
    model = torch_llama.TorchLlama(shape, layers, 300, device="cpu")
    tokens = model.random_tokens(9)
    whole = model.prefill(tokens)
    assert whole.shape == (1, 300) and torch.isfinite(whole).all()
    caches = [cache[:, :, :, :0] for cache in model.random_caches(0, 1)]
    for position in range(9):
        caches = [torch.nn.functional.pad(cache, (0, 0, 0, 1)) for cache in caches]
        last = model.decoder(position, 1, caches)(tokens[position:position + 1])
    assert (last - whole).norm() < 0.02 * whole.norm(), "a step behind eight tokens is the prefill of nine"
