"""The command line for tests: run it, read its help, and what every answer to bad input must look like."""

import functools
import json
import os
import re
import subprocess
import time
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
BINARY = os.environ.get("RUNAHEAD_BINARY", str(ROOT / "build/release/runahead"))
COMMANDS = ["run", "serve", "coordinator", "prefill", "decode", "tokenize", "logits", "perplexity", "plan", "doctor",
            "bench", "status", "submit", "wait", "jobs", "cancel", "logs", "top", "trace", "certs", "config",
            "completion", "man"]
NO_MODEL = COMMANDS[11:]  # they ask a cluster that runs, or describe the command line
NOT_BUILT = pytest.mark.skipif(not Path(BINARY).exists(), reason=f"{BINARY} is not built")
NO_TERMINATE = ("terminate called", "what():", "RUNAHEAD_CHECK", "core dumped")


def runahead(*arguments, timeout=180, **options):
    options.setdefault("stdin", subprocess.DEVNULL)
    if "input" in options:
        options.pop("stdin")
    done = subprocess.run([os.fsencode(BINARY), *map(os.fsencode, arguments)], capture_output=True, timeout=timeout,
                          **options)
    done.stdout, done.stderr = done.stdout.decode(errors="replace"), done.stderr.decode(errors="replace")
    assert not any(words in done.stderr for words in NO_TERMINATE), done.stderr
    assert done.returncode >= 0, f"ended by signal {-done.returncode}: {done.stderr}"
    return done


@functools.cache
def help_of(command):
    done = runahead(command, "--help")
    assert done.returncode == 0
    return done.stdout


def flags_of(command):
    return set(re.findall(r"--[a-z][a-z-]*", help_of(command)))


def refused(code, *arguments, **options):
    """Bad input: the exit code, nothing on stdout, one sentence on stderr that names only flags which the command has."""
    done = runahead(*arguments, **options)
    assert done.returncode == code, done.stderr
    assert done.stdout == ""
    said = [line for line in done.stderr.splitlines() if line.startswith("runahead: ")]
    assert len(said) == 1, f"one sentence, once: {done.stderr}"
    if arguments and arguments[0] in COMMANDS:
        given = {word.split("=")[0] for word in arguments if isinstance(word, str)}
        named = set(re.findall(r"(?<![\w-])--[a-z][a-z-]+", said[0])) - {"--help"} - given
        assert named <= flags_of(arguments[0]), said[0]
    return said[0]


def children(pid):
    return [int(word) for word in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


def lives(pid):
    """Runs: a process that ended and waits for its new parent to notice does not."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] not in "ZX"
    except FileNotFoundError:
        return False


def wait_until(condition, seconds=60, what="the condition"):
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        if condition():
            return
        time.sleep(0.02)
    pytest.fail(f"{what} did not come true within {seconds} s")


class Serve:
    """`runahead serve` as a child: its address when it is ready, its log as lines, its children."""

    def __init__(self, log, *flags, workers=1, listen="127.0.0.1:0", **options):
        self.log_path = Path(log)
        command = [BINARY, "serve", "--http", listen, "--workers", str(workers), "-o", "json", *flags]
        with open(log, "wb") as stderr:
            self.process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=stderr, text=True, **options)
        line = self.process.stdout.readline()
        assert line, f"ended with {self.process.wait()} before it was ready: {self.log()}"
        self.address = json.loads(line)["http"]
        self.children = children(self.process.pid)

    def log(self):
        return self.log_path.read_text()

    def child(self, role, index=0):
        found = [pid for pid in children(self.process.pid)
                 if role.encode() in Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")[:2]]
        return found[index]

    def __enter__(self):
        return self

    def __exit__(self, *_):
        if self.process.poll() is None:
            self.process.terminate()
            try:
                self.process.wait(60)
            finally:
                self.process.kill()
        self.process.stdout.close()
