"""A coordinator's memory is a number that it prints at its start. Here everything that can be large comes at once: the largest
bodies and texts, answers that nobody reads, streams that nobody reads, half a body on hundreds of connections; its memory
stays below the number, also where a cgroup allows less than it would like, and it answers all the while."""

import contextlib
import json
import os
import re
import resource
import socket
import subprocess
import threading
import time

import pytest

from cli import NOT_BUILT, refused, wait_until
from conftest import STOP_SECONDS_MAX, binary, eventually
from own_cache import cache_of_its_own
from test_coordinator_http import ask, ids_body
from test_machine import cgroup

pytestmark = NOT_BUILT
MIB = 1 << 20
LONG_TOKEN = 46778  # of SmolLM2: some 90 bytes of text, which answers have twice
UNREAD_ANSWERS, HALF_BODIES, UNREAD_STREAMS = 250, 250, 24
FLOOD_SECONDS = 20


def start(folder, role, words, *flags):
    reading, writing = os.pipe()
    with open(folder / f"{role}.log", "wb") as log:
        process = subprocess.Popen([*words, binary(), role, "--announce-fd", str(writing), *flags], pass_fds=[writing],
                                   stderr=log, env={**os.environ, "RUNAHEAD_CACHE_DIR": cache_of_its_own()})
    os.close(writing)
    with os.fdopen(reading) as announced:
        said = json.loads(announced.readline())
    if said["event"] == "error":
        process.wait(STOP_SECONDS_MAX)
        pytest.skip(said["message"])  # no model here; deploy/setup.sh fetches it
    return process, said


def stop(process):
    process.terminate()
    try:
        process.wait(STOP_SECONDS_MAX)
    finally:
        process.kill()
    return process.returncode


def mib(text):
    number, unit = text.split()
    return float(number) * {"MiB": 1, "GiB": 1024}[unit]


def bound_of(log):
    """What the process said that it may come to, in MiB: in all, and by part."""
    said = re.search(r"memory: at most (\S+ .iB): (.*?); ", log.read_text())
    assert said, log.read_text()
    return mib(said[1]), {name: mib(size) for name, size in (part.split(" ", 1) for part in said[2].split(", "))}


def status_mib(pid, key):
    with open(f"/proc/{pid}/status", encoding="ascii") as status:
        return next(int(line.split()[1]) for line in status if line.startswith(key)) / 1024


def connect(address):
    """A client that reads nothing, and for which the kernel keeps little."""
    connection = socket.socket()
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    connection.settimeout(10)
    connection.connect((address.rsplit(":", 1)[0], int(address.rsplit(":", 1)[1])))
    return connection


def send(connection, path, body, length=None):
    head = f"POST {path} HTTP/1.1\r\nHost: localhost\r\nContent-Length: {length or len(body)}\r\n\r\n"
    with contextlib.suppress(OSError):  # the service has let it go
        connection.sendall(head.encode() + body)


def flood(address, ended):
    """Threads that go on until `ended`, and connections to be kept open meanwhile."""
    kept = []

    def unread(path, body, count, length=None):
        for _ in range(count):
            with contextlib.suppress(OSError):
                connection = connect(address)
                kept.append(connection)
                send(connection, path, body, length)

    def again(path, body):
        while not ended.is_set():
            with contextlib.suppress(OSError):
                ask(address, "POST", path, body)

    answer = json.dumps({"tokens": [LONG_TOKEN] * 10_000}, separators=(",", ":")).encode()
    stream = json.dumps({"prompt": "The heron", "max_tokens": 2000, "stream": True, "logprobs": 5, "ignore_eos": True}).encode()
    words = json.dumps({"messages": [{"role": "user", "content": "a " * 1900}] * 4096}).encode()
    jobs = [(unread, "/v1/completions", stream, UNREAD_STREAMS), (unread, "/detokenize", answer, UNREAD_ANSWERS),
            (unread, "/tokenize", b'{"prompt":"' + b"7" * 60_000, HALF_BODIES, 65_000)]
    digits = b'{"prompt":"' + b"7" * (4 * MIB) + b'"}'
    jobs += [(again, "/detokenize", ids_body(b"40000"))] * 6 + [(again, "/tokenize", digits)] * 3
    jobs += [(again, "/apply-template", words), (again, "/v1/completions", ids_body(b"1"))]
    threads = [threading.Thread(target=job[0], args=job[1:]) for job in jobs]
    for thread in threads:
        thread.start()
    return threads, kept


@pytest.mark.parametrize("limit_mib", [None, 600])
def test_a_flood_of_everything_stays_below_the_number(tmp_path, limit_mib):
    with contextlib.ExitStack() as stack:
        words = stack.enter_context(cgroup("memory", limit_in_bytes=limit_mib * MIB)) if limit_mib else []
        process, at = start(tmp_path, "coordinator", words, "--http", "127.0.0.1:0", "--listen", "127.0.0.1:0", "--admin",
                            "127.0.0.1:0")
        stack.callback(process.kill)
        for role in ("prefill", "decode"):
            worker, _ = start(tmp_path, role, [], "--coordinator", at["control"], "--threads", "1", "--transport", "tcp",
                              "--kv-memory-mib", "64")
            stack.callback(stop, worker)
        eventually(lambda: ask(at["http"], "GET", "/readyz")[0] == 200, 60, "/readyz")
        total, parts = bound_of(tmp_path / "coordinator.log")
        assert limit_mib is None or total <= limit_mib
        metrics = ask(at["admin"], "GET", "/metrics")[1].decode()
        exported = {name: float(value) / MIB for name, value in
                    re.findall(r'runahead_memory_bound_bytes{part="(\w+)"} (\S+)', metrics)}
        assert exported.keys() == parts.keys() and abs(sum(exported.values()) - total) <= 60, (exported, total)

        ended = threading.Event()
        threads, kept = flood(at["http"], ended)
        try:
            end, late = time.monotonic() + FLOOD_SECONDS, 0.0
            while time.monotonic() < end:
                began = time.monotonic()
                assert ask(at["admin"], "GET", "/livez")[0] == 200
                late = max(late, time.monotonic() - began)
                time.sleep(0.1)
        finally:
            ended.set()
            for connection in kept:
                connection.close()
            for thread in threads:
                thread.join(120)
        peak = status_mib(process.pid, "VmHWM")
        print(f"at most {total:.0f} MiB said, {peak:.0f} MiB at the peak of {len(kept)} connections, /livez {late:.2f} s late")
        assert peak < total
        wait_until(lambda: ask(at["http"], "POST", "/tokenize", b'{"prompt":"Hello"}')[0] == 200, 30, "an answer after the flood")
        assert stop(process) == 0


def test_where_nothing_fits_it_says_what_would(tmp_path):
    with cgroup("memory", limit_in_bytes=256 * MIB) as words:
        done = subprocess.run([*words, binary(), "coordinator", "--http", "127.0.0.1:0", "--listen", "127.0.0.1:0"],
                              capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 3, done.stderr
    said = [line for line in done.stderr.splitlines() if line.startswith("runahead: ")]
    assert len(said) == 1 and "allows 256 MiB" in said[0] and "raise it to" in said[0], done.stderr


def test_a_limit_of_the_process_counts_as_the_machines_does():
    def bounded():
        resource.setrlimit(resource.RLIMIT_DATA, (400 * MIB, 400 * MIB))

    said = refused(3, "coordinator", "--http", "127.0.0.1:0", "--listen", "127.0.0.1:0", preexec_fn=bounded)
    assert "RLIMIT_DATA allows" in said and "may need" in said


def test_a_pool_that_does_not_fit_beside_the_weights_is_refused_with_one_that_does():
    def decode(words, kv_mib):
        return subprocess.run([*words, binary(), "decode", "--coordinator", "127.0.0.1:1", "--threads", "1", "--kv-memory-mib",
                               str(kv_mib)], capture_output=True, text=True, timeout=30, check=False)

    with cgroup("memory", limit_in_bytes=600 * MIB) as words:
        done = decode(words, 560)
        assert done.returncode == 3, done.stderr
        fits = re.search(r"--kv-memory-mib (\d+) would fit", done.stderr)
        assert fits and 200 < int(fits[1]) < 560, done.stderr
        with pytest.raises(subprocess.TimeoutExpired) as waiting:  # for its coordinator: it has begun
            decode(words, int(fits[1]) - 16)
        assert "memory: at most" in str(waiting.value.stderr)
