#!/usr/bin/env python3
"""What TLS between the processes costs: time to first token of one prompt, plain and in TLS, by turns in one run.

    bench/tls.py                         this build, deploy/examples/handbook.txt, two workers, TCP
    bench/tls.py --rounds 20 --transport auto
    bench/tls.py --transport ucx --authenticate-pages        TLS, and a code of each page

Two clusters of real processes stand beside each other on this machine, one thread a worker; only one of them computes at a time.
Each round asks both, in an order that changes; their logits must be the same, or the run is void. stdout: a Markdown table of
medians (smallest to largest); only the standard library is used.
"""
import argparse
import json
import os
import random
import statistics
import subprocess
import tempfile
import time
from pathlib import Path

from cluster import call

ROOT = Path(__file__).resolve().parent.parent
START_SECONDS = 120


class Processes:
    """A coordinator, prefill workers and a decode worker, started one by one, to the end of a `with`."""

    def __init__(self, options, certs=None):
        self.options, self.certs, self.started = options, certs, []

    def __enter__(self):
        try:
            return self.start_all()
        except BaseException:
            self.__exit__()
            raise

    def start_all(self):
        announced = self.start("coordinator", "--listen", "127.0.0.1:0", "--http", "127.0.0.1:0", announce=True)
        self.url = announced["http"].removeprefix("http://")  # as cluster.call takes it
        for role in ["prefill"] * self.options.workers + ["decode"]:
            self.start(role, "--coordinator", announced["control"], "--threads", "1", "--transport", self.options.transport)
        end = time.monotonic() + START_SECONDS
        while len(call(self.url, "GET", "/v1/cluster")["workers"]) <= self.options.workers:
            if time.monotonic() > end:
                raise SystemExit("the workers did not come")
            time.sleep(0.1)
        return self

    def start(self, role, *flags, announce=False):
        tls = [word for flag, file in (("cert", f"{role}.pem"), ("key", f"{role}.key"), ("ca", "ca.pem"))
               for word in (f"--tls-{flag}", self.certs / file)] if self.certs else []
        if self.certs and self.options.authenticate_pages and not announce:
            tls.append("--authenticate-pages")
        command = [self.options.binary, role, *flags, *tls, "-q"]
        if not announce:
            return self.started.append(subprocess.Popen(command, stderr=subprocess.DEVNULL))
        reader, writer = os.pipe()
        command += ["--announce-fd", str(writer)]
        self.started.append(subprocess.Popen(command, pass_fds=[writer], stderr=subprocess.DEVNULL))
        os.close(writer)
        with os.fdopen(reader) as lines:
            return json.loads(lines.readline())

    def ask(self, document):
        body = {"prompt": document, "max_tokens": 1, "temperature": 0, "cache_salt": str(random.getrandbits(64))}
        report = call(self.url, "POST", "/v1/completions", body)["usage"]["runahead"]
        return report["ttft_seconds"], report["first_logits_sha256"]

    def __exit__(self, *error):
        for process in reversed(self.started):
            process.terminate()
            process.wait()


def spread(values, digits):
    return f"{statistics.median(values):.{digits}f} ({min(values):.{digits}f} to {max(values):.{digits}f})"


def measure(clusters, document, rounds):
    seconds = {name: [] for name in clusters}
    logits = {cluster.ask(document)[1] for cluster in clusters.values()}  # the first one warms up
    for number in range(rounds):
        for name in sorted(clusters, reverse=number % 2 == 1):
            took, sha = clusters[name].ask(document)
            seconds[name].append(took)
            logits.add(sha)
    if len(logits) != 1:
        raise SystemExit("the logits differ: the run is void")
    return seconds


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--binary", default=str(ROOT / "build/release/runahead"))
    parser.add_argument("--document", type=Path, default=ROOT / "deploy/examples/handbook.txt")
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--transport", default="tcp")
    parser.add_argument("--authenticate-pages", action="store_true", help="of the workers in TLS; else they do not")
    parser.add_argument("--rounds", type=int, default=10)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        certs = Path(folder) / "certs"
        subprocess.run([options.binary, "certs", certs, "-q"], check=True)
        with Processes(options) as plain, Processes(options, certs) as secured:
            seconds = measure({"plain": plain, "tls": secured}, options.document.read_text(), options.rounds)
    ratios = [tls / plain for plain, tls in zip(seconds["plain"], seconds["tls"])]
    print("| workers, transport | plain, s | TLS, s | TLS / plain, by pairs |\n|---|---|---|---|")
    print(f"| {options.workers}, {options.transport} | {spread(seconds['plain'], 3)} | {spread(seconds['tls'], 3)} "
          f"| {spread(ratios, 3)} |")


if __name__ == "__main__":
    main()
