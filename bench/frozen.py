#!/usr/bin/env python3
"""How long a client hears nothing when a worker freezes (SIGSTOP) in the middle of its request: only its silence tells.

    bench/frozen.py                            this build, 8 requests of each case: ~2 minutes
    bench/frozen.py --binary OLD --binary NEW  both, one after the other

A coordinator, two prefill and two decode workers of one thread each, processes of their own on 127.0.0.1 that this program
starts and ends. The longest silence of a stream is the time to its first token or between two, whichever is longer; the worker
goes on when the answer has ended, and the next request waits until all are ready. stdout: a Markdown table.
"""
import argparse
import json
import os
import signal
import statistics
import threading
import time

from load import ROOT, START_SECONDS, Roles, Stream, say

CASES = [  # what freezes, prompt tokens, seconds after the request is sent
    ("a prefill worker, 600 tokens", "prefill", 600, 0.1),
    ("a prefill worker, 3,000 tokens", "prefill", 3000, 0.8),
    ("the decode worker, 100 tokens", "decode", 100, 0.4),
]
ANSWER = 120


class Watched(Stream):
    """A stream that notes its longest silence."""

    def read(self, answer, started):
        last, self.silence = started, 0.0

        def lines():
            nonlocal last
            for line in answer:
                if line.startswith(b"data: {"):
                    now = time.monotonic()
                    self.silence, last = max(self.silence, now - last), now
                yield line

        super().read(lines(), started)


def wait_until_all_work(cluster):
    end = time.monotonic() + START_SECONDS
    while time.monotonic() < end:
        workers = json.loads(cluster.call("GET", "/v1/cluster")[1])["workers"]
        if len(workers) == len(cluster.workers) and all(worker["state"] == "ready" for worker in workers):
            return
        time.sleep(0.05)
    raise SystemExit("a worker that was frozen did not come back")


def in_work(cluster, role):
    """The last process of this role that has something in work; workers are named host:pid."""
    workers = json.loads(cluster.call("GET", "/v1/cluster")[1])["workers"]
    busy = [worker["name"] for worker in workers if worker["role"] == role and worker["running"]]
    if not busy:
        raise SystemExit(f"no {role} worker had anything in work: the request had ended")
    return int(busy[-1].rsplit(":", 1)[1])


def longest_silence(cluster, tokens, seed, role=None, after=0.0):
    stream = Watched(cluster, tokens, seed, ANSWER)
    frozen = []

    def freeze():
        frozen.append(in_work(cluster, role))
        os.kill(frozen[0], signal.SIGSTOP)

    timer = threading.Timer(after, freeze) if role else None
    try:
        if timer:
            timer.start()
        stream.run()
    finally:
        if timer:
            timer.join()
        for pid in frozen:
            os.kill(pid, signal.SIGCONT)
    if role and not frozen:
        raise SystemExit("nobody was frozen")
    if not stream.ok:
        raise SystemExit(f"a request failed: {stream.error or stream.status}")
    wait_until_all_work(cluster)
    return stream.silence


def measure(options, binary):
    say(f"{binary}")
    cluster = Roles(argparse.Namespace(binary=binary, model=options.model))
    try:
        for number, (name, role, tokens, after) in enumerate(CASES):
            seed = options.seed + 1000 * number
            alone = [longest_silence(cluster, tokens, seed + i) for i in range(3)]
            silences = [longest_silence(cluster, tokens, seed + 100 + i, role, after) for i in range(options.requests)]
            figures = f"{statistics.median(alone):.2f} | {statistics.median(silences):.2f} ({max(silences):.2f})"
            print(f"| {name} | {figures} |", flush=True)
    finally:
        for _, process, _ in cluster.workers:
            process.send_signal(signal.SIGCONT)
        cluster.stop()


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--binary", action="append", help="may be repeated; default: build/release/runahead")
    parser.add_argument("--model", default="smollm2")
    parser.add_argument("--requests", type=int, default=8, help="of each case (default: 8)")
    parser.add_argument("--seed", type=int, default=1)
    options = parser.parse_args()
    for binary in options.binary or [str(ROOT / "build" / "release" / "runahead")]:
        print(f"\n{binary}\n\n| frozen | longest silence alone, s, median | with it, median (most) |\n|---|---|---|")
        measure(options, binary)


if __name__ == "__main__":
    main()
