#!/usr/bin/env python3
"""The paper's comparison on slow nodes of one machine: its schemes and bandwidths, its printed gains beside ours.

    sudo bench/paper.py                                 4 nodes, 4,096 tokens, the paper's 300 and 10 GB/s: about 10 minutes
    sudo bench/paper.py --nodes 4,8 --tokens 4096,8192 --bandwidths 300,10,1 --rounds 3 --noise --json runs.json

A link is as fast beside a node as the paper's is beside its A100: rate = bandwidth * (K/V bytes a second that one node makes
here) / (those that one A100 made there, for Llama 7B at this length by its table 3). Above 1 Gbit/s nothing is to be had here,
and nothing is lost: the paper's 300 GB/s is 90 times what the chain needs. Each combination is one run of bench/chain.py, with
its schemes in turn, its check of the tokens and the testbed's control (deploy/testbed.sh check) before it. stdout: Markdown;
--json FILE: every run; --svg FOLDER: plots.
"""
import argparse
import json
import os
import shlex
import signal
import subprocess
import sys
import tempfile
import time
from contextlib import contextmanager
from pathlib import Path

import chain
import plots

ROOT = Path(__file__).resolve().parents[1]
TESTBED = ROOT / "deploy/testbed.sh"
URL = "10.77.0.254:8000"
SHARE = {1: 80, 2: 50, 4: 25, 8: 20}  # percent of a core a node: docs/benchmarks.md, "The testbed"
LINK_MOST = 1000  # Mbit/s that the shaper reaches
READ_CLUSTER = "import sys, urllib.request; print(urllib.request.urlopen(sys.argv[1], timeout=5).read().decode())"
READY_SECONDS = 300  # to load the model on so slow nodes

# arXiv 2405.05329. Seconds of one A100 (table 3), and gains over TSP of KVR-S (table 1: 300 GB/s; figure 8: 10 GB/s).
LLAMA_7B_KV_BYTES = 2 * 32 * 4096 * 2  # a token: K and V, 32 layers, 4,096 values of fp16
A100_SECONDS = {1024: 0.10, 2048: 0.24, 4096: 0.65, 8192: 1.95, 12288: 3.95}
PAPER_GAIN = {(4, 4096, 300): 1.17, (4, 8192, 300): 1.30, (8, 4096, 300): 1.14, (8, 8192, 300): 1.36, (4, 8192, 10): 1.79}
SCHEMES = ["single", "even", "balanced", "tsp", "tsp-causal", "ring", "paper-kvr", "pipeline@t8"]
ABLATION = ["chain", "chain-late-receives", "chain-whole-prefixes", "chain-late-sends", "chain-late-attention",
            "chain-full-last-layer", "chain-dense", "paper-kvr"]


def say(text):
    print(text, file=sys.stderr, flush=True)


def testbed(*words, **options):
    return subprocess.run([str(TESTBED), *map(str, words)], check=True, **options)


class Cluster:
    """A cluster of ours that runs on the nodes."""

    def __init__(self, nodes, flags):
        self.nodes, self.flags = nodes, flags

    def wait_until_ready(self):
        deadline = time.monotonic() + READY_SECONDS
        while time.monotonic() < deadline:
            done = subprocess.run([str(TESTBED), "exec", "head", sys.executable, "-c", READ_CLUSTER, f"http://{URL}/v1/cluster"],
                                  check=False, capture_output=True, text=True)
            workers = json.loads(done.stdout or "{}").get("workers", [])
            if [worker["state"] for worker in workers].count("ready") == self.nodes + 1:
                return
            time.sleep(1)
        raise SystemExit(f"the cluster on the testbed did not become ready within {READY_SECONDS} s")

    def link(self, mbit):
        for node in range(1, self.nodes + 1):
            testbed("link", node, f"{mbit:.3f}mbit")

    def chain(self, tokens, schemes, rounds, check=True):
        """Rows and runs of bench/chain.py."""
        if check:
            testbed("check", stdout=sys.stderr)
        with tempfile.NamedTemporaryFile("r", suffix=".json") as file:
            testbed("exec", "head", ROOT / "bench/chain.py", "--url", URL, "--tokens", tokens, "--rounds", rounds, "--schemes",
                    ",".join(schemes), "--rank-command", shlex.join([str(TESTBED), "rank", "{rank}", *self.flags]),
                    "--json", file.name, stdout=sys.stderr)
            return json.load(file)


@contextmanager
def ended_with_its_group(*words):
    process = subprocess.Popen([str(TESTBED), *map(str, words)], start_new_session=True)
    try:
        yield
    finally:
        os.killpg(process.pid, signal.SIGTERM)
        process.wait(timeout=60)


@contextmanager
def cluster_on(nodes, flags, share=None):
    testbed("up", nodes, share or SHARE[nodes], f"{LINK_MOST}mbit")
    try:
        with ended_with_its_group("cluster", *flags):
            cluster = Cluster(nodes, flags)
            cluster.wait_until_ready()
            yield cluster
    finally:
        testbed("down")


def a100_kv_rate(tokens):
    """K/V bytes that one A100 made a second, for the nearest length that the paper prints."""
    nearest = min(A100_SECONDS, key=lambda length: abs(length - tokens))
    return LLAMA_7B_KV_BYTES * nearest / A100_SECONDS[nearest]


def link_mbit(bandwidth, tokens, kv_bytes_per_token, single_seconds):
    here = kv_bytes_per_token * tokens / single_seconds
    return min(LINK_MOST, bandwidth * 1e9 * here / a100_kv_rate(tokens) * 8 / 1e6)


def seconds(result, scheme):
    return next((row["ttft"] for row in result["rows"] if row["scheme"] == scheme), None)


def gain(result, over):
    ours, theirs = seconds(result, "balanced"), seconds(result, over)
    return f"{theirs / ours:.2f}" if ours and theirs else ""


def table(results):
    columns = ["nodes", "tokens", "GB/s there", "Mbit/s here", "single s", "balanced s", "speed-up", "over tsp (paper)",
               "over tsp-causal", "over ring", "over paper-kvr", "over pipeline", "prediction off"]
    lines = [f"| {' | '.join(columns)} |", "|" + "---|" * len(columns)]
    for one in results:
        result = one["result"]
        balanced = next(row for row in result["rows"] if row["scheme"] == "balanced")
        paper = PAPER_GAIN.get((one["nodes"], one["tokens"], one["bandwidth"]))
        lines.append(f"| {one['nodes']} | {one['tokens']} | {one['bandwidth']:g} | {one['mbit']:.3g} | {one['single']:.2f} | "
                     f"{balanced['ttft']:.2f} | {one['single'] / balanced['ttft']:.2f} | {gain(result, 'tsp')}"
                     f"{f' ({paper:.2f})' if paper else ''} | {gain(result, 'tsp-causal')} | {gain(result, 'ring')} | "
                     f"{gain(result, 'paper-kvr')} | {gain(result, 'pipeline@t8')} | "
                     f"{100 * balanced['prediction_error']:.1f} % |")
    return "\n".join(lines)


def noise_table(results):
    lines = ["| nodes | tokens | GB/s there | balanced: with side traffic | tsp: with side traffic |", "|---|---|---|---|---|"]
    for one in results:
        grown = [seconds(one["noisy"], scheme) / seconds(one["result"], scheme) - 1 for scheme in ("balanced", "tsp")]
        lines.append(f"| {one['nodes']} | {one['tokens']} | {one['bandwidth']:g} | {100 * grown[0]:+.1f} % | "
                     f"{100 * grown[1]:+.1f} % |")
    return "\n".join(lines)


def with_noise(cluster, one, rounds):
    """The paper's figure 11: both ways between two neighbours, at half of the link."""
    with ended_with_its_group("noise", 2, 3, f"{one['mbit'] / 2:.3f}"):
        return cluster.chain(one["tokens"], ["balanced", "tsp"], rounds)


def ablation_table(results):
    """What each idea is worth: all with the same cuts."""
    named = [f"with {name[6:].replace('-', ' ')}" if name.startswith("chain-") else name for name in ABLATION[1:]]
    lines = ["| nodes | tokens | GB/s there | chain s | " + " | ".join(named) + " |",
             "|" + "---|" * (len(ABLATION) + 3)]
    for one in results:
        times = [seconds(one["ablation"], row["scheme"]) for row in one["ablation"]["rows"]]
        lines.append(f"| {one['nodes']} | {one['tokens']} | {one['bandwidth']:g} | {times[0]:.2f} | " +
                     " | ".join(f"{100 * (time / times[0] - 1):+.1f} %" for time in times[1:]) + " |")
    return "\n".join(lines)


def ablation(cluster, one, rounds):
    """Ranks of our own chain without one idea each, with the cuts of the last plan, or even ones where that took fewer nodes."""
    balanced = [run for run in one["result"]["runs"] if run["scheme"] == "balanced"]
    cuts = balanced[-1]["cuts"]
    behind = "@" + "+".join(map(str, cuts)) if len(cuts) + 1 == cluster.nodes else ""  # else even ones
    return cluster.chain(one["tokens"], [name + behind for name in ABLATION], rounds)


RECORDED = ["single", "even", "balanced"]  # by the service itself
RECORD_HEAD = "nodes,tokens,mbit,kv_bytes_per_token,scheme,cuts,ttft,predicted,compute,wait"


def record(results):
    """CSV of every run of our own schemes, first ones included: what tests/planner/recorded_runs_test.cc plays again."""
    lines, seen = [RECORD_HEAD], set()
    for one in results:
        where = f"{one['nodes']},{one['tokens']},{one['mbit']:.4g},{one['kv_bytes_per_token']}"
        for run in (run for result in (one["alone"], one["result"]) for run in result["warm_up"] + result["runs"]):
            if run["scheme"] not in RECORDED or id(run) in seen:
                continue
            seen.add(id(run))  # one worker alone knows no link: its runs are those of every link
            ranks = {key: "+".join(f"{rank[key + '_seconds']:.3f}" for rank in run["ranks"]) for key in ("compute", "kv_wait")}
            lines.append(f"{where},{run['scheme']},{'+'.join(map(str, run['cuts']))},{run['ttft']:.3f},{run['predicted']:.3f},"
                         f"{ranks['compute']},{ranks['kv_wait']}")
    return "\n".join(lines) + "\n"


def draw(folder, results):
    folder.mkdir(parents=True, exist_ok=True)
    for tokens in sorted({one["tokens"] for one in results}):
        for bandwidth in sorted({one["bandwidth"] for one in results}):
            chosen = [one for one in results if one["tokens"] == tokens and one["bandwidth"] == bandwidth]
            series = {}
            for one in chosen:
                for row in one["result"]["rows"]:
                    series.setdefault(row["scheme"], []).append((one["nodes"], one["single"] / row["ttft"]))
            series["ideal"] = [(one["nodes"], one["nodes"]) for one in chosen]
            title = f"{tokens} tokens, links like {bandwidth:g} GB/s beside an A100"
            (folder / f"scaling-{tokens}-{bandwidth:g}.svg").write_text(
                plots.lines(title, "nodes", "times as fast as one node", series), encoding="utf-8")
    for one in results:
        chain.draw(folder / f"{one['nodes']}-nodes-{one['bandwidth']:g}", one["result"]["rows"], one["result"]["runs"])


def slow_node(options):
    """Four nodes, of which one turns to 0.6 of its speed: every request from then on beside the ideal, all rates added up."""
    nodes, share, slow = 4, 33, 20
    tokens, lines = options.tokens[0], ["| request | balanced s | over the ideal | predicted s | cuts |", "|---|---|---|---|---|"]
    with cluster_on(nodes, shlex.split(options.flags), share) as cluster:
        alone = cluster.chain(tokens, ["single"], options.rounds)
        before = cluster.chain(tokens, ["balanced"], options.rounds)
        single, steady = seconds(alone, "single"), seconds(before, "balanced")
        testbed("cpu", 2, slow)
        after = cluster.chain(tokens, ["balanced"], max(3, options.rounds), check=False)
    ideal = single / (nodes - 1 + slow / share)
    lines.append(f"| before, all equal | {steady:.2f} | {steady / (single / nodes):.2f} | | |")
    for number, run in enumerate(after["warm_up"] + after["runs"]):
        lines.append(f"| {number + 1} with a node at {slow / share:.2f} | {run['ttft']:.2f} | {run['ttft'] / ideal:.2f} | "
                     f"{run['predicted']:.2f} | {run['cuts']} |")
    return "\n".join([f"{tokens} tokens, {nodes} nodes of {share} %: one alone {single:.2f} s", "", *lines])


def measure(options):
    results = []
    for nodes in options.nodes:
        with cluster_on(nodes, shlex.split(options.flags)) as cluster:
            for tokens in options.tokens:
                alone = cluster.chain(tokens, ["single"], min(options.rounds, 2))
                single, kv_bytes = seconds(alone, "single"), alone["kv_bytes_per_token"]
                for bandwidth in options.bandwidths:
                    mbit = link_mbit(bandwidth, tokens, kv_bytes, single)
                    say(f"{nodes} nodes, {tokens} tokens: {bandwidth:g} GB/s beside an A100 are {mbit:.3g} Mbit/s beside a node")
                    cluster.link(mbit)
                    one = {"nodes": nodes, "tokens": tokens, "bandwidth": bandwidth, "mbit": mbit, "single": single,
                           "kv_bytes_per_token": kv_bytes, "alone": alone,
                           "result": cluster.chain(tokens, [scheme for scheme in options.schemes if scheme != "single"],
                                                   options.rounds)}
                    if options.noise:
                        one["noisy"] = with_noise(cluster, one, options.rounds)
                    if options.ablation:
                        one["ablation"] = ablation(cluster, one, options.rounds)
                    results.append(one)
                cluster.link(LINK_MOST)
    return results


def main():
    def numbers(kind):
        return lambda text: [kind(word) for word in text.split(",")]

    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--nodes", type=numbers(int), default=[4])
    parser.add_argument("--tokens", type=numbers(int), default=[4096])
    parser.add_argument("--bandwidths", type=numbers(float), default=[300, 10], help="GB/s of the paper")
    parser.add_argument("--schemes", type=numbers(str), default=SCHEMES)
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--noise", action="store_true", help="each once more with side traffic, the paper's figure 11")
    parser.add_argument("--ablation", action="store_true", help="each once more without one of our ideas after the other")
    parser.add_argument("--slow-node", action="store_true", help="only this: four nodes, one of which turns to 0.6 of its speed")
    parser.add_argument("--flags", default="", help="of every worker and rank")
    parser.add_argument("--model", help="a GGUF file, of bench/random_model.py for one; default: the default model")
    parser.add_argument("--json")
    parser.add_argument("--record", type=Path, metavar="FILE", help="CSV of our own schemes' runs")
    parser.add_argument("--svg", type=Path, metavar="FOLDER", help="plots of scaling, times and waterfalls")
    options = parser.parse_args()
    if options.model:
        os.environ["RUNAHEAD_MODEL"] = str(Path(options.model).resolve())
    if unknown := set(options.nodes) - set(SHARE):
        raise SystemExit(f"there are shares for {sorted(SHARE)} nodes, not for {sorted(unknown)}")
    try:
        if options.slow_node:
            return print(slow_node(options))
        results = measure(options)
    except subprocess.CalledProcessError as error:
        raise SystemExit(f"{Path(error.cmd[0]).name} {error.cmd[1]} failed; its reason stands above") from None
    print(table(results))
    if options.noise:
        print("\n" + noise_table(results))
    if options.ablation:
        print("\n" + ablation_table(results))
    if options.record:
        options.record.write_text(record(results), encoding="utf-8")
    if options.svg:
        draw(options.svg, results)
    if options.json:
        Path(options.json).write_text(json.dumps(results, indent=1), encoding="utf-8")


if __name__ == "__main__":
    main()
