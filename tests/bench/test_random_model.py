"""bench/random_model.py: its files are models that we load, with weights of the size that layers have."""
import json
import math
import os
import subprocess
import sys
from pathlib import Path

import gguf
import numpy as np
import pytest

ROOT = Path(__file__).resolve().parents[2]
RUNAHEAD = Path(os.environ.get("RUNAHEAD_BINARY", ROOT / "build" / "release" / "runahead"))

sys.path.insert(0, str(ROOT / "bench"))
import random_model  # noqa: E402

needs_model = pytest.mark.skipif(not (RUNAHEAD.exists() and random_model.TOKENIZER.exists()),
                                 reason=f"needs {RUNAHEAD} and {random_model.TOKENIZER}")


@pytest.fixture
def small_shape(monkeypatch):
    monkeypatch.setitem(random_model.SHAPES, "small", (256, 512, 4, 2, 4))


@pytest.mark.parametrize("kind", ["Q4_0", "Q4_1", "Q8_0", "Q4_K", "Q6_K"])
def test_weights_have_mean_zero_and_the_size_that_keeps_activations_level(kind):
    for row_len in (256, 512):
        blocks = random_model.random_blocks(np.random.default_rng(3), kind, 256, row_len)
        weights = gguf.quants.dequantize(blocks, gguf.GGMLQuantizationType[kind]) * math.sqrt(row_len)
        assert weights.std() == pytest.approx(1, abs=0.1 if kind.endswith("K") else 0.03)  # few superblocks
        assert weights.mean() == pytest.approx(0, abs=0.12)  # codes of Q4_0 are -8..7


def test_q4_k_m_takes_q6_k_where_llama_cpp_does():
    kinds = [random_model.format_of("ffn_down", "Q4_K_M", layer, 32) for layer in range(32)]
    assert [layer for layer, kind in enumerate(kinds) if kind == "Q6_K"] == [0, 1, 2, 3, 6, 9, 12, 15, 18, 21, 24, 27, 28,
                                                                             29, 30, 31]
    assert random_model.format_of("attn_q", "Q4_K_M", 0, 32) == "Q4_K"
    assert random_model.format_of("output", "Q4_K_M", None, 32) == "Q6_K"


@needs_model
def test_the_engine_measures_such_a_model(small_shape, tmp_path):
    random_model.write_model(tmp_path / "m.gguf", "small", None, "Q4_K_M")
    done = subprocess.run([RUNAHEAD, "bench", "prefill", "--model", tmp_path / "m.gguf", "--tokens", "64", "--repetitions",
                           "1", "-o", "json"], capture_output=True, text=True, timeout=120,
                          env={**os.environ, "RUNAHEAD_CACHE_DIR": str(tmp_path)})
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["results"][0]["tokens"] == 64
