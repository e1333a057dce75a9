"""runahead top through a pseudo-terminal: what it draws, how it ends, and that the terminal is as it was; logs and wait."""

import fcntl
import json
import os
import pty
import re
import select
import signal
import struct
import subprocess
import termios
import time

import pytest

from cli import BINARY, NOT_BUILT, Serve, refused, runahead, wait_until

pytestmark = NOT_BUILT


class TopOnTerminal:
    def __init__(self, url, *flags, columns=100, rows=30, **variables):
        self.master, slave = pty.openpty()
        self.slave = slave
        self.resize(columns, rows)
        self.before = termios.tcgetattr(slave)
        environment = {**os.environ, "TERM": "xterm", **variables}
        self.process = subprocess.Popen([BINARY, "top", "--url", url, "--interval", "0.2", *flags], stdin=slave, stdout=slave,
                                        stderr=slave, env=environment, start_new_session=True)
        self.text = ""

    def resize(self, columns, rows):
        fcntl.ioctl(self.slave, termios.TIOCSWINSZ, struct.pack("HHHH", rows, columns, 0, 0))

    def read(self, seconds=0.05):
        while select.select([self.master], [], [], seconds)[0]:
            self.text += os.read(self.master, 1 << 16).decode(errors="replace")

    def wait_for(self, condition, what):
        wait_until(lambda: self.read() or condition(self.frames()), 20, what)

    def frames(self):
        return [frame for frame in self.text.split("\033[H")[1:] if "\033[J" in frame]

    def lines(self):
        return [re.sub(r"\033\[[?\d;]*[a-zA-Z]", "", line).rstrip("\r") for line in self.frames()[-1].splitlines()]

    def end(self):
        wait_until(lambda: self.read() or self.process.poll() is not None, 10, "the end of top")  # a full terminal holds it up
        code = self.process.wait()
        self.read()
        after = termios.tcgetattr(self.slave)
        os.close(self.master)
        os.close(self.slave)
        assert after == self.before, "the terminal is not as it was"
        tail = self.text.rsplit("\033[J", 1)[1]
        assert "\033[?25h" in tail and "\033[?1049l" in tail
        return code


def ask_once(service):
    answer = service.post("/v1/completions", {"model": "default", "prompt": "The keeper counts " * 60, "max_tokens": 3})
    assert answer.status == 200


def test_a_terminal_sees_workers_requests_and_stages_and_gets_its_screen_back(service):
    ask_once(service)
    top = TopOnTerminal(service.address)
    top.wait_for(lambda frames: len(frames) >= 3, "three looks")
    text = "\n".join(top.lines())
    assert text.count("prefill ") >= 2 and "decode" in text and "succeeded" in text
    assert "by stage" in text and "prefill_compute" in text and "\033[32m" in top.text
    assert all(len(line) <= 100 for line in top.lines())
    os.write(top.master, b"q")
    assert top.end() == 0


def test_it_follows_the_size_and_ends_at_an_interrupt(service):
    top = TopOnTerminal(service.address, NO_COLOR="1", columns=120)
    top.wait_for(bool, "a look")
    top.resize(50, 12)
    os.kill(top.process.pid, signal.SIGWINCH)
    top.wait_for(lambda frames: len(top.lines()) <= 12 and all(len(line) <= 50 for line in top.lines()), "the size")
    assert not re.search(r"\033\[\d+m", top.text)
    os.kill(top.process.pid, signal.SIGINT)
    assert top.end() == 130


def test_elsewhere_it_prints_one_look(service):
    for words in (["top"], ["top", "--once"]):
        done = runahead(*words, "--url", service.address)
        assert done.returncode == 0 and "\033" not in done.stdout and "WORKER" in done.stdout
    look = json.loads(runahead("top", "--url", service.address, "-o", "json").stdout)
    assert len(look["cluster"]["workers"]) == 3 and isinstance(look["requests"], list)
    assert refused(4, "top", "--url", "127.0.0.1:1")


@pytest.fixture(scope="module")
def own(tmp_path_factory):
    """A service with one worker whose coordinator may be killed: it comes back on the same ports with its jobs."""
    folder = tmp_path_factory.mktemp("own")
    with Serve(folder / "log", "--job-store", str(folder / "jobs.sqlite")) as serve:
        yield serve


def test_logs_and_top_go_on_over_a_coordinator_that_is_killed(own):
    top = TopOnTerminal(own.address)
    top.wait_for(bool, "a look")
    words = ["submit", "--url", own.address, "--raw", "-p", "Once upon a time", "--max-tokens", "1500", "--temperature", "0"]
    job = runahead(*words).stdout.strip()
    with subprocess.Popen([BINARY, "logs", job, "-f", "--url", own.address, "-o", "json"], stdout=subprocess.PIPE,
                          stderr=subprocess.PIPE, text=True) as follower:
        first = json.loads(follower.stdout.readline())
        while first["event"] != "tokens":
            first = json.loads(follower.stdout.readline())
        os.kill(own.child("coordinator"), signal.SIGKILL)
        top.wait_for(lambda frames: "no answer; this is of" in frames[-1], "the coordinator's absence on the screen")
        top.wait_for(lambda frames: "no answer" not in frames[-1], "the coordinator's return on the screen")
        rest, error = follower.communicate(timeout=60)
        assert follower.returncode == 0, error
    events = [first, *map(json.loads, rest.splitlines())]
    tokens = [event for event in events if event["event"] == "tokens"]
    place = 0
    for event in tokens:  # each token once, without a gap
        assert event["data"]["first_index"] == place
        place += len(event["data"]["tokens"])
        assert event["id"] == str(place)
    result = events[-1]["data"]
    assert events[-1]["event"] == "finished" and result["status"] == "succeeded"
    text = "".join(event["data"]["text"] for event in tokens)
    assert text and result["result"]["choices"][0]["text"].startswith(text)
    os.write(top.master, b"q")
    assert top.end() == 0
    assert runahead("logs", job, "--url", own.address).stdout == text + "\n"
    assert runahead("wait", job, "--url", own.address).stdout == result["result"]["choices"][0]["text"] + "\n"


def test_a_wait_that_is_too_short_and_one_that_is_interrupted(own):
    words = ["submit", "--url", own.address, "--raw", "-p", "Once upon a time", "--max-tokens", "4000", "--temperature", "0"]
    job = runahead(*words).stdout.strip()
    assert "runahead wait" in refused(124, "wait", job, "--timeout", "0.3", "--url", own.address)
    for command in (["wait", job], ["logs", job, "-f"]):
        with subprocess.Popen([BINARY, *command, "--url", own.address], stdout=subprocess.DEVNULL,
                              stderr=subprocess.DEVNULL) as process:
            time.sleep(0.5)
            process.send_signal(signal.SIGINT)
            assert process.wait(10) == 130, command
    assert runahead("cancel", job, "--url", own.address).returncode == 0
    assert refused(3, "logs", "job-that-is-not-there", "--url", own.address)
    assert refused(4, "logs", job, "--url", "127.0.0.1:1")
