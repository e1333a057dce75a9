"""The quickstart's client against a server that speaks as the gateway does: what it asks, shows, and how it fails."""
import json
import subprocess
import sys
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

ASK = Path(__file__).resolve().parents[2] / "deploy" / "examples" / "ask.py"


def usage(strategy):
    seconds = 2.0 if strategy == "single" else 1.0
    ranks = 1 if strategy == "single" else 2
    workers = [{"rank": rank, "begin": 64 * rank, "end": 64 * rank + 64, "compute_seconds": 0.75,
                "kv_wait_seconds": 0.125, "kv_sent_bytes": 3 << 20, "device": "cpu"} for rank in range(ranks)]
    return {"prompt_tokens": 64 * ranks, "completion_tokens": 2, "prompt_tokens_details": {"cached_tokens": 64}, "runahead": {
        "ttft_seconds": seconds, "workers": workers,
        "stages": {"prefill_compute": 0.75 * seconds, "kv_wait": 0.25 * seconds},
        "plan": {"strategy": strategy, "cuts": [64] * (ranks - 1), "predicted_ttft_seconds": 0.9}}}


class Gateway(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def log_message(self, *_):
        """Quiet."""

    def send(self, status, kind, text):
        self.send_response(status)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(text.encode())))
        self.end_headers()
        self.wfile.write(text.encode())

    def do_GET(self):
        if self.path == "/readyz":
            self.send(200 if self.server.prefill_workers else 503, "application/json", "{}")
        else:
            workers = [{"role": "decode", "state": "ready"}]
            workers += [{"role": "prefill", "state": "ready"}] * self.server.prefill_workers
            self.send(200, "application/json", json.dumps({"workers": workers}))

    def do_POST(self):
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        self.server.bodies.append(body)
        if self.server.refusal:
            status, message = self.server.refusal
            self.send(status, "application/json", json.dumps({"error": {"message": message}}))
            return
        chunks = [": ping", 'data: {"choices":[{"delta":{"role":"assistant"}}]}']
        for text in ("In the ", "barometer."):
            chunks.append("data: " + json.dumps({"choices": [{"delta": {"content": text}}]}))
        if self.server.breaks:
            chunks.append('event: error\ndata: {"error":{"message":"worker lost"}}')
        else:
            strategy = body.get("runahead", {}).get("strategy", "balanced")
            chunks += ["data: " + json.dumps({"choices": [], "usage": usage(strategy)}), "data: [DONE]"]
        self.send(200, "text/event-stream", "\n\n".join(chunks) + "\n\n")


@pytest.fixture
def gateway():
    server = ThreadingHTTPServer(("127.0.0.1", 0), Gateway)
    server.bodies, server.refusal, server.breaks, server.prefill_workers = [], None, False, 2
    server.url = f"http://127.0.0.1:{server.server_address[1]}"
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield server
    server.shutdown()
    server.server_close()


def ask(url, *options):
    command = [sys.executable, ASK, "--url", url, *options]
    return subprocess.run(command, capture_output=True, text=True, timeout=30, check=False)


def test_it_shows_the_answer_the_stages_and_the_workers(gateway):
    done = ask(gateway.url)
    assert done.returncode == 0, done.stderr
    assert "answer: In the barometer.\n" in done.stdout
    assert "time to first token 1.000 s" in done.stdout and "128 prompt tokens" in done.stdout
    assert "prefill_compute     0.750 s  ##############################" in done.stdout
    assert "[64, 128)" in done.stdout and "3.0 MiB" in done.stdout
    assert "plan: balanced, cuts [64], predicted 0.900 s" in done.stdout


def test_the_comparison_asks_one_worker_the_same(gateway):
    done = ask(gateway.url, "--compare")
    assert done.returncode == 0, done.stderr
    assert "one worker alone: 2.000 s to the first token; 2 workers: 1.000 s, 2.00x as fast" in done.stdout
    assert "the same question again, 64 of 128 tokens kept: 1.000 s" in done.stdout
    first, second, third = gateway.bodies
    assert first["messages"] == second["messages"] == third["messages"] and "runahead" not in first
    assert second["runahead"] == {"strategy": "single"}
    assert second["cache_salt"] and "cache_salt" not in first and "cache_salt" not in third, "one worker computes all of it"


def test_the_prompt_holds_the_document_and_the_question(gateway):
    ask(gateway.url)
    content = gateway.bodies[0]["messages"][-1]["content"]
    assert (ASK.parent / "handbook.txt").read_text() in content
    assert content.endswith((ASK.parent / "question.txt").read_text().strip())


def test_a_refusal_is_shown_in_the_server_s_words(gateway):
    gateway.refusal = (400, "the prompt has 9000 tokens, the model takes 8192")
    done = ask(gateway.url)
    assert done.returncode == 1 and "400: the prompt has 9000 tokens" in done.stderr


def test_an_answer_that_breaks_off_is_a_failure(gateway):
    gateway.breaks = True
    done = ask(gateway.url)
    assert done.returncode == 1 and "worker lost" in done.stderr


def test_no_server_is_exit_code_4():
    done = ask("http://127.0.0.1:9")  # discard: nothing listens
    assert done.returncode == 4 and "cannot reach" in done.stderr


@pytest.mark.parametrize(("workers", "wanted", "code"), [(2, 2, 0), (1, 2, 1), (0, 1, 1)])
def test_ready_counts_prefill_workers(gateway, workers, wanted, code):
    gateway.prefill_workers = workers
    assert ask(gateway.url, "--ready", "--workers", str(wanted)).returncode == code


def test_ready_is_no_when_there_is_no_server():
    assert ask("http://127.0.0.1:9", "--ready").returncode == 1
