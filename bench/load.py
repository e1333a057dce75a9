#!/usr/bin/env python3
"""A service under load: closed-loop clients, overload, slow readers, clients that go away, processes that end; beside the servers
of llama.cpp and ik_llama.cpp where they are named.

    bench/load.py                                             this build, every scenario: ~6 minutes
    bench/load.py --llama-server PATH --rounds 3              the first two also against llama.cpp's server, in turn
    bench/load.py --ik-llama-server PATH                      against ik_llama.cpp's, or both
    bench/load.py --scenario eight,overload

    eight       8 clients in a closed loop, prompts and answers of 100 tokens: tokens a second, TTFT
    beside      4 of them (100 tokens, 16 back) beside one with prompts of 3,000 tokens: TTFT of the short ones
    overload    arrivals at twice the rate that `peak` clients reach: answers in time, how fast the others get 429, and how long
                until an idle TTFT is back
    slow        200 streams that nobody reads: memory of each, and what one client beside them loses
    away        clients that go away in the middle of an answer: until their pages are free
    drain       SIGTERM to each role while clients ask: requests that failed
    gateway     a prompt that is cached: what the way through the gateway adds to the time of the workers

Peers are started as their manuals say for many clients: `-np 8`, with and without flash attention, ik_llama.cpp also with tensors
repacked at its start. One that ends by itself has no figures of that round. All load goes to processes that this program starts
on 127.0.0.1, bounded in number and time. stdout: a Markdown table; --json FILE: the figures; stderr: progress.
"""
import argparse
import http.client
import json
import os
import signal
import socket
import statistics
import subprocess
import sys
import threading
import time
from pathlib import Path

from open_loop import REQUEST_SECONDS, ROOT, Cluster, Server, percentile, prompt, say

SCENARIOS = ["eight", "beside", "overload", "slow", "away", "drain", "gateway"]
WITH_PEERS = {"eight", "beside"}
START_SECONDS = 120
PAGE = "/v1/completions"


def wait_until_ready(server, path):
    end = time.monotonic() + START_SECONDS
    while time.monotonic() < end and server.process.poll() is None:
        try:
            if server.call("GET", path, seconds=5)[0] == 200:
                return
        except OSError:
            pass
        time.sleep(0.1)
    raise SystemExit(f"{server.name} did not become ready; its exit code: {server.process.poll()}")


class Ours(Cluster):
    name = "runahead"

    def __init__(self, options):
        super().__init__(options.binary, ["--model", options.model, *options.serve.split()])


class Llama(Server):
    def __init__(self, name, program, options, flags):
        self.name = name
        self.host, self.port = "127.0.0.1", free_port()
        command = [program, "-m", options.model_file, "-np", "8", "-c", str(8 * 4096), "-t", str(os.cpu_count()),
                   "--host", self.host, "--port", str(self.port), "--log-disable", *flags]
        self.process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        wait_until_ready(self, "/health")


def peers(options):
    """(name, program, flags) of each peer and setting."""
    if options.llama_server:
        for setting in ("-fa off", "-fa on"):
            yield f"llama.cpp {setting}", options.llama_server, ["--no-webui", *setting.split()]
    if options.ik_llama_server:
        for setting in ("-fa off", "-fa off -rtr", "-fa on -rtr"):
            yield f"ik_llama.cpp {setting}", options.ik_llama_server, ["--webui", "none", *setting.split()]


class Stream:
    """One streamed completion: `ttft` and `total` in seconds, `tokens`; `status` other than 200 where it was refused."""

    def __init__(self, server, tokens, seed, answer):
        self.body = json.dumps({"model": "default", "prompt": prompt(tokens, seed), "max_tokens": answer, "stream": True,
                                "temperature": 0, "ignore_eos": True})
        self.server = server
        self.ttft = self.total = self.ended_at = self.error = None
        self.status, self.tokens = 0, 0

    def run(self):
        started = time.monotonic()
        connection = http.client.HTTPConnection(self.server.host, self.server.port, timeout=REQUEST_SECONDS)
        try:
            connection.request("POST", PAGE, self.body, {"Content-Type": "application/json"})
            answer = connection.getresponse()
            self.status = answer.status
            if answer.status != 200:
                answer.read()
            else:
                self.read(answer, started)
            self.ended_at = time.monotonic()
            self.total = self.ended_at - started
        except (OSError, http.client.HTTPException) as error:
            self.error = str(error) or type(error).__name__
        finally:
            connection.close()
        return self

    def read(self, answer, started):
        ended = False
        for line in answer:
            if line.startswith(b"data: {"):
                if line.startswith(b'data: {"error"'):
                    self.error = line.decode()
                if self.ttft is None:
                    self.ttft = time.monotonic() - started
                self.tokens += 1
            ended = ended or line.startswith(b"data: [DONE]")
        if not ended and self.error is None:
            self.error = "the stream ended without [DONE]"

    @property
    def ok(self):
        return self.status == 200 and self.error is None and self.ttft is not None


def closed_loop(server, clients, seconds, seed):
    """clients: (prompt tokens, answer tokens) each. The answers of each client, those that ended within the time."""
    end, answers = time.monotonic() + seconds, [[] for _ in clients]

    def one(index):
        prompt_tokens, answer_tokens = clients[index]
        number = 0
        while time.monotonic() < end:
            number += 1
            answers[index].append(Stream(server, prompt_tokens, seed + 10_000 * index + number, answer_tokens).run())

    threads = [threading.Thread(target=one, args=(index,), daemon=True) for index in range(len(clients))]
    started = time.monotonic()
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(seconds + REQUEST_SECONDS)
    return answers, time.monotonic() - started


def of_answers(answers, elapsed, answer_tokens):
    good = [answer for one in answers for answer in one if answer.ok]
    ttfts = sorted(answer.ttft for answer in good)
    failed = sum(len(one) for one in answers) - len(good)
    if failed:
        say(f"  {failed} failed: {next(a.error or a.status for one in answers for a in one if not a.ok)}")
    return {"answers": len(good), "failed": failed, "tokens a second": len(good) * answer_tokens / elapsed,
            "TTFT p50, s": statistics.median(ttfts), "TTFT p95, s": percentile(ttfts, 0.95)}


def eight(server, options, seed):
    closed_loop(server, [(100, 8)] * 8, 2, seed + 500_000)  # warm
    answers, elapsed = closed_loop(server, [(100, 100)] * 8, options.seconds, seed)
    return {f"eight: {name}": value for name, value in of_answers(answers, elapsed, 100).items()}


def beside(server, options, seed):
    answers, elapsed = closed_loop(server, [(100, 16)] * 4 + [(3000, 16)], options.seconds, seed)
    short = of_answers(answers[:4], elapsed, 16)
    long = of_answers(answers[4:], elapsed, 16)
    return {f"beside: short, {name}": short[name] for name in ("answers", "failed", "TTFT p50, s", "TTFT p95, s")} | {
        "beside: long, answers": long["answers"], "beside: long, TTFT p50, s": long["TTFT p50, s"]}


def idle_ttft(server, seed):
    return statistics.median(Stream(server, 100, seed + i, 1).run().ttft for i in range(5))


def overload(server, options, seed):
    """Prompts of 100 tokens and answers of 16. In time: the first token within 10 times that of an idle service."""
    idle = idle_ttft(server, seed + 700_000)
    target = 10 * idle
    answers, elapsed = closed_loop(server, [(100, 16)] * 16, options.seconds, seed)
    done = [a for one in answers for a in one if a.ok]
    peak = len(done) / elapsed
    in_time_at_peak = sum(a.ttft <= target for a in done) / elapsed
    streams, threads, began = [], [], time.monotonic()
    while time.monotonic() - began < options.seconds:
        stream = Stream(server, 100, seed + 800_000 + len(streams), 16)
        thread = threading.Thread(target=stream.run, daemon=True)
        thread.start()
        streams.append(stream)
        threads.append(thread)
        time.sleep(max(0.0, began + len(streams) / (2 * peak) - time.monotonic()))
    over, recovered = time.monotonic(), None
    while recovered is None and time.monotonic() - over < 60:
        probe = Stream(server, 100, seed + 900_000 + int(1000 * (time.monotonic() - over)), 1).run()
        if probe.ok and probe.ttft < 3 * idle:
            recovered = time.monotonic() - over
    for thread in threads:
        thread.join(REQUEST_SECONDS)
    good = [s for s in streams if s.ok]
    refused = sorted(s.total for s in streams if s.status == 429 and s.total is not None)
    begun = began + (over - began) / 2  # by then the queue is as long as it gets
    during = [s for s in good if begun < s.ended_at <= over]
    figures = {"idle TTFT, s": idle, "peak, answers a second": peak, "peak, of them in time": in_time_at_peak,
               "at twice the peak, answers a second": len(during) / (over - begun),
               "at twice the peak, of them in time": sum(s.ttft <= target for s in during) / (over - begun),
               "429": len(refused), "other failures": len(streams) - len(good) - len(refused),
               "normal again after, s": recovered}
    if refused:
        figures |= {"429 p50, s": statistics.median(refused), "429 p99, s": percentile(refused, 0.99)}
    return {f"overload: {name}": value for name, value in figures.items()}


def resident(pid):
    """KiB of a process."""
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith("VmRSS:"):
            return int(line.split()[1])
    return 0


class SlowReaders:
    """Streams whose clients take 512 bytes every half second each: far slower than the answers come."""

    def __init__(self, server, count, seed):
        body = json.dumps({"model": "default", "prompt": prompt(8, seed), "max_tokens": 24, "stream": True, "temperature": 0,
                           "ignore_eos": True, "logprobs": 20})
        head = f"POST {PAGE} HTTP/1.1\r\nHost: localhost\r\nContent-Length: {len(body)}\r\n\r\n{body}"
        self.sockets, self.closed, self.taken = [], threading.Event(), 0
        for _ in range(count):
            one = socket.socket()
            one.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
            one.connect((server.host, server.port))
            one.sendall(head.encode())
            one.setblocking(False)
            self.sockets.append(one)
        self.thread = threading.Thread(target=self.read, daemon=True)
        self.thread.start()

    def read(self):
        while not self.closed.wait(0.5):
            for one in self.sockets:
                try:
                    self.taken += len(one.recv(512))
                except BlockingIOError:
                    pass

    def close(self):
        self.closed.set()
        self.thread.join(10)
        for one in self.sockets:
            one.close()


def at_rest(server):
    cluster = json.loads(server.call("GET", "/v1/cluster")[1])
    return cluster["running"] == 0 and cluster["waiting"] == 0


def slow(server, options, seed):
    """What the readers cost when all that they asked for is made, and only waits to be taken."""
    for i in range(6):
        Stream(server, 64, seed + 50 + i, 64).run()  # what is allocated once
    alone = [Stream(server, 64, seed + i, 64).run() for i in range(12)]
    before = resident(server.process.pid)
    readers = SlowReaders(server, options.readers, seed)
    end = time.monotonic() + REQUEST_SECONDS
    time.sleep(1)
    while not at_rest(server) and time.monotonic() < end:
        time.sleep(0.5)
    grown = resident(server.process.pid) - before
    beside_them = [Stream(server, 64, seed + 100 + i, 64).run() for i in range(12)]
    taken = readers.taken
    readers.close()
    times = [statistics.median(s.total for s in group if s.ok) for group in (alone, beside_them)]
    return {"slow: readers": options.readers, "slow: bytes that each has taken": taken / options.readers,
            "slow: KiB of each in the gateway": grown / options.readers, "slow: another client's answer alone, s": times[0],
            "slow: beside them, s": times[1], "slow: failed beside them": sum(not s.ok for s in beside_them)}


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


class Roles(Server):
    """A coordinator, two prefill and two decode workers as processes of their own, each with its /metrics."""

    def __init__(self, options):
        self.name, self.host, self.port, control = "runahead", "127.0.0.1", free_port(), free_port()
        self.options, self.control, self.workers = options, control, []
        self.process = self.start("coordinator", "--http", f"{self.host}:{self.port}", "--listen", f"127.0.0.1:{control}")
        for role in ("prefill", "prefill", "decode", "decode"):
            self.add(role)
        wait_until_ready(self, "/readyz")
        end = time.monotonic() + START_SECONDS
        while len(json.loads(self.call("GET", "/v1/cluster")[1])["workers"]) < 4:
            if time.monotonic() > end:
                raise SystemExit("the workers did not come")
            time.sleep(0.1)

    def start(self, role, *flags):
        return subprocess.Popen([self.options.binary, role, "--model", self.options.model, "--log-level", "error", *flags])

    def add(self, role):
        port = free_port()
        process = self.start(role, "--coordinator", f"127.0.0.1:{self.control}", "--threads", "1", "--admin", f"127.0.0.1:{port}")
        self.workers.append((role, process, port))

    def pages_in_use(self):
        used = 0
        for _, process, port in self.workers:
            if process.poll() is None:
                connection = http.client.HTTPConnection(self.host, port, timeout=10)
                connection.request("GET", "/metrics")
                for line in connection.getresponse().read().decode().splitlines():
                    if line.startswith("runahead_kv_pages{") and 'state="used"' in line:
                        used += float(line.rsplit(" ", 1)[1])
                connection.close()
        return used

    def stop(self):
        for _, process, _ in self.workers:
            process.terminate()
        for _, process, _ in self.workers:
            process.wait(60)
        super().stop()


def away(server, options, seed):
    """From the close of the connection until no worker uses a page, by each worker's own /metrics."""
    times = []
    for i in range(options.aways):
        body = Stream(server, 300, seed + i, 2000).body
        one = socket.create_connection((server.host, server.port))
        one.sendall(f"POST {PAGE} HTTP/1.1\r\nHost: localhost\r\nContent-Length: {len(body)}\r\n\r\n"
                    f"{body}".encode())
        while b"data: {" not in one.recv(65536):
            pass
        one.close()
        closed = time.monotonic()
        while server.pages_in_use() and time.monotonic() - closed < 10:
            pass
        times.append(time.monotonic() - closed)
    times.sort()
    return {"away: p50, s": statistics.median(times), "away: p99, s": percentile(times, 0.99), "away: clients": len(times)}


def drain(server, options, seed):
    """Eight clients ask; a worker of each role is told to end and another one comes; at last the coordinator."""
    done, stop, lock = [], threading.Event(), threading.Lock()

    def ask(index):
        number = 0
        while not stop.is_set():
            number += 1
            answer = Stream(server, 200, seed + 10_000 * index + number, 40).run()
            with lock:
                done.append(answer)

    threads = [threading.Thread(target=ask, args=(index,), daemon=True) for index in range(8)]
    for thread in threads:
        thread.start()
    for role in ("prefill", "decode"):
        time.sleep(options.seconds / 4)
        _, process, _ = leaving = next(worker for worker in server.workers if worker[0] == role)
        process.send_signal(signal.SIGTERM)
        process.wait(60)
        server.workers.remove(leaving)
        server.add(role)
    time.sleep(options.seconds / 4)
    with lock:
        of_workers = list(done)
    server.process.send_signal(signal.SIGTERM)
    stop.set()  # each has one request on its way
    for thread in threads:
        thread.join(REQUEST_SECONDS)
    server.process.wait(60)
    at_the_end = done[len(of_workers):]
    refused = [a for a in at_the_end if a.status == 503 or (a.status == 0 and "refused" in (a.error or ""))]
    failures = [a for a in done if not a.ok and a not in refused]
    for answer in failures[:3]:
        say(f"  failed: {answer.status} {answer.error}")
    return {"drain: answers": sum(a.ok for a in done), "drain: failed": len(failures),
            "drain: not taken at the very end": len(refused)}


def gateway(server, options, seed):
    """One token after a prompt that the workers have kept, on one connection, one request after the other. The gateway's own:
    what the client waits for beyond the time to first token that the service counts, and its stages tokenize and respond."""
    connection = http.client.HTTPConnection(server.host, server.port, timeout=REQUEST_SECONDS)
    body = json.dumps({"prompt": prompt(600, seed), "max_tokens": 1, "temperature": 0, "stream": True,
                       "stream_options": {"include_usage": True}})
    ttfts, own = [], []
    for i in range(120):
        started, ttft, report = time.monotonic(), None, None
        connection.request("POST", PAGE, body, {"Content-Type": "application/json"})
        for line in connection.getresponse():
            if line.startswith(b"data: {"):
                ttft = ttft or time.monotonic() - started
                report = (json.loads(line[6:]).get("usage") or {}).get("runahead", report)
        if i >= 20:  # the first ones find a cold cache
            ttfts.append(ttft)
            own.append(ttft - report["ttft_seconds"] + report["stages"]["tokenize"] + report["stages"]["respond"])
    connection.close()
    return {"gateway: TTFT p50, ms": 1e3 * statistics.median(ttfts), "gateway: its own p50, ms": 1e3 * statistics.median(own),
            "gateway: its own p95, ms": 1e3 * percentile(sorted(own), 0.95)}


def figures_of(server, scenarios, options, seed):
    figures = {}
    for scenario in scenarios:
        say(f"{server.name}: {scenario}")
        figures |= globals()[scenario](server, options, seed)
    return figures


def with_server(server, scenarios, options, seed):
    try:
        return figures_of(server, scenarios, options, seed)
    finally:
        if server.process.poll() is None:
            server.stop()
        else:
            for _, process, _ in getattr(server, "workers", []):
                process.terminate()


def one_round(options, wanted, seed):
    """{server's name: figures}: the peers in turn with ours, then what is ours alone."""
    result = {}
    shared = [scenario for scenario in wanted if scenario in WITH_PEERS]
    if shared:
        result["runahead"] = with_server(Ours(options), shared, options, seed)
        for name, program, flags in peers(options):
            peer = Llama(name, program, options, flags)
            try:
                result[peer.name] = with_server(peer, shared, options, seed)
            except (OSError, http.client.HTTPException, statistics.StatisticsError):
                if peer.process.poll() is None:
                    raise
                say(f"{peer.name} ended by itself, with {peer.process.returncode}")
                result[peer.name] = {}
    own = result.setdefault("runahead", {})
    for scenario in wanted:
        if scenario not in WITH_PEERS:
            server = Roles(options) if scenario in ("away", "drain") else Ours(options)
            own |= with_server(server, [scenario], options, seed)
    return result


def table(rounds):
    names = list(rounds[0])
    lines = ["| figure | " + " | ".join(names) + " |", "|---" * (len(names) + 1) + "|"]
    for figure in rounds[0]["runahead"]:
        cells = []
        for name in names:
            values = sorted(one[name][figure] for one in rounds if one[name].get(figure) is not None)
            cells.append(f"{statistics.median(values):.3g} ({values[0]:.3g} to {values[-1]:.3g})" if values else "-")
        lines.append(f"| {figure} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--binary", default=str(ROOT / "build" / "release" / "runahead"))
    parser.add_argument("--model", default="smollm2", help="for ours; peers take --model-file")
    parser.add_argument("--model-file", help="the same model as a GGUF file, for peers")
    parser.add_argument("--llama-server", help="llama.cpp's llama-server, built for this machine")
    parser.add_argument("--ik-llama-server", help="ik_llama.cpp's, likewise")
    parser.add_argument("--serve", default="--workers 2", help="flags of `runahead serve`")
    parser.add_argument("--scenario", default=",".join(SCENARIOS))
    parser.add_argument("--rounds", type=int, default=1)
    parser.add_argument("--seconds", type=float, default=20, help="of each load")
    parser.add_argument("--readers", type=int, default=200)
    parser.add_argument("--aways", type=int, default=100)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    wanted = options.scenario.split(",")
    if unknown := set(wanted) - set(SCENARIOS):
        parser.error(f"there is no scenario {sorted(unknown)[0]}; the scenarios are {', '.join(SCENARIOS)}")
    if (options.llama_server or options.ik_llama_server) and not options.model_file:
        parser.error("--llama-server and --ik-llama-server need --model-file")
    rounds = [one_round(options, wanted, options.seed + 1_000_000 * number) for number in range(options.rounds)]
    print(table(rounds))
    if options.json:
        options.json.write_text(json.dumps(rounds, indent=1))


if __name__ == "__main__":
    main()
