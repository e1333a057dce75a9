"""`runahead run` as a person would use it: real processes, its JSON, one clear sentence for bad input."""

import json
import os
import signal
import subprocess
import time
from pathlib import Path

import pytest

from cli import BINARY, NOT_BUILT, ROOT, children, runahead

HANDBOOK = ROOT / "deploy/examples/handbook.txt"
KEYS = {"text", "token_ids", "prompt_tokens", "ttft_seconds", "total_seconds", "stages", "workers", "plan",
        "first_logits_sha256", "compute", "transport", "finish_reason"}

pytestmark = NOT_BUILT


@pytest.fixture(scope="module")
def document(tmp_path_factory):
    """About 1,200 tokens of the example: long enough for three ranks, short enough for a test."""
    path = tmp_path_factory.mktemp("run") / "document.txt"
    path.write_text(HANDBOOK.read_text()[:5000])
    return path


def run_json(document, *arguments):
    done = runahead("run", "--raw", "--prompt-file", str(document), "--max-tokens", "8", "-o", "json", *arguments)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


@pytest.fixture(scope="module")
def one_worker(document):
    return run_json(document, "--workers", "1")


def test_the_json_object_has_what_others_rely_on(one_worker):
    assert KEYS <= set(one_worker)
    assert len(one_worker["token_ids"]) == 8
    assert len(one_worker["first_logits_sha256"]) == 64
    assert one_worker["compute"] in ("fp32", "bf16", "int16", "int8")
    total = sum(one_worker["stages"].values())
    assert total == pytest.approx(one_worker["ttft_seconds"], rel=0.01)


@pytest.mark.parametrize("arguments", [
    ("--workers", "2"),
    ("--workers", "3", "--strategy", "even"),
    ("--workers", "3", "--cuts", "64,704"),
    ("--workers", "2", "--strategy", "even", "--threads-per-worker", "2"),
    ("--workers", "2", "--strategy", "even", "--transport", "tcp"),
    ("--workers", "2", "--strategy", "even", "--transport", "ucx"),
    ("--workers", "2", "--strategy", "even", "--in-process"),
], ids=" ".join)
def test_every_way_through_the_chain_gives_the_same_bits(document, one_worker, arguments):
    answer = run_json(document, *arguments)
    assert answer["first_logits_sha256"] == one_worker["first_logits_sha256"]
    assert answer["token_ids"] == one_worker["token_ids"]
    assert answer["text"] == one_worker["text"]
    ends = [worker["end"] for worker in answer["workers"]]
    assert ends[-1] == answer["prompt_tokens"]
    assert [worker["begin"] for worker in answer["workers"]] == [0, *ends[:-1]]


def test_three_workers_are_three_prefill_processes(document):
    answer = run_json(document, "--workers", "3", "--strategy", "even")
    assert len(answer["workers"]) == 3


def test_ctrl_c_in_the_middle_of_a_prompt_ends_every_process_with_130(tmp_path):
    process = subprocess.Popen([BINARY, "run", "--prompt-file", str(HANDBOOK), "--workers", "2", "--max-tokens", "4000"],
                               stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    deadline = time.monotonic() + 30
    while len(children(process.pid)) < 4 and time.monotonic() < deadline:
        time.sleep(0.05)
    pids = children(process.pid)
    assert len(pids) == 4  # coordinator, two prefill workers, a decode worker
    time.sleep(2)
    process.send_signal(signal.SIGINT)
    _, errors = process.communicate(timeout=20)
    assert process.returncode == 130, errors
    assert "interrupted" in errors
    assert not [pid for pid in pids if Path(f"/proc/{pid}").exists()]


def test_a_prompt_over_the_context_is_refused_with_both_numbers(tmp_path):
    ids = tmp_path / "ids.json"
    ids.write_text(json.dumps([5] * 9000))
    done = runahead("run", "--token-ids-file", str(ids), "--workers", "1")
    assert done.returncode == 2
    assert "8192" in done.stderr and "9" in done.stderr


def test_a_truncated_model_is_refused(tmp_path):
    model = tmp_path / "broken.gguf"
    model.write_bytes(b"GGUF\x03\0\0\0" + b"\xff" * 64)
    done = runahead("run", "-p", "x", "--model", str(model))
    assert done.returncode == 3
    assert "broken.gguf" in done.stderr


def test_pages_of_8_bits_give_the_same_answer_over_every_chain():
    answers = [json.loads(runahead("run", "--raw", "-p", "word " * 300, "--max-tokens", "4", "--temperature", "0", "--compute",
                                   "int16+kv8", "--workers", str(workers), "-o", "json").stdout) for workers in (1, 2)]
    assert [answer["compute"] for answer in answers] == ["int16+kv8"] * 2
    assert len(answers[1]["plan"]["cuts"]) == 1 and answers[0]["plan"]["cuts"] == []
    assert answers[0]["first_logits_sha256"] == answers[1]["first_logits_sha256"]
    assert answers[0]["text"] == answers[1]["text"]


def test_tokenize_and_logits_print_data_only(tmp_path):
    text = tmp_path / "text.txt"
    text.write_text("Hello world")
    ids = json.loads(runahead("tokenize", "--file", str(text), "-o", "json").stdout)
    assert ids == [19556, 905]
    path = tmp_path / "ids.json"
    path.write_text(json.dumps(ids))
    done = runahead("logits", "--token-ids-file", str(path), "--compute", "fp32", "--top", "3", "-o", "json")
    top = json.loads(done.stdout)["top"]
    assert len(top) == 3
    assert top[0]["logprob"] >= top[1]["logprob"] >= top[2]["logprob"]


def test_the_plan_balances_the_ranks():
    plan = json.loads(runahead("plan", "--tokens", "8192", "--workers", "4", "--strategy", "balanced", "-o", "json",
                               "--seconds-per-token", "0.001", "--seconds-per-pair", "1e-7").stdout)
    chunks = [rank["end"] - rank["begin"] for rank in plan["ranks"]]
    assert sum(chunks) == 8192 and chunks == sorted(chunks, reverse=True)
    assert plan["predicted_ttft_seconds"] < plan["predicted_single_ttft_seconds"] / 3


def kernel_lines(cache):
    done = runahead("doctor", "-o", "json", env={**os.environ, "RUNAHEAD_CACHE_DIR": str(cache)})
    return [finding["detail"] for finding in json.loads(done.stdout)["findings"] if finding["what"] == "kernels"]


def test_kernel_timings_are_taken_from_the_cache_folder_and_measured_anew_if_they_are_of_another_build(tmp_path):
    file = tmp_path / "kernel-timings.json"
    assert str(file) in kernel_lines(tmp_path)[-1]
    kept = json.loads(file.read_text())
    kept["tables"][0]["dot_giga_ops_per_second"] = 12345.0  # no machine measures this
    file.write_text(json.dumps(kept))
    assert any("12345" in line for line in kernel_lines(tmp_path))
    file.write_text(json.dumps({**kept, "machine": "another build"}))
    assert not any("12345" in line for line in kernel_lines(tmp_path))
    assert json.loads(file.read_text())["machine"] == kept["machine"]
