"""Where the prompt of `runahead run` comes from, and what bytes from outside do: to JSON, to the terminal, to pipes."""

import json
import os
import pty
import select
import shutil
import signal
import subprocess
import threading
from pathlib import Path

import pytest

from cli import BINARY, NOT_BUILT, ROOT, children, lives, refused, runahead, wait_until

pytestmark = NOT_BUILT
SHORT = ["--workers", "1", "--max-tokens", "2"]
MODELS = Path(os.environ.get("RUNAHEAD_MODEL_DIR", Path.home() / ".cache/runahead/models"))


def answer(*arguments, **options):
    done = runahead("run", *SHORT, "-o", "json", *arguments, **options)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


@pytest.fixture(scope="module")
def hello():
    return answer("-p", "hi")


@pytest.mark.parametrize("mode", [[], ["--in-process"]], ids=" ".join)
def test_a_run_that_went_well_says_nothing_but_its_summary(mode):
    done = runahead("run", *SHORT, "-p", "hi", *mode)
    assert done.returncode == 0
    (summary,) = done.stderr.splitlines()
    assert summary.startswith("ttft ") and "measured" in summary and "predicted" in summary
    assert "x one worker" not in summary
    quiet = runahead("run", *SHORT, "-p", "hi", "-q", *mode)
    assert quiet.stdout == done.stdout and quiet.stderr == ""


def test_ctrl_c_of_a_run_in_one_process_is_said_and_is_130():
    process = subprocess.Popen([BINARY, "run", "--raw", "-p", "A long story:", "--max-tokens", "4000", "--in-process",
                                "-o", "json", "--compute", "int8"],  # in int16, where auto takes it, the story is short
                               stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
                               preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL))
    with pytest.raises(subprocess.TimeoutExpired):
        process.wait(timeout=3)
    process.send_signal(signal.SIGINT)
    output, errors = process.communicate(timeout=30)
    assert process.returncode == 130 and "interrupted" in errors
    assert json.loads(output)["error"]["code"] == "cancelled"


def test_a_run_in_one_process_ends_with_its_answer():
    """Its timers are as long as the drain of a service, 45 s: none of them holds it up."""
    for _ in range(6):
        assert runahead("run", *SHORT, "-p", "hi", "-q", "--in-process", timeout=30).returncode == 0


def test_standard_input_is_the_prompt_without_a_flag_and_with_a_dash(hello):
    for words in ([], ["-p", "-"]):
        assert answer(*words, input=b"hi\n")["token_ids"] == hello["token_ids"], words
    assert answer("--prompt-file", "-", input=b"hi")["token_ids"] == hello["token_ids"]
    assert answer("--raw", input=b"hi\n")["prompt_tokens"] == answer("--raw", "-p", "hi")["prompt_tokens"] + 1


def test_a_closed_standard_input_is_no_prompt():
    done = subprocess.run(["bash", "-c", f"{BINARY} run <&-"], capture_output=True, text=True, timeout=60)
    assert done.returncode == 2 and "--prompt" in done.stderr


def test_a_pipe_is_a_file(hello, tmp_path):
    fifo = tmp_path / "fifo"
    os.mkfifo(fifo)
    threading.Thread(target=lambda: fifo.write_bytes(b"hi"), daemon=True).start()
    assert answer("--prompt-file", str(fifo))["token_ids"] == hello["token_ids"]


def test_white_space_is_a_prompt(hello):
    assert answer("-p", " ")["prompt_tokens"] > 0


@pytest.mark.parametrize("words, code, says", [
    (["-p", ""], 2, "empty"),
    ([], 2, "empty"),
    (["-p", "-"], 2, "empty"),
    (["-p", "x", "--prompt-file", "y"], 2, "one of"),
    (["-p", b"caf\xe9"], 2, "byte 4 is 0xe9"),
    (["-p", b"a\xed\xa0\x80"], 2, "not UTF-8"),
    (["--prompt-file", "/nonexistent.txt"], 3, "/nonexistent.txt"),
    (["--prompt-file", b"/caf\xe9.txt"], 3, "No such file"),
    (["--prompt-file", "/"], 3, "directory"),
    (["--prompt-file", "/dev/zero"], 2, "16 MiB"),
    (["--token-ids-file", "/dev/null"], 2, "array of token ids"),
    (["--model", b"/caf\xe9.gguf", "-p", "x"], 3, "no model file"),
    (["--strategy", b"caf\xe9", "-p", "x"], 2, "strategy"),
], ids=str)
def test_an_input_that_cannot_be_a_prompt_is_one_sentence(words, code, says):
    assert says in refused(code, "run", *words)
    done = runahead("run", *words, "-o", "json")
    assert done.returncode == code
    assert says in json.loads(done.stdout)["error"]["message"]


def test_a_file_of_other_bytes_or_of_a_gigabyte_is_refused(tmp_path):
    latin = tmp_path / "latin1.txt"
    latin.write_bytes("ein Käse".encode("latin1"))
    assert "byte 6 is 0xe4" in refused(2, "run", "--prompt-file", str(latin))
    huge = tmp_path / "huge.txt"
    with open(huge, "wb") as file:
        file.truncate(1 << 30)
    assert "16 MiB" in refused(2, "run", "--prompt-file", str(huge))


@pytest.mark.parametrize("mode", [[], ["--in-process"]], ids=" ".join)
def test_a_model_path_that_is_not_utf8_runs(hello, tmp_path, mode):
    model = os.fsencode(tmp_path) + b"/caf\xe9.gguf"
    os.symlink(MODELS / "SmolLM2-135M-Instruct.Q4_1.gguf", model)
    assert answer("-p", "hi", "--model", model, *mode)["token_ids"] == hello["token_ids"]
    environment = {**os.environ, "RUNAHEAD_CACHE_DIR": os.fsdecode(os.fsencode(tmp_path) + b"/cach\xe9"),
                   "RUNAHEAD_MODEL_DIR": str(MODELS)}
    plan = runahead("plan", "--model", model, "--packed-cache", "off", "-o", "json", env=environment)
    assert "cach\ufffd" in json.loads(plan.stdout)["premises"]["speed"]


def test_a_reader_that_goes_ends_it_and_leaves_nobody(tmp_path):
    process = subprocess.Popen([BINARY, "run", "--workers", "1", "--raw", "-p", "Once upon a time", "--max-tokens", "4000"],
                               stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, stdin=subprocess.DEVNULL)
    assert process.stdout.read(4)
    pids = children(process.pid)
    assert len(pids) == 3
    process.stdout.close()
    process.wait(60)
    wait_until(lambda: not any(map(lives, pids)), what="the end of all children")


class Terminal:
    """stderr of a command as a terminal; what it wrote, when it has ended."""

    def __init__(self, *arguments, **environment):
        ours, theirs = pty.openpty()
        self.process = subprocess.Popen([BINARY, *arguments], stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                                        stderr=theirs, env={**os.environ, "TERM": "xterm", **environment})
        os.close(theirs)
        self.stdout, self.text = b"", b""
        open_ends = {ours, self.process.stdout.fileno()}
        while open_ends:
            for end in select.select(open_ends, [], [])[0]:
                try:
                    data = os.read(end, 4096)
                except OSError:  # a terminal whose other end has gone
                    data = b""
                if not data:
                    open_ends.discard(end)
                elif end == ours:
                    self.text += data
                else:
                    self.stdout += data
        os.close(ours)
        self.code = self.process.wait(60)


LONG = ["run", "--workers", "1", "--raw", "--max-tokens", "2", "--prompt-file", str(ROOT / "deploy/examples/handbook.txt")]


def test_on_a_terminal_a_bar_moves_and_is_gone_before_the_answer():
    seen = Terminal(*LONG)
    assert seen.code == 0
    bars = [frame for frame in seen.text.split(b"\r") if frame.startswith(b"prefill [")]
    shares = [int(frame.split(b"]")[1].split(b"%")[0]) for frame in bars]
    assert len(set(shares)) >= 3 and shares == sorted(shares), shares
    assert seen.text.rindex(b"\r\x1b[K") > seen.text.rindex(b"prefill [")
    assert b"\x1b" not in seen.stdout and b"prefill [" not in seen.stdout


def test_elsewhere_there_is_no_bar_and_with_quiet_nothing():
    dumb = Terminal(*LONG, TERM="dumb")
    assert b"\x1b" not in dumb.text and b"[" not in dumb.text.replace(b"[info", b"")
    assert Terminal(*LONG, "-q").text == b""


@pytest.mark.parametrize("environment, colours", [
    ({}, True), ({"NO_COLOR": "1"}, False), ({"CLICOLOR": "0"}, False), ({"TERM": "dumb"}, False), ({"NO_COLOR": ""}, True),
], ids=str)
def test_colours_are_for_terminals_that_want_them(environment, colours):
    seen = Terminal("plan", "--seconds-per-token", "1", "--seconds-per-pair", "1", RUNAHEAD_WORKRS="2", **environment)
    assert b"did you mean" in seen.text
    assert (b"\x1b[" in seen.text) == colours


@pytest.mark.parametrize("phase", [0, 1, 3], ids=["at once", "while it starts", "with all children"])
def test_ctrl_c_leaves_nobody(phase):
    process = subprocess.Popen([BINARY, "run", "--workers", "1", "--raw", "-p", "Once upon a time", "--max-tokens", "4000"],
                               stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, stdin=subprocess.DEVNULL, text=True,
                               preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL))  # a shell's `&` ignores it
    wait_until(lambda: process.poll() is not None or len(children(process.pid)) >= phase, what="the phase")
    pids = children(process.pid)
    process.send_signal(signal.SIGINT)
    _, errors = process.communicate(timeout=60)
    assert process.returncode in ((130, -signal.SIGINT) if phase == 0 else (130,)), errors
    wait_until(lambda: not any(map(lives, pids)), what="the end of all children")


def test_more_threads_than_cpus_are_warned_of():
    taskset = shutil.which("taskset")
    if taskset is None:
        pytest.skip("no taskset (util-linux)")
    done = subprocess.run([taskset, "-c", str(min(os.sched_getaffinity(0))), BINARY, "run", "-p", "hi", "--workers", "2",
                           "--max-tokens", "1"], capture_output=True, text=True, timeout=180, stdin=subprocess.DEVNULL)
    assert done.returncode == 0
    assert "2 prefill workers of 1 thread compute on 1 CPU" in done.stderr
