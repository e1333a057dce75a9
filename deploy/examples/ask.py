#!/usr/bin/env python3
"""Asks a question about a long document over the REST API, streams the answer, and shows where the time went.

    ask.py --url http://127.0.0.1:8000 --document handbook.txt --question question.txt [--compare]
    ask.py --url http://127.0.0.1:8000 --ready --workers 2      exit code 0 once that many prefill workers can serve

--compare asks again of one worker alone (body field "runahead": {"strategy": "single"}), which finds none of it computed (an own
"cache_salt"), and once more as at first, behind the pages that were kept. Exit codes: 0 answered, 1 the server said no or the
answer broke off, 4 the server cannot be reached. Standard library only.
"""
import argparse
import http.client
import json
import secrets
import sys
import time
from pathlib import Path
from urllib.parse import urlparse

READY_TIMEOUT_SECONDS = 5     # a probe that hangs is a no
ANSWER_TIMEOUT_SECONDS = 300  # between two chunks; the server pings every second, so silence means it is gone
STAGES = [("queue", "waited for a free place"), ("tokenize", "template and tokenizer"), ("plan", "cut the prompt"),
          ("dispatch", "sent the plan to the chain"), ("prefill_compute", "computed, on the critical path"),
          ("kv_wait", "waited for K and V of the prefix"), ("sample", "chose the first token"),
          ("respond", "wrote the first chunk"), ("other", "not explained")]


class ServerError(Exception):
    """The server answered, and the answer is no."""


def connect(url, timeout):
    parts = urlparse(url)
    return http.client.HTTPConnection(parts.hostname, parts.port or 80, timeout=timeout)


def get_json(url, path):
    connection = connect(url, READY_TIMEOUT_SECONDS)
    try:
        connection.request("GET", path)
        response = connection.getresponse()
        return response.status, json.loads(response.read() or b"null")
    finally:
        connection.close()


def is_ready(url, workers):
    """True once the server is ready and that many prefill workers are."""
    connection = connect(url, READY_TIMEOUT_SECONDS)
    try:
        connection.request("GET", "/readyz")
        if connection.getresponse().status != 200:
            return False
        _, cluster = get_json(url, "/v1/cluster")
        ready = [w for w in cluster["workers"] if w["role"] == "prefill" and w.get("state", "ready") == "ready"]
        return len(ready) >= workers
    except (OSError, http.client.HTTPException, ValueError, KeyError, TypeError):
        return False
    finally:
        connection.close()


def events(response):
    """The data of each server-sent event, as JSON; comments (pings) are skipped."""
    for raw in response:
        line = raw.decode("utf-8").rstrip("\r\n")
        if not line.startswith("data:"):
            continue
        data = line[5:].strip()
        if data == "[DONE]":
            return
        event = json.loads(data)
        if "error" in event:
            raise ServerError(event["error"].get("message", data))
        yield event
    raise ServerError("the stream ended without [DONE]")


def ask(url, body, write):
    """Streams one chat completion. Returns its usage, with the time to first token as this client saw it."""
    connection = connect(url, ANSWER_TIMEOUT_SECONDS)
    started, first, usage = time.monotonic(), None, {}
    try:
        connection.request("POST", "/v1/chat/completions", json.dumps(body), {"Content-Type": "application/json"})
        response = connection.getresponse()
        if response.status != 200:
            text = response.read().decode("utf-8", "replace")
            try:
                text = json.loads(text)["error"]["message"]
            except (ValueError, KeyError, TypeError):
                pass
            raise ServerError(f"{response.status}: {text}")
        for event in events(response):
            for choice in event.get("choices", []):
                content = choice.get("delta", {}).get("content")
                if content:
                    first = first or time.monotonic()
                    write(content)
            usage = event.get("usage") or usage
    finally:
        connection.close()
    if first is None:
        raise ServerError("the answer is empty")
    return usage, first - started


def print_report(usage, client_seconds):
    report = usage["runahead"]
    total = report["ttft_seconds"]
    print(f"\ntime to first token {total:.3f} s ({client_seconds:.3f} s seen by the client), "
          f"{usage['prompt_tokens']:,} prompt tokens\n")
    for stage, meaning in STAGES:
        seconds = report["stages"].get(stage, 0.0)
        bar = "#" * round(40 * seconds / total) if total > 0 else ""
        print(f"  {stage:16} {seconds:8.3f} s  {bar:40}  {meaning}")
    print("\n  rank  tokens                  compute    kv wait    kv sent  device")
    for worker in report["workers"]:
        chunk = f"[{worker['begin']:,}, {worker['end']:,})"
        print(f"  {worker['rank']:4}  {chunk:20} {worker['compute_seconds']:8.3f} s {worker['kv_wait_seconds']:8.3f} s "
              f"{worker['kv_sent_bytes'] / 2**20:7.1f} MiB  {worker.get('device', '')}")
    plan = report["plan"]
    print(f"\n  plan: {plan['strategy']}, cuts {plan['cuts']}, predicted {plan['predicted_ttft_seconds']:.3f} s")


def answer_and_compare(arguments):
    document, question = Path(arguments.document).read_text(), Path(arguments.question).read_text().strip()
    body = {"model": arguments.model, "stream": True, "stream_options": {"include_usage": True}, "temperature": 0,
            "max_tokens": arguments.max_tokens,
            "messages": [{"role": "system", "content": arguments.instruction},
                         {"role": "user", "content": f"{document}\n\n{question}"}]}
    print(f"{Path(arguments.document).name}: {len(document.split()):,} words\nquestion: {question}\nanswer: ", end="",
          flush=True)
    usage, seconds = ask(arguments.url, body, lambda text: print(text, end="", flush=True))
    print()
    print_report(usage, seconds)
    if not arguments.compare:
        return
    compare(arguments, body, usage)


def compare(arguments, body, usage):
    def asked_again(**fields):
        return ask(arguments.url, dict(body, max_tokens=1, **fields), lambda text: None)[0]

    alone = asked_again(runahead={"strategy": "single"}, cache_salt=secrets.token_hex(8))
    ours, single = usage["runahead"]["ttft_seconds"], alone["runahead"]["ttft_seconds"]
    ranks = len(usage["runahead"]["workers"])
    print(f"\none worker alone: {single:.3f} s to the first token; {ranks} workers: {ours:.3f} s, "
          f"{single / ours:.2f}x as fast")
    again = asked_again()
    kept = again.get("prompt_tokens_details", {}).get("cached_tokens", 0)
    print(f"the same question again, {kept:,} of {again['prompt_tokens']:,} tokens kept: "
          f"{again['runahead']['ttft_seconds']:.3f} s")


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--url", required=True)
    parser.add_argument("--model", default="smollm2")
    parser.add_argument("--document", default=Path(__file__).parent / "handbook.txt")
    parser.add_argument("--question", default=Path(__file__).parent / "question.txt")
    # The default model is small: it finds a fact in the handbook, and is soon lost in more than a sentence.
    parser.add_argument("--instruction", default="Answer with one sentence of the handbook.")
    parser.add_argument("--max-tokens", type=int, default=96)
    parser.add_argument("--compare", action="store_true")
    parser.add_argument("--ready", action="store_true")
    parser.add_argument("--workers", type=int, default=1)
    arguments = parser.parse_args()
    if arguments.ready:
        return 0 if is_ready(arguments.url, arguments.workers) else 1
    try:
        answer_and_compare(arguments)
        return 0
    except ServerError as error:
        print(f"\nask.py: {error}", file=sys.stderr)
        return 1
    except OSError as error:
        print(f"\nask.py: cannot reach {arguments.url}: {error}", file=sys.stderr)
        return 4


if __name__ == "__main__":
    sys.exit(main())
