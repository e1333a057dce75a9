"""A real coordinator's HTTP: under the largest bodies its memory stays bounded and everybody else is served; its flags."""

import concurrent.futures
import http.client
import json
import os
import signal
import subprocess
import threading
import time

import pytest

from conftest import STOP_SECONDS_MAX, binary, eventually, start_service

BODIES = 15
MEMORY_MIB_MAX = 512  # the chart's limit
BODY_BYTES = 16 << 20


def ids_body(entry):
    head, tail = b'{"tokens":[' + entry, b"]}"
    count = (BODY_BYTES - len(head) - len(tail)) // (len(entry) + 1)
    return head + (b"," + entry) * count + tail


@pytest.fixture(scope="module")
def log_path(tmp_path_factory):
    return tmp_path_factory.mktemp("coordinator") / "log"


@pytest.fixture(scope="module")
def coordinator(log_path):
    """(addresses, process) of a coordinator without workers: text needs none."""
    if not binary().exists():
        pytest.skip(f"{binary()} is not built")
    reading, writing = os.pipe()
    with open(log_path, "wb") as log:
        process = subprocess.Popen(
            [binary(), "coordinator", "--http", "127.0.0.1:0", "--listen", "127.0.0.1:0", "--admin", "127.0.0.1:0",
             "--cors-origin", "https://a.example,https://b.example", "--announce-fd", str(writing)],
            env={**os.environ, "RUNAHEAD_HTTP_IDLE_TIMEOUT": "1"}, pass_fds=[writing], stderr=log)
    os.close(writing)
    with os.fdopen(reading) as announced:
        addresses = json.loads(announced.readline())
    if addresses["event"] == "error":
        pytest.skip(addresses["message"])  # no model here; deploy/setup.sh fetches it
    yield addresses, process
    process.send_signal(signal.SIGTERM)
    assert process.wait(STOP_SECONDS_MAX) == 0


def ask(address, method, path, body=None):
    connection = http.client.HTTPConnection(address, timeout=300)
    try:
        connection.request(method, path, body=body, headers={"Content-Type": "application/json"} if body else {})
        response = connection.getresponse()
        return response.status, response.read()
    except (BrokenPipeError, ConnectionResetError):  # refused before the whole body was taken
        return None, b""
    finally:
        connection.close()


def peak_mib(pid):
    with open(f"/proc/{pid}/status", encoding="ascii") as status:
        return next(int(line.split()[1]) for line in status if line.startswith("VmHWM")) / 1024


@pytest.mark.parametrize("entry, statuses", [(b"40000", {200, 429, None}), (b"1", {413, 429, None}),
                                             (b"{}", {413, 429, None})])
def test_bodies_of_token_ids_stay_within_the_memory(coordinator, entry, statuses):
    addresses, process = coordinator
    body = ids_body(entry)
    with concurrent.futures.ThreadPoolExecutor(BODIES) as pool:
        large = [pool.submit(ask, addresses["http"], "POST", "/detokenize", body) for _ in range(BODIES)]
        beside = 0
        while not all(future.done() for future in large):
            assert ask(addresses["admin"], "GET", "/livez")[0] == 200
            status, answer = ask(addresses["http"], "POST", "/tokenize", b'{"prompt":"Hello"}')
            assert status == 200 and json.loads(answer)["count"] == 1
            beside += 1
        found = {future.result()[0] for future in large}
    assert beside > 0
    assert found <= statuses and found & {200, 413}, found
    peak = peak_mib(process.pid)
    print(f"{entry}: {found}, peak {peak:.0f} MiB, {beside} small requests beside")
    assert peak < MEMORY_MIB_MAX


@pytest.mark.parametrize("letter", [b"a", b"7", b" "])  # one word, as many words, one gap
def test_the_longest_text_stays_within_the_memory(coordinator, letter):
    addresses, process = coordinator
    status, answer = ask(addresses["http"], "POST", "/tokenize", b'{"prompt":"' + letter * (4 << 20) + b'"}')
    assert status == 200 and json.loads(answer)["count"] > 0
    assert ask(addresses["http"], "POST", "/tokenize", b'{"prompt":"' + letter * (5 << 20) + b'"}')[0] == 413
    assert peak_mib(process.pid) < MEMORY_MIB_MAX


WORDS = "a word and another one, "
LARGEST = {
    "text": ("/v1/completions", lambda: {"prompt": WORDS * (BODY_BYTES // len(WORDS) - 10)}),
    "ids": ("/v1/completions", lambda: {"prompt": [1234] * (BODY_BYTES // 7)}),
    "keys": ("/v1/completions", lambda: {f"k{i}": i for i in range(700_000)}),
    "messages": ("/v1/chat/completions", lambda: {"messages": [{"role": "user", "content": WORDS * 140}] * 4096}),
    "parts": ("/v1/chat/completions",
              lambda: {"messages": [{"role": "user", "content": [{"type": "text", "text": "a"}] * 100_000}]}),
    "schema": ("/v1/chat/completions",
               lambda: {"messages": [{"role": "user", "content": "a"}], "response_format": {
                   "type": "json_schema", "json_schema": {"name": "a", "schema": {
                       "type": "object", "properties": {f"p{i}": {"type": "string"} for i in range(200_000)}}}}}),
    "tool": ("/v1/chat/completions",
             lambda: {"messages": [{"role": "user", "content": "a"}], "tools": [{"type": "function", "function": {
                 "name": "a", "parameters": {"type": "object", "properties": {
                     f"p{i}": {"type": "string"} for i in range(200_000)}}}}]}),
    "arguments": ("/v1/chat/completions",
                  lambda: {"messages": [{"role": "user", "content": "a"}, {"role": "assistant", "tool_calls": [
                      {"id": "a", "type": "function", "function": {
                          "name": "a", "arguments": json.dumps({f"p{i}": i for i in range(200_000)})}}]},
                      {"role": "tool", "tool_call_id": "a", "content": "b"}]}),
    "input": ("/v1/responses", lambda: {"input": WORDS * (BODY_BYTES // len(WORDS) - 10)}),
}


# By how much it is late on a quiet machine: docs/reliability.md. Here others compute beside it.
@pytest.mark.parametrize("kind", LARGEST)
def test_the_largest_bodies_hold_up_nobody(coordinator, kind):
    addresses, _ = coordinator
    path, body = LARGEST[kind]
    data = json.dumps({"max_tokens": 1} | body()).encode()
    assert len(data) <= BODY_BYTES
    late, ended = [0.0], threading.Event()

    def ping():
        while not ended.is_set():
            began = time.monotonic()
            assert ask(addresses["http"], "GET", "/livez")[0] == 200
            late.append(time.monotonic() - began)

    with concurrent.futures.ThreadPoolExecutor(1) as pool:
        pinging = pool.submit(ping)
        began = time.monotonic()
        try:
            status, _ = ask(addresses["http"], "POST", path, data)
        finally:
            took = time.monotonic() - began
            ended.set()
        pinging.result()
    print(f"{kind}: {len(data) >> 10} KiB, {status} after {took:.2f} s, /livez at most {max(late) * 1000:.0f} ms late")
    assert status in (400, 413, 429, 503)
    assert took < 15, "in linear time"
    assert max(late) < 1


def test_probes_and_metrics_have_a_listener_without_a_key(coordinator):
    addresses, _ = coordinator
    assert ask(addresses["admin"], "GET", "/livez") == (200, b'{"status":"ok"}')
    status, reasons = ask(addresses["admin"], "GET", "/readyz")
    assert status == 503 and "no prefill worker is ready" in json.loads(reasons)["reasons"]
    status, metrics = ask(addresses["admin"], "GET", "/metrics")
    assert status == 200 and b"runahead_build_info" in metrics
    assert ask(addresses["admin"], "GET", "/v1/models")[0] == 404


def test_flags_reach_the_api(coordinator, log_path):
    addresses, _ = coordinator
    connection = http.client.HTTPConnection(addresses["http"], timeout=60)
    connection.request("GET", "/v1/models", headers={"Origin": "https://b.example", "X-Request-Id": "seen-by-test"})
    response = connection.getresponse()
    assert response.getheader("Access-Control-Allow-Origin") == "https://b.example"
    response.read()
    assert connection.sock.recv(1) == b"", "an idle connection ends after the second that the environment gives it"
    lines = [line for line in log_path.read_text().splitlines() if "id=seen-by-test" in line]
    assert len(lines) == 1 and "method=GET path=/v1/models status=200" in lines[0]
    assert "/livez" not in log_path.read_text(), "probes are not logged at level info"


def test_what_holds_up_an_event_loop_is_said_with_its_place(monkeypatch, capfd):
    monkeypatch.setenv("RUNAHEAD_FAILPOINT", "coordinator.run_chain_step.before-sent=sleep:600")
    service = start_service(workers=1)
    try:
        assert service.post("/v1/completions", {"prompt": "a", "max_tokens": 1}).status == 200
        eventually(lambda: service.metric("runahead_event_loop_stall_seconds_count") >= 1, what="the stall is counted")
    finally:
        service.stop()
    said = [line for line in capfd.readouterr().err.splitlines() if "the event loop stood still for" in line]
    assert any("failpoint.cc:" in line for line in said), said
