"""Whole clusters of real processes whose GPUs are emulated: librunahead_cuda.so's place is taken by the emulation of
tests/support/simt, NCCL's and cuBLASLt's by doubles (tests/support). Every chain gives the bits of one worker. With
RUNAHEAD_TEST_CUDA_LIBRARY the same on the GPU behind that librunahead_cuda.so (tests/gpu.sh), by a model that is no toy."""
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

REAL = os.environ.get("RUNAHEAD_TEST_CUDA_LIBRARY")
LIBRARY = Path(REAL) if REAL else EMULATION
SHAPE = os.environ.get("RUNAHEAD_TEST_CUDA_SHAPE", "smollm2-135m" if REAL else "tiny")

pytestmark = [NOT_BUILT, pytest.mark.skipif(not (LIBRARY.exists() and random_model.TOKENIZER.exists()),
                                            reason=f"needs {LIBRARY} and {random_model.TOKENIZER}")]
DOUBLED = pytest.mark.skipif(bool(REAL) or not NCCL.exists(), reason="NCCL's double moves pages of emulated GPUs alone")
GPU = {**os.environ, "RUNAHEAD_CUDA_LIBRARY": str(LIBRARY), "RUNAHEAD_NCCL_LIBRARY": str(NCCL)}
TOKENS = 2 if SHAPE == "tiny" else 32  # an emulated step takes most of a second
TIE = 0.2  # two tokens whose logits are no further apart may change places by rounding to bf16
PROMPT = "The chain of workers fills the cache, and each layer goes on to the next one. " * 8  # about 140 tokens


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    path = tmp_path_factory.mktemp("cuda") / "m.gguf"
    random_model.write_model(path, SHAPE, None, "Q8_0")
    return path


def answer_of(model, *arguments, environment=None, **options):
    done = runahead(*arguments, "--model", str(model), "-o", "json",
                    env={**(environment or GPU), "RUNAHEAD_CACHE_DIR": str(model.parent)}, **options)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def run(model, *arguments, compute="cuda", environment=None):
    return answer_of(model, "run", "--raw", "--prompt", PROMPT, "--max-tokens", str(TOKENS), "--temperature", "0", "--compute",
                     compute, *arguments, environment=environment)


@pytest.fixture(scope="module")
def one_worker(model):
    return run(model, "--workers", "1", "--transport", "tcp")


@pytest.mark.parametrize("transport", ["tcp", "ucx", pytest.param("nccl", marks=DOUBLED), "ipc"])
def test_every_chain_of_gpus_gives_the_bits_of_one(model, one_worker, transport):
    answer = run(model, "--workers", "2", "--cuts", "64", "--transport", transport)
    assert answer["transport"].removesuffix("-1.13") == transport and answer["compute"] == "cuda-bf16"
    assert answer["plan"]["cuts"] == [64]
    assert answer["token_ids"] == one_worker["token_ids"]
    assert answer["first_logits_sha256"] == one_worker["first_logits_sha256"]


@DOUBLED
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


def test_a_gpu_goes_on_as_the_processors_bf16_up_to_a_tie_and_twice_the_same(model, one_worker):
    again, cpu = (run(model, "--workers", "1", "--transport", "tcp", compute=compute) for compute in ("cuda", "bf16"))
    assert again["token_ids"] == one_worker["token_ids"]
    assert again["first_logits_sha256"] == one_worker["first_logits_sha256"]
    pairs = list(zip(one_worker["token_ids"], cpu["token_ids"]))
    apart = next((place for place, (ours, theirs) in enumerate(pairs) if ours != theirs), len(pairs) - 1)
    prompt = answer_of(model, "tokenize", input=PROMPT.encode())
    top = answer_of(model, "logits", "--compute", "bf16", "--top", "100", "--token-ids-file", "-",
                    input=json.dumps(prompt + cpu["token_ids"][:apart]).encode())["top"]
    ahead = {one["id"]: top[0]["logprob"] - one["logprob"] for one in top}
    assert ahead.get(one_worker["token_ids"][apart], 99) < TIE, f"token {apart} of the answer"


def test_bench_measures_a_gpu_without_shares_of_a_processor(model):
    [result] = answer_of(model, "bench", "prefill", "--compute", "cuda", "--tokens", "64", "--repetitions", "1")["results"]
    assert result["tokens"] == 64 and result["compute"] == "cuda-bf16" and result["device"].startswith("cuda ")
    assert 0 < result["seconds_min"] <= result["seconds"] <= result["seconds_max"]
    assert not {"threads", "isa", "peak_fraction"} & result.keys()
    titles, row, device = runahead("bench", "decode", "--compute", "cuda", "--context", "0", "--batch", "2", "--steps", "1",
                                   "--quiet", "--model", str(model), env=GPU).stdout.splitlines()
    assert titles.split() == ["context", "batch", "tokens/s", "(slowest..fastest)", "ms/step"]
    assert row.split()[:2] == ["0", "2"] and device.startswith("cuda ")
    assert "the CPU's kernels" in refused(2, "bench", "kernels", "--compute", "cuda", env=GPU)


@DOUBLED
def test_nccl_without_a_gpu_or_without_its_library_says_so(model, tmp_path):
    said = refused(2, "run", "--prompt", "x", "--model", str(model), "--compute", "fp32", "--transport", "nccl", env=GPU)
    assert "--compute cuda" in said
    missing = {**GPU, "RUNAHEAD_NCCL_LIBRARY": str(tmp_path / "libnccl.so.2")}
    said = refused(4, "run", "--prompt", "x", "--model", str(model), "--compute", "cuda", "--transport", "nccl", env=missing)
    assert "NCCL cannot be used" in said and "RUNAHEAD_NCCL_LIBRARY" in said


@DOUBLED
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
