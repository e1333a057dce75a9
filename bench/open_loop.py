#!/usr/bin/env python3
"""Time to first token of every request in a mix, over the real API: one or more builds of runahead, in turn.

    bench/open_loop.py                                        this build, every scenario
    bench/open_loop.py --binary OLD --binary NEW --rounds 3   before and after, in one run
    bench/open_loop.py --scenario eight,beside                only these

Each round starts `runahead serve` of one build after the other and runs every scenario on it:
    eight    8 prompts of 331 tokens at once, and 4 of 1,031: mean and last TTFT
    beside   a prompt of 7,000 tokens, and a second later one of 100
    ninth    8 long answers run, then one prompt more
    bodies   the largest bodies the API allows, while /livez is asked and an answer streams
    mix      arrivals by chance (open loop: nobody waits for an answer before the next one comes), TTFT of each
All load goes to the cluster that this program starts on 127.0.0.1; requests are bounded in number and time. stdout: a Markdown
table; --json FILE: every TTFT; stderr: progress. Only the standard library is used.
"""
import argparse
import http.client
import json
import random
import statistics
import subprocess
import sys
import threading
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
SCENARIOS = ["eight", "beside", "ninth", "bodies", "mix"]
REQUEST_SECONDS = 300  # no answer takes as long
LARGEST_BODY = 16 << 20  # base/limits.h, kJsonBodyBytesMax


def say(text):
    print(text, file=sys.stderr, flush=True)


def prompt(tokens, seed):
    """Token ids of plain words; no two seeds share a prefix."""
    chance = random.Random(seed)
    return [chance.randrange(1000, 20000) for _ in range(tokens)]


class Server:
    """One started server with OpenAI's API: `host`, `port` and `process`."""

    def call(self, method, path, body=None, seconds=REQUEST_SECONDS):
        connection = http.client.HTTPConnection(self.host, self.port, timeout=seconds)
        try:
            connection.request(method, path, body, {"Content-Type": "application/json"})
            answer = connection.getresponse()
            return answer.status, answer.read()
        finally:
            connection.close()

    def stop(self):
        self.process.terminate()
        self.process.wait(60)


class Cluster(Server):
    """`runahead serve` of one build, on free ports of this machine."""

    def __init__(self, binary, arguments):
        command = [binary, "serve", "-q", "-o", "json", "--http", "127.0.0.1:0", *arguments]
        self.process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        ready = self.process.stdout.readline()
        if not ready:
            raise SystemExit(f"{binary} did not start: {self.process.stderr.read()}")
        self.host, port = json.loads(ready)["http"].rsplit(":", 1)
        self.port = int(port)
        self.talk = []
        threading.Thread(target=lambda: self.talk.extend(self.process.stderr), daemon=True).start()

    def workers(self):
        return len(json.loads(self.call("GET", "/v1/cluster")[1])["workers"])


class Request(threading.Thread):
    """One streamed completion; `ttft` is seconds from its start to the first token, or None if it failed."""

    def __init__(self, cluster, tokens, seed, max_tokens=1):
        super().__init__(daemon=True)
        self.cluster, self.ttft, self.total, self.error = cluster, None, None, None
        self.body = json.dumps({"model": "default", "prompt": prompt(tokens, seed), "max_tokens": max_tokens, "stream": True,
                                "temperature": 0, "ignore_eos": True})
        self.first = threading.Event()

    def run(self):
        started = time.monotonic()
        connection = http.client.HTTPConnection(self.cluster.host, self.cluster.port, timeout=REQUEST_SECONDS)
        try:
            connection.request("POST", "/v1/completions", self.body, {"Content-Type": "application/json"})
            answer = connection.getresponse()
            if answer.status != 200:
                raise OSError(f"{answer.status} {answer.read(200)}")
            for line in answer:
                if line.startswith(b"data: {"):
                    event = json.loads(line[6:])
                    if "error" in event:
                        raise OSError(event["error"]["message"])
                    if self.ttft is None and event.get("choices"):
                        self.ttft = time.monotonic() - started
                        self.first.set()
            self.total = time.monotonic() - started
        except (OSError, http.client.HTTPException, ValueError) as error:
            self.error = str(error)
        finally:
            self.first.set()
            connection.close()


def together(cluster, sizes, seed, max_tokens=1):
    requests = [Request(cluster, size, seed + i, max_tokens) for i, size in enumerate(sizes)]
    for request in requests:
        request.start()
    for request in requests:
        request.join(REQUEST_SECONDS)
    return requests


def ttfts(requests):
    failed = [request.error for request in requests if request.ttft is None]
    if failed:
        say(f"  {len(failed)} of {len(requests)} failed: {failed[0]}")
    return [request.ttft for request in requests if request.ttft is not None]


def idle(cluster, tokens, seed):
    """The median of three, one after the other."""
    return statistics.median(ttfts([r for i in range(3) for r in together(cluster, [tokens], seed + 100 * i)]))


def eight(cluster, seed):
    result = {}
    for count, tokens in ((8, 331), (4, 1031)):
        alone = idle(cluster, tokens, seed)
        times = sorted(ttfts(together(cluster, [tokens] * count, seed + 10)))
        result |= {f"{count} x {tokens}: idle": alone, f"{count} x {tokens}: mean": statistics.mean(times),
                   f"{count} x {tokens}: first": times[0], f"{count} x {tokens}: last": times[-1]}
    return result


def beside(cluster, seed):
    alone = idle(cluster, 100, seed)
    long_alone = idle(cluster, 7000, seed + 1)
    long_one = Request(cluster, 7000, seed + 2)
    long_one.start()
    time.sleep(1)
    short = [together(cluster, [100], seed + 3 + i)[0] for i in range(3)]
    long_one.join(REQUEST_SECONDS)
    return {"short: idle": alone, "short beside 7,000": statistics.median(ttfts(short)), "short beside 7,000: worst":
            max(ttfts(short)), "7,000: idle": long_alone, "7,000 beside short": long_one.ttft}


def ninth(cluster, seed):
    alone = idle(cluster, 331, seed)
    running = [Request(cluster, 64, seed + 1 + i, 600) for i in range(8)]
    for request in running:
        request.start()
    for request in running:
        request.first.wait(REQUEST_SECONDS)
    time.sleep(0.5)
    late = ttfts(together(cluster, [331], seed + 20))
    still = sum(request.is_alive() for request in running)
    for request in running:
        request.join(REQUEST_SECONDS)
    return {"ninth: idle": alone, "ninth: TTFT beside 8 answers": late[0] if late else None,
            "ninth: answers still running": still}


def bodies(cluster, seed):
    """The largest bodies of each kind, one after the other; /livez all the while."""
    ids = b'{"tokens":[' + b"1," * (LARGEST_BODY // 2 - 20) + b"1]}"
    text = b"a few words of text, "
    chat = b'{"messages":[{"role":"user","content":"' + text * (LARGEST_BODY // len(text) - 10) + b'"}]}'
    plain = b'{"content":"' + text * (LARGEST_BODY // len(text) - 10) + b'"}'
    probes, done = [], threading.Event()

    def probe():
        while not done.is_set():
            started = time.monotonic()
            try:
                cluster.call("GET", "/livez", seconds=60)
            except OSError as error:
                say(f"  /livez: {error}")
            probes.append(time.monotonic() - started)
            time.sleep(0.02)

    before = cluster.workers()
    stream = Request(cluster, 64, seed, 400)
    prober = threading.Thread(target=probe, daemon=True)
    stream.start()
    prober.start()
    for path, body in (("/detokenize", ids), ("/apply-template", chat), ("/tokenize", plain), ("/v1/completions", ids)):
        try:
            status, _ = cluster.call("POST", path, body)
        except OSError as error:
            status = error
        say(f"  {path} with {len(body):,} bytes: {status}")
    done.set()
    prober.join(60)
    stream.join(REQUEST_SECONDS)
    return {"bodies: /livez worst": max(probes), "bodies: /livez median": statistics.median(probes),
            "bodies: workers lost": before - cluster.workers(), "bodies: stream failed": int(stream.error is not None)}


def mix(cluster, seed, seconds=40, rate=1.0):
    """Arrivals by chance: seven of ten short, two middling, one long."""
    chance, requests = random.Random(seed), []
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        tokens = chance.choices([100, 600, 3000], [7, 2, 1])[0]
        request = Request(cluster, tokens, seed + 1 + len(requests), 16)
        request.tokens = tokens
        requests.append(request)
        request.start()
        time.sleep(chance.expovariate(rate))
    for request in requests:
        request.join(REQUEST_SECONDS)
    result = {}
    for tokens in (100, 600, 3000):
        times = sorted(ttfts([r for r in requests if r.tokens == tokens]))
        if times:
            result |= {f"mix {tokens}: median": statistics.median(times), f"mix {tokens}: p95": percentile(times, 0.95)}
    everything = ttfts(requests)
    return result | {"mix: mean": statistics.mean(everything), "mix: requests": len(everything)}


def percentile(ordered, share):
    return ordered[min(len(ordered) - 1, int(share * len(ordered)))]


def table(names, samples):
    """A row a figure, a column a build: median (minimum to maximum) of the rounds."""
    figures = list(dict.fromkeys(figure for build in samples for one in build for figure in one))
    lines = ["| figure | " + " | ".join(names) + " | last / first |", "|---" * (len(names) + 2) + "|"]
    for figure in figures:
        cells, medians = [], []
        for build in samples:
            values = sorted(one[figure] for one in build if one.get(figure) is not None)
            medians.append(statistics.median(values) if values else None)
            cells.append(f"{medians[-1]:.3f} ({values[0]:.3f} to {values[-1]:.3f})" if values else "-")
        known = len(medians) > 1 and medians[0] and medians[-1] is not None
        lines.append(f"| {figure} | " + " | ".join(cells) + f" | {medians[-1] / medians[0]:.2f} |" if known else
                     f"| {figure} | " + " | ".join(cells) + " | |")
    return "\n".join(lines)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--binary", action="append", help="a build of runahead; more than once: they run in turn")
    parser.add_argument("--name", action="append", help="a column's name, one for each --binary")
    parser.add_argument("--rounds", type=int, default=1)
    parser.add_argument("--scenario", default=",".join(SCENARIOS))
    parser.add_argument("--serve", default="--workers 2", help="flags of `runahead serve`")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    binaries = options.binary or [str(ROOT / "build" / "release" / "runahead")]
    names = options.name or [Path(binary).parent.name + "/" + Path(binary).name for binary in binaries]
    wanted = options.scenario.split(",")
    if unknown := set(wanted) - set(SCENARIOS):
        parser.error(f"there is no scenario {sorted(unknown)[0]}; the scenarios are {', '.join(SCENARIOS)}")
    samples = [[] for _ in binaries]
    for number in range(options.rounds):
        for binary, build, name in zip(binaries, samples, names):
            cluster = Cluster(binary, options.serve.split())
            try:
                figures = {}
                for scenario in wanted:
                    say(f"round {number + 1} of {options.rounds}, {name}: {scenario}")
                    figures |= globals()[scenario](cluster, options.seed + 1000 * number)
                build.append(figures)
            finally:
                cluster.stop()
    print(table(names, samples))
    if options.json:
        options.json.write_text(json.dumps({"builds": dict(zip(names, samples))}, indent=1))


if __name__ == "__main__":
    main()
