"""Whole clusters of real processes whose GPUs are emulated: librunahead_cuda.so's place is taken by the emulation of
tests/support/simt, NCCL's and cuBLASLt's by doubles (tests/support). Every chain gives the bits of one worker."""
import json
import os
import sys
from pathlib import Path

import pytest

from cli import BINARY, NOT_BUILT, ROOT, refused, runahead

sys.path.insert(0, str(ROOT / "bench"))
import random_model  # noqa: E402

BUILD = Path(BINARY).resolve().parent
EMULATION = BUILD / "tests/support/simt/librunahead_cuda_emulation.so"
NCCL = BUILD / "tests/support/nccl/librunahead_nccl_double.so"
CUBLASLT = BUILD / "tests/support/cublaslt/librunahead_cublaslt_double.so"

pytestmark = [NOT_BUILT, pytest.mark.skipif(not (EMULATION.exists() and NCCL.exists() and random_model.TOKENIZER.exists()),
                                            reason=f"needs {EMULATION}, {NCCL} and {random_model.TOKENIZER}")]
GPU = {**os.environ, "RUNAHEAD_CUDA_LIBRARY": str(EMULATION), "RUNAHEAD_NCCL_LIBRARY": str(NCCL)}
PROMPT = "The chain of workers fills the cache, and each layer goes on to the next one. " * 8  # about 140 tokens


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    random_model.SHAPES["tiny"] = (64, 96, 2, 1, 3)
    path = tmp_path_factory.mktemp("cuda") / "tiny.gguf"
    random_model.write_model(path, "tiny", None, "Q8_0")
    return path


def run(model, *arguments, environment=None):
    done = runahead("run", "--raw", "--prompt", PROMPT, "--max-tokens", "2", "--model", str(model), "--compute", "cuda",
                    "-o", "json", *arguments, env={**(environment or GPU), "RUNAHEAD_CACHE_DIR": str(model.parent)})
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


@pytest.fixture(scope="module")
def one_worker(model):
    return run(model, "--workers", "1", "--transport", "tcp")


@pytest.mark.parametrize("transport", ["tcp", "ucx", "nccl", "cuda-ipc"])
def test_every_chain_of_gpus_gives_the_bits_of_one(model, one_worker, transport):
    answer = run(model, "--workers", "2", "--cuts", "64", "--transport", transport)
    assert answer["transport"].removesuffix("-1.13") == transport and answer["compute"] == "cuda-bf16"
    assert answer["plan"]["cuts"] == [64]
    assert answer["token_ids"] == one_worker["token_ids"]
    assert answer["first_logits_sha256"] == one_worker["first_logits_sha256"]


def test_products_by_a_library_are_the_same_in_every_chain(model, one_worker, tmp_path):
    library = {**GPU, "RUNAHEAD_CUBLASLT_LIBRARY": str(CUBLASLT)}
    one = run(model, "--workers", "1", "--transport", "tcp", environment=library)
    chain = run(model, "--workers", "2", "--cuts", "64", "--transport", "tcp", environment=library)
    assert chain["first_logits_sha256"] == one["first_logits_sha256"] != one_worker["first_logits_sha256"]
    ours = run(model, "--workers", "1", "--transport", "tcp", environment={**library, "RUNAHEAD_CUDA_GEMM": "own"})
    assert ours["first_logits_sha256"] == one_worker["first_logits_sha256"]
    missing = {**GPU, "RUNAHEAD_CUBLASLT_LIBRARY": str(tmp_path / "none.so"), "RUNAHEAD_CUDA_GEMM": "cublaslt"}
    said = refused(4, "run", "--prompt", "x", "--model", str(model), "--compute", "cuda", env=missing)
    assert "none.so: cannot open shared object file" in said


def test_nccl_without_a_gpu_or_without_its_library_says_so(model, tmp_path):
    said = refused(2, "run", "--prompt", "x", "--model", str(model), "--compute", "fp32", "--transport", "nccl", env=GPU)
    assert "--compute cuda" in said
    missing = {**GPU, "RUNAHEAD_NCCL_LIBRARY": str(tmp_path / "libnccl.so.2")}
    said = refused(4, "run", "--prompt", "x", "--model", str(model), "--compute", "cuda", "--transport", "nccl", env=missing)
    assert "NCCL cannot be used" in said and "RUNAHEAD_NCCL_LIBRARY" in said


def test_doctor_tells_the_gpu_and_what_moves_its_pages(tmp_path):
    def told(environment):
        done = runahead("doctor", "-o", "json", "--ports", "127.0.0.1:0",
                        env={**environment, "RUNAHEAD_CACHE_DIR": str(tmp_path)})
        return [f["detail"] for f in json.loads(done.stdout)["findings"] if f["ok"] and f["what"] in ("gpu", "transport")]

    assert "emulation; products: ours" in told(GPU)
    double = {**GPU, "RUNAHEAD_CUBLASLT_LIBRARY": str(CUBLASLT)}
    assert "emulation; products: cuBLASLt 13.1.0 for 1 multiprocessors" in told(double)
    assert any(line.startswith("nccl: nccl 2.29.0 at 127.0.0.1:") for line in told(GPU))
    without = told({**os.environ, "RUNAHEAD_CUDA_LIBRARY": str(tmp_path / "none.so")})
    assert any("no GPU is used" in line for line in without) and any("--compute cuda" in line for line in without)
