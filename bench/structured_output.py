#!/usr/bin/env python3
"""What structured output costs: seconds a token with and without a schema, over the real API.

    bench/structured_output.py                 this build, smollm2
    bench/structured_output.py --rounds 9

Each round streams one free answer and one of a schema, of as many tokens; a schema is new in its first round and known in the
others, which the table tells apart. It starts `runahead serve` itself, on free ports of this machine. stdout: a Markdown table of
medians (smallest to largest) over rounds of the median time between two tokens, and of the longest; only the standard library is
used.
"""
import argparse
import http.client
import json
import statistics
import subprocess
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
REQUEST_SECONDS = 300
TOKENS = 64


def schema(number):
    """Strings that may be long, so that tokens are many; the number makes it another one."""
    text = {"type": "string", "minLength": 400}
    return {"type": "object", "properties": {f"text{number}": text, "n": {"type": "integer"}}, "required": [f"text{number}", "n"]}


def gaps(host, port, form):
    """Seconds between the tokens of one answer."""
    body = {"messages": [{"role": "user", "content": "Tell me a story."}], "max_tokens": TOKENS, "stream": True, "temperature": 0}
    if form is None:
        body["ignore_eos"] = True
    else:
        body["response_format"] = {"type": "json_schema", "json_schema": {"name": "t", "schema": form}}
    connection = http.client.HTTPConnection(host, port, timeout=REQUEST_SECONDS)
    connection.request("POST", "/v1/chat/completions", json.dumps(body), {"Content-Type": "application/json"})
    answer = connection.getresponse()
    if answer.status != 200:
        raise SystemExit(f"the server answered {answer.status}: {answer.read()[:500]}")
    times = []
    for line in answer:
        if line.startswith(b"data: {") and b'"content"' in line:
            times.append(time.monotonic())
    connection.close()
    return [after - before for before, after in zip(times, times[1:])]


def spread(values):
    return f"{statistics.median(values):.2f} ({min(values):.2f} to {max(values):.2f})"


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--binary", default=str(ROOT / "build/release/runahead"))
    parser.add_argument("--rounds", type=int, default=5)
    options = parser.parse_args()
    command = [options.binary, "serve", "-q", "-o", "json", "--http", "127.0.0.1:0", "--workers", "1"]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
    try:
        host, port = json.loads(process.stdout.readline())["http"].rsplit(":", 1)
        gaps(host, int(port), None)
        kinds = {"free": [], "a new schema": [], "a known schema": []}
        for number in range(options.rounds):
            for kind, form in zip(kinds, (None, schema(number), schema(number))):
                kinds[kind].append(gaps(host, int(port), form))
    finally:
        process.terminate()
        process.wait()
    print("| answer | ms a token | longest ms |\n|---|---|---|")
    for kind, answers in kinds.items():
        medians, longest = ([1e3 * of(answer) for answer in answers] for of in (statistics.median, max))
        print(f"| {kind} | {spread(medians)} | {spread(longest)} |")


if __name__ == "__main__":
    main()
