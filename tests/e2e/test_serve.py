"""`runahead serve` and its children: how it starts, logs, loses a child, is killed, and stops."""

import http.client
import json
import os
import re
import shutil
import signal
import socket
import subprocess
from pathlib import Path

import pytest

from cli import BINARY, NOT_BUILT, Serve, flags_of, lives, refused, wait_until

pytestmark = NOT_BUILT

MODELS = Path(os.environ.get("RUNAHEAD_MODEL_DIR") or Path.home() / ".cache/runahead/models")
SMOLLM2 = MODELS / "SmolLM2-135M-Instruct.Q4_1.gguf"


def get(address, path, **headers):
    host, port = address.rsplit(":", 1)
    connection = http.client.HTTPConnection(host, int(port), timeout=60)
    connection.request("GET", path, headers=headers)
    answer = connection.getresponse()
    return answer.status, answer.read()


def open_stream(address, max_tokens):
    """A request whose answer has begun."""
    host, port = address.rsplit(":", 1)
    busy = socket.create_connection((host, int(port)), timeout=60)
    body = json.dumps({"model": "smollm2", "prompt": "Once", "max_tokens": max_tokens, "stream": True}).encode()
    busy.sendall(b"POST /v1/completions HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nContent-Length: "
                 + str(len(body)).encode() + b"\r\n\r\n" + body)
    assert b"200 OK" in busy.recv(4096)
    return busy


def test_an_address_beyond_loopback_needs_a_flag_that_the_command_has():
    for words in (["serve", "--http", "0.0.0.0:0"], ["coordinator", "--http", "0.0.0.0:0", "--listen", "127.0.0.1:0"],
                  ["coordinator", "--listen", "0.0.0.0:0", "--http", "127.0.0.1:0"],
                  ["prefill", "--admin", "0.0.0.0:0", "--transport", "tcp"]):
        assert "--insecure-network" in refused(2, *words)
        assert "--insecure-network" in flags_of(words[0])


@pytest.mark.parametrize("flag", ["--insecure-http", "--insecure-network"])
def test_with_that_flag_the_api_listens_there(tmp_path, flag):
    with Serve(tmp_path / "log", flag, listen="0.0.0.0:0") as serve:
        assert get("127.0.0.1:" + serve.address.rsplit(":", 1)[1], "/v1/models")[0] == 200


def test_with_api_keys_it_says_that_it_is_ready_and_ends_with_0(tmp_path):
    keys = tmp_path / "keys"
    keys.write_text("sk-of-a-test\n")
    with Serve(tmp_path / "log", "--api-keys", str(keys)) as serve:
        assert get(serve.address, "/v1/models")[0] == 401
        status, body = get(serve.address, "/v1/cluster", Authorization="Bearer sk-of-a-test")
        assert status == 200 and len(json.loads(body)["workers"]) == 2
        serve.process.terminate()
        assert serve.process.wait(60) == 0
        wait_until(lambda: not any(map(lives, serve.children)), what="the end of all children")


def test_json_logs_are_json_in_every_process_and_a_goodbye_is_no_loss(tmp_path):
    with Serve(tmp_path / "log", "--log-format", "json", workers=2) as serve:
        left = serve.child("prefill", 1)
        os.kill(left, signal.SIGTERM)
        wait_until(lambda: "starting it again" in serve.log(), what="the new worker")
        wait_until(lambda: serve.log().count("joined") >= 4, what="its registration")
        os.kill(serve.child("decode"), signal.SIGKILL)
        wait_until(lambda: "is lost" in serve.log(), what="the loss of a killed worker")
        serve.process.terminate()
        assert serve.process.wait(60) == 0
    lines = [json.loads(line) for line in serve.log().splitlines()]  # each is one object
    assert {"serve", "coordinator", "prefill", "decode"} <= {line["process"] for line in lines}
    by_message = [(line["level"], line["message"]) for line in lines if line["process"] == "coordinator"]
    gone = [(level, message) for level, message in by_message if "has left" in message or "is lost" in message]
    assert gone[0][0] == "info" and "(prefill-1) has left" in gone[0][1]
    assert gone[1][0] == "warning" and "(decode-0) is lost" in gone[1][1]
    assert all(level == "info" for level, _ in gone[2:]), gone


def test_a_killed_parent_leaves_no_children_and_the_job_store_is_free_at_once(tmp_path):
    store = ["--job-store", str(tmp_path / "jobs.sqlite")]
    with Serve(tmp_path / "log", *store) as serve:
        busy = open_stream(serve.address, 4000)  # an answer is under way: no reason to stay
        assert len(serve.children) == 3
        serve.process.kill()
        serve.process.wait(60)
        wait_until(lambda: not any(map(lives, serve.children)), seconds=10, what="the end of all children")
        busy.close()
    with Serve(tmp_path / "log2", *store) as again:
        assert get(again.address, "/livez")[0] == 200


def test_ctrl_c_in_a_terminal_lets_an_answer_finish(tmp_path):
    with Serve(tmp_path / "log", start_new_session=True) as serve:
        busy = open_stream(serve.address, 300)
        os.killpg(serve.process.pid, signal.SIGINT)  # as a terminal sends it: to the whole foreground group
        answer = b""
        while not answer.endswith(b"0\r\n\r\n"):
            data = busy.recv(65536)
            assert data, f"cut off: {answer[-200:]}"
            answer += data
        busy.close()
        assert b"[DONE]" in answer and b'"error"' not in answer
        assert serve.process.wait(60) == 0
        wait_until(lambda: not any(map(lives, serve.children)), what="the end of all children")


@pytest.mark.parametrize("flags, code, says", [
    (["--api-keys", "/nonexistent-keys"], 3, "/nonexistent-keys"),
    (["--job-store", "/nonexistent/jobs.sqlite"], 3, "/nonexistent/jobs.sqlite"),
    (["--http", "127.0.0.1:99999"], 2, "99999"),
    (["--http", "nonsense"], 2, "nonsense"),
], ids=str)
def test_a_start_that_fails_says_why_once_and_leaves_nobody(flags, code, says):
    http_flags = [] if "--http" in flags else ["--http", "127.0.0.1:0"]
    assert says in refused(code, "serve", *http_flags, *flags)


def test_a_port_in_use_is_exit_code_3():
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        assert "in use" in refused(3, "serve", "--http", f"127.0.0.1:{taken.getsockname()[1]}")


def test_a_worker_without_coordinator_says_so_once_and_goes_on(tmp_path):
    with socket.socket() as nobody:  # bound, not listening: every connection is refused
        nobody.bind(("127.0.0.1", 0))
        with open(tmp_path / "log", "wb") as log:
            worker = subprocess.Popen([BINARY, "prefill", "--coordinator", f"127.0.0.1:{nobody.getsockname()[1]}",
                                       "--transport", "tcp", "--name", "caf\udce9"], stderr=log)
        wait_until(lambda: b"no coordinator" in (tmp_path / "log").read_bytes(), what="the warning")
        nobody.listen()
        for _ in range(3):  # three more tries
            nobody.settimeout(30)
            nobody.accept()[0].close()
        worker.terminate()
        worker.wait(60)
    text = (tmp_path / "log").read_text()
    assert len(re.findall("no coordinator", text)) == 1 and "caf\ufffd: no coordinator for 0 s" in text
    assert worker.returncode == 0


def answer(address):
    host, port = address.rsplit(":", 1)
    connection = http.client.HTTPConnection(host, int(port), timeout=60)
    body = json.dumps({"prompt": "Once upon a time there was a little", "max_tokens": 40, "temperature": 0})
    connection.request("POST", "/v1/completions", body, {"Content-Type": "application/json"})
    reply = connection.getresponse()
    body = json.loads(reply.read())
    assert reply.status == 200, body
    return body["choices"][0]["text"]


@pytest.mark.parametrize("victim,transport", [("model", "auto"), ("packed", "auto"), ("packed", "tcp")])
def test_a_file_that_is_written_over_changes_no_token(tmp_path, victim, transport):
    """The weights and the vocabulary are mapped files: whoever writes into one must not reach the answers."""
    model = tmp_path / "model.gguf"
    shutil.copy(SMOLLM2, model)
    packed = tmp_path / "packed"
    packed.mkdir()
    with Serve(tmp_path / "log", "--model", str(model), "--packed-cache", str(packed), "--transport", transport) as service:
        wanted = answer(service.address)
        file = model if victim == "model" else max(packed.iterdir(), key=lambda path: path.stat().st_size)
        bytes_before = file.stat().st_size
        assert bytes_before > 80 << 20
        with open(file, "r+b", buffering=0) as writer:
            for at in range(bytes_before // 50, bytes_before - 64, bytes_before // 4000):
                writer.seek(at)
                writer.write(b"\x5a" * 64)
        assert answer(service.address) == wanted
        os.truncate(file, 5000)
        assert answer(service.address) == wanted
        assert service.process.poll() is None
        assert str(file) in service.log(), "it is said which file it was"
