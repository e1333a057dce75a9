#!/usr/bin/env python3
"""Goodput: how many requests a second a cluster answers in time, by policy, under load that waits for nobody (open loop).

    bench/goodput.py                                          two workers of this build, three policies, rising load: ~10 minutes
    bench/goodput.py --url 127.0.0.1:8000 --rates 0.5,1,2     a cluster that runs already
    bench/goodput.py --trace conversation.jsonl --scale 0.25  lengths of a published trace (Mooncake's format), a quarter as long

Policies: `single`, one worker a request; `even`, all workers each request; `auto`, ours. At each rate every policy gets the same
requests at the same times (Poisson arrivals; lengths log-normal, or drawn from the trace), one policy after the other. A request
is in time if its first token comes within a target: so many times what one idle worker takes for a prompt of its length. Goodput
is what is in time of all that came, a second; a policy's is its best over the rates where at least --share of them are in time.
Beside it what parallel prefill costs: compute of all ranks over that of one worker, for the same prompt. stdout: Markdown; --json
FILE: every request; stderr: progress. Only the standard library is used.
"""
import argparse
import json
import math
import random
import statistics
import sys
import threading
import time
from contextlib import contextmanager
from pathlib import Path

import chain
from cluster import REQUEST_SECONDS
from open_loop import ROOT, Cluster, percentile, say

POLICIES = ["single", "even", "auto"]
CALIBRATED = [128, 512, 2048]  # tokens, by one idle worker
SHORTEST = 32


def draw_lengths(count, seed, longest, trace, scale):
    """Prompt lengths in tokens: of the trace if there is one, else log-normal with median 400 and a tail of ten times that."""
    chance = random.Random(seed)
    drawn = chance.choices(trace, k=count) if trace else [chance.lognormvariate(6.0, 1.1) for _ in range(count)]
    return [int(min(max(length * scale, SHORTEST), longest)) for length in drawn]


def read_trace(path):
    try:
        return [int(json.loads(line)["input_length"]) for line in path.read_text(encoding="utf-8").splitlines()]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise SystemExit(f"{path} is no trace, JSON lines with input_length: {error}") from None


def arrivals(rate, seconds, seed):
    chance, at, times = random.Random(seed), 0.0, []
    while (at := at + chance.expovariate(rate)) < seconds:
        times.append(at)
    return times


def parabola(points):
    """The a n + b n^2 + c through three points (n, seconds): what a prompt takes by its length."""
    (x0, y0), (x1, y1), (x2, y2) = points
    first, second = (y1 - y0) / (x1 - x0), (y2 - y1) / (x2 - x1)
    bend = (second - first) / (x2 - x0)
    return lambda n: y0 + first * (n - x0) + bend * (n - x0) * (n - x1)


class Caller(threading.Thread):
    """One request; `seconds` is from its start to its first token, which is its only one, or None if it failed."""

    def __init__(self, url, policy, tokens):
        super().__init__(daemon=True)
        self.url, self.policy, self.tokens, self.seconds = url, policy, tokens, None

    def run(self):
        started = time.monotonic()
        try:
            chain.measure(self.url, self.policy, self.tokens)
        except (SystemExit, OSError, KeyError, ValueError) as error:
            say(f"  a request of {self.tokens} tokens failed: {error}")
            return
        self.seconds = time.monotonic() - started


def calibrate(url, longest):
    """Seconds of one idle worker by length, and what a chain computes more than it."""
    points, cost = [], {}
    for tokens in (min(tokens, longest * place // 3) for place, tokens in enumerate(CALIBRATED, 1)):
        chain.measure(url, "single", tokens)  # warms up
        runs = [chain.measure(url, "single", tokens) for _ in range(3)]
        points.append((tokens, statistics.median(run["ttft"] for run in runs)))
        alone = statistics.median(run["ranks"][0]["compute_seconds"] for run in runs)
        both = [sum(rank["compute_seconds"] for rank in chain.measure(url, "even", tokens)["ranks"]) for _ in range(3)]
        cost[tokens] = statistics.median(both) / alone
        say(f"one idle worker, {tokens} tokens: {points[-1][1]:.3f} s; all workers compute {cost[tokens]:.2f} times as long")
    return parabola(points), cost


def load(url, policy, times, lengths):
    started, callers = time.monotonic(), []
    for at, tokens in zip(times, lengths):
        time.sleep(max(0.0, started + at - time.monotonic()))
        callers.append(Caller(url, policy, tokens))
        callers[-1].start()
    for caller in callers:
        caller.join(REQUEST_SECONDS)
    return callers


def summary(callers, idle):
    slowdowns = sorted(caller.seconds / idle(caller.tokens) for caller in callers if caller.seconds)
    quantiles = slowdowns or [math.inf]  # all have failed
    return {"requests": len(callers), "slowdowns": slowdowns, "p50": percentile(quantiles, 0.5),
            "p95": percentile(quantiles, 0.95), "each": [(caller.tokens, caller.seconds) for caller in callers]}


def in_time(one, target):
    return sum(slowdown <= target for slowdown in one["slowdowns"])


def goodput_of(rows, policy, target, share, seconds):
    reached = [in_time(row[policy], target) / seconds for row in rows
               if in_time(row[policy], target) >= share * row[policy]["requests"]]
    return max(reached, default=0.0)


def table(rows, targets, share, seconds):
    lines = ["| requests a second | " + " | ".join(f"{policy}: slowdown p50, p95" for policy in POLICIES) + " |",
             "|" + "---|" * (len(POLICIES) + 1)]
    for row in rows:
        lines.append(f"| {row['rate']:g} | " + " | ".join(f"{row[policy]['p50']:.2f}, {row[policy]['p95']:.2f}"
                                                          for policy in POLICIES) + " |")
    lines += ["", f"| goodput, {100 * share:.0f} % within | " + " | ".join(POLICIES) + " | auto over the better plain policy |",
              "|" + "---|" * (len(POLICIES) + 2)]
    for target in targets:
        best = [goodput_of(rows, policy, target, share, seconds) for policy in POLICIES]
        plain = max(best[:-1])
        gain = f"{best[-1] / plain:.2f}" if plain else "no plain policy reaches it"
        lines.append(f"| {target:g} times | " + " | ".join(f"{one:.2f}" for one in best) + f" | {gain} |")
    return "\n".join(lines)


@contextmanager
def cluster_of(options):
    if options.url:
        yield options.url
        return
    own = Cluster(str(ROOT / "build/release/runahead"), options.serve.split())
    try:
        yield f"{own.host}:{own.port}"
    finally:
        own.stop()


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--url", help="host:port of a cluster that runs; else one is started")
    parser.add_argument("--serve", default="--workers 2 --threads-per-worker 1", help="flags of `runahead serve`")
    parser.add_argument("--rates", default="1,2,3,4", help="requests a second")
    parser.add_argument("--seconds", type=float, default=40, help="of arrivals, for each rate and policy")
    parser.add_argument("--targets", default="1.25,1.5,2,3", help="in time: within so many times one idle worker's time")
    parser.add_argument("--share", type=float, default=0.9)
    parser.add_argument("--trace", type=Path, help="JSON lines with input_length")
    parser.add_argument("--scale", type=float, default=1.0, help="of the lengths")
    parser.add_argument("--longest", type=int, default=7000, help="tokens")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    targets = [float(word) for word in options.targets.split(",")]
    trace, rows = read_trace(options.trace) if options.trace else None, []
    with cluster_of(options) as url:
        idle, cost = calibrate(url, options.longest)
        for number, rate in enumerate(float(word) for word in options.rates.split(",")):
            times = arrivals(rate, options.seconds, options.seed + number)
            if not times:
                raise SystemExit(f"at {rate:g} a second no request came in {options.seconds:g} s: give more --seconds")
            lengths = draw_lengths(len(times), options.seed + number, options.longest, trace, options.scale)
            rows.append({"rate": rate})
            for policy in POLICIES:
                one = rows[-1][policy] = summary(load(url, policy, times, lengths), idle)
                say(f"{rate:g} a second, {policy}: {one['requests']} requests, slowdown {one['p50']:.2f} (p95 {one['p95']:.2f})")
    print(table(rows, targets, options.share, options.seconds))
    print("compute of all workers over that of one, for the same prompt: " +
          ", ".join(f"{tokens} tokens {times:.2f}" for tokens, times in cost.items()))
    if options.json:
        options.json.write_text(json.dumps({"rows": rows, "cost": cost}, indent=1), encoding="utf-8")


if __name__ == "__main__":
    sys.exit(main())
