"""Every architecture that we run, on small models of random weights in F32, against the real llama.cpp on the same files."""
import json
import os
import subprocess
from pathlib import Path

import numpy as np
import pytest

import llama_cpp

ROOT = Path(__file__).resolve().parents[2]
BINARY = Path(os.environ.get("RUNAHEAD_BINARY", ROOT / "build" / "release" / "runahead"))
RUNS = BINARY.parent / "tests" / "support" / "architectures" / "architecture_runs"
# llama.cpp takes GELU from a table of 16-bit floats, so a few digits are lost there; else only the order of sums differs.
GELU = ("gemma", "falcon", "starcoder")


@pytest.fixture(scope="module")
def ours(tmp_path_factory):
    folder = tmp_path_factory.mktemp("architectures")
    output = subprocess.run([RUNS, folder, "fp32"], check=True, capture_output=True, text=True, timeout=120).stdout
    return folder, {run["name"]: run for run in map(json.loads, output.splitlines())}


def names():
    source = (ROOT / "tests" / "support" / "architectures" / "architecture_models.cc").read_text()
    return [line.split('"')[1] for line in source.splitlines() if "{.name = " in line]


@pytest.mark.parametrize("name", names())
def test_says_what_llama_cpp_says(ours, name):
    folder, runs = ours
    run = runs[name]
    assert "error" not in run, run["error"]
    engine = llama_cpp.Engine(folder / f"{name}.gguf", context=4096)
    logprobs = llama_cpp.log_probabilities(engine.logits(run["prompt"]))
    np.testing.assert_allclose(run["logprobs"], logprobs[run["top"]], rtol=0, atol=1e-3 if name.startswith(GELU) else 5e-5)
    assert set(run["top"][:5]) <= set(np.argsort(logprobs)[::-1][:7].tolist())
    for step, (token, margin) in enumerate(zip(run["greedy"], run["margins"])):
        best = int(logprobs.argmax())
        assert token == best, f"token {step} of the answer, which was the best by {margin}"
        logprobs = engine.logits([token])
    engine.close()
