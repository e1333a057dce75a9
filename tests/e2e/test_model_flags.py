"""`--chat-template` and `--override-kv`, and what is said of files that are no models: real processes, the default model."""

import json
import os
import signal
import subprocess
import threading
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
BINARY = os.environ.get("RUNAHEAD_BINARY", str(ROOT / "build/release/runahead"))
BROKEN = "tokenizer.chat_template=str:{{ a }}\n{% if %}"
START_SECONDS_MAX = 120

pytestmark = pytest.mark.skipif(not Path(BINARY).exists(), reason=f"{BINARY} is not built")


def runahead(*arguments, **options):
    return subprocess.run([BINARY, *arguments], capture_output=True, text=True, timeout=180, **options)


def answer_of(*arguments):
    done = runahead("run", "-w", "1", "--max-tokens", "4", "-o", "json", *arguments)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def test_a_template_of_ones_own_makes_the_prompt(tmp_path):
    path = tmp_path / "own.jinja"
    path.write_bytes(b"\xef\xbb\xbfQ: {{ messages[0].content }}\r\nA:\r\n")
    templated = answer_of("-p", "Two and two?", "--chat-template", str(path))
    raw = answer_of("-p", "Q: Two and two?\nA:", "--raw")
    assert templated["token_ids"] == raw["token_ids"]
    assert templated["first_logits_sha256"] == raw["first_logits_sha256"]
    assert templated["prompt_tokens"] == raw["prompt_tokens"]


def test_begin_of_text_is_added_to_a_chat_and_counted(tmp_path):
    path = tmp_path / "own.jinja"
    path.write_text("{{ messages[0].content }}")
    with_bos = ("--override-kv", "tokenizer.ggml.add_bos_token=bool:true")
    plain = answer_of("-p", "hi", "--chat-template", str(path))
    chat = answer_of("-p", "hi", "--chat-template", str(path), *with_bos)
    raw = answer_of("-p", "hi", "--raw", *with_bos)
    assert chat["prompt_tokens"] == plain["prompt_tokens"] + 1
    assert chat["first_logits_sha256"] == raw["first_logits_sha256"] != plain["first_logits_sha256"]


def test_a_broken_template_stops_chats_and_nothing_else():
    refused = runahead("run", "-p", "hi", "--override-kv", BROKEN)
    assert refused.returncode not in (0, 134)
    assert "line 2 of the chat template" in refused.stderr
    assert "--raw" in refused.stderr and "--chat-template" in refused.stderr
    assert answer_of("-p", "hi", "--raw", "--in-process", "--override-kv", BROKEN)["token_ids"]


@pytest.mark.parametrize("content,words", [
    ("{{ a }}\n\n{% for %}", ["line 3", "own.jinja"]),
    ("", ["is empty"]),
])
def test_a_wrong_template_file_is_refused_before_anything_starts(tmp_path, content, words):
    path = tmp_path / "own.jinja"
    path.write_text(content)
    for command in (("run", "-p", "hi"), ("serve", "--http", "127.0.0.1:0")):
        done = runahead(*command, "--chat-template", str(path))
        assert done.returncode not in (0, 134)
        assert "--chat-template" in done.stderr
        assert all(word in done.stderr for word in words), done.stderr


@pytest.mark.parametrize("value,words", [
    ("a", "write KEY=TYPE:VALUE"),
    ("llama.block_count=str:x", "write llama.block_count=int:VALUE"),
    ("tokenizer.ggml.tokens=str:x", "lists cannot be overridden"),
    ("llama.block_count=int:two", "no whole number"),
])
def test_a_wrong_override_is_one_sentence(value, words):
    for command in (("run", "-p", "hi"), ("tokenize", "-f", "-"), ("logits", "--token-ids-file", "-")):
        done = runahead(*command, "--override-kv", value, input="[1]")
        assert done.returncode not in (0, 134)
        assert words in done.stderr, done.stderr


def test_overrides_come_from_the_environment_and_a_file_too(tmp_path):
    def ids(*arguments, **options):
        return json.loads(runahead("tokenize", "-o", "json", *arguments, input="a.\n\nB", **options).stdout)

    config = tmp_path / "config.yaml"
    config.write_text("override-kv: [tokenizer.ggml.pre=str:qwen2]\n")
    qwen2 = ids("--override-kv", "tokenizer.ggml.pre=str:qwen2")  # keeps the two line ends together
    assert len(qwen2) == len(ids()) - 1
    assert ids("--config", str(config)) == qwen2
    both = "tokenizer.ggml.add_bos_token=bool:true,tokenizer.ggml.pre=str:qwen2"
    assert ids(env={**os.environ, "RUNAHEAD_OVERRIDE_KV": both}) == qwen2


def test_a_worker_with_other_overrides_is_refused():
    """The served cluster has one override; a worker without it may not join, one with it may."""
    override = ("--override-kv", "llama.rope.freq_base=float:100001")
    command = [BINARY, "serve", "-w", "1", "--compute", "int8", "--http", "127.0.0.1:0", "-o", "json", *override]
    served = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    try:
        assert "http" in json.loads(served.stdout.readline())
        children = Path(f"/proc/{served.pid}/task/{served.pid}/children").read_text().split()
        lines = [Path(f"/proc/{child}/cmdline").read_bytes().split(b"\0") for child in children]
        assert len(lines) == 3
        for line in lines:
            assert override[1].encode() in line
        worker = next(line for line in lines if line[1] == b"prefill")
        control = worker[worker.index(b"--coordinator") + 1].decode()
        stranger = subprocess.Popen([BINARY, "prefill", "--compute", "int8", "--coordinator", control], text=True,
                                    stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
        stop = threading.Timer(START_SECONDS_MAX, stranger.kill)  # then its output ends, and the test fails
        stop.start()
        said = ""
        while "this cluster" not in said and "another model" not in said:
            line = stranger.stderr.readline()
            assert line, said
            said += line
        stop.cancel()
        stranger.kill()
        stranger.communicate()
    finally:
        served.send_signal(signal.SIGTERM)
        served.wait(START_SECONDS_MAX)


@pytest.mark.parametrize("name,words", [
    ("folder", "is a folder without a model"),
    ("m.gguf.part", "is an unfinished download"),
    ("empty.gguf", "is empty (0 bytes)"),
    ("missing/model", "a repository of Hugging Face"),
])
def test_what_is_no_model_file_is_called_so(tmp_path, name, words):
    (tmp_path / "folder").mkdir()
    (tmp_path / "m.gguf.part").write_bytes(b"GGUF")
    (tmp_path / "empty.gguf").touch()
    for command in (("run", "-p", "hi"), ("tokenize", "-f", "-")):
        done = runahead(*command, "--model", name, input="x", cwd=tmp_path)
        assert done.returncode not in (0, 134)
        assert words in done.stderr and "convert the model again" not in done.stderr
