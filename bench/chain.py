#!/usr/bin/env python3
"""Time to first token of a running cluster by scheme and prompt length: speed-up, prediction, and where each rank's time goes.

    bench/chain.py --url 127.0.0.1:8000 --tokens 2048,4096            single and balanced, five rounds
    bench/chain.py --schemes single,even,balanced,1280+2432+3392      cuts by hand, with + between
    bench/chain.py --schemes balanced,tsp,tsp-causal,paper-kvr,pipeline@x8 --rank-command 'build/release/runahead bench rank'
    deploy/testbed.sh exec head bench/chain.py --url 10.77.0.254:8000 on a testbed

Rivals (bench/rivals) run as processes of their own beside the cluster's idle workers, as many as it has, each started by
--rank-command with its number from 1 for {rank}: `ssh node{rank} runahead bench rank --data-listen 10.0.0.{rank}:0
--insecure-network`, deploy/testbed.sh rank {rank}. Their chunks: NAME even, one a rank; NAME@640+1280 by hand; NAME@x8 eight
even ones; NAME@t8 eight that take the same time.

Schemes take turns within each round, on the same prompt, and all must give the same logits (SHA-256; rivals that are not exact
to the bit: the same token as other rivals), or the run is void. The first round warms up and does not count. stdout: a Markdown
table; --json FILE: every run with its waterfall; --svg FOLDER: plots of the time to first token, and the waterfall of every
rank of each scheme's middle run beside its prediction; stderr: progress. Only the standard library is used.
"""
import argparse
import json
import random
import statistics
import sys
from contextlib import nullcontext
from pathlib import Path

import plots
from cluster import call
from rank_processes import RankProcesses


def say(text):
    print(text, file=sys.stderr, flush=True)


def prompt(tokens):
    """Token ids of plain words."""
    chance = random.Random(tokens)
    return [chance.randrange(1000, 20000) for _ in range(tokens)]


def options_of(scheme):
    if scheme[0].isdigit():
        return {"cuts": [int(cut) for cut in scheme.split("+")]}
    return {"strategy": scheme}


def measure(url, scheme, tokens):
    """What `usage.runahead` says of one request, as far as a benchmark wants it."""
    body = {"model": "default", "prompt": prompt(tokens), "max_tokens": 1, "temperature": 0, "runahead": options_of(scheme),
            "cache_salt": str(random.getrandbits(64))}  # nobody has computed any of it
    report = call(url, "POST", "/v1/completions", body)["usage"]["runahead"]
    return {"scheme": scheme, "tokens": tokens, "ttft": report["ttft_seconds"], "cuts": report["plan"]["cuts"],
            "predicted": report["plan"]["predicted_ttft_seconds"], "stages": report["stages"], "ranks": report["workers"],
            "attempts": report["attempts"], "logits": report["first_logits_sha256"]}


def check_logits(runs):
    """Exact schemes give the same logits, and the others, whose logits are None, the same token."""
    for tokens in {run["tokens"] for run in runs}:
        alike = [run for run in runs if run["tokens"] == tokens]
        if len({run["logits"] for run in alike if run["logits"]}) > 1:
            raise SystemExit(f"schemes gave unlike logits for {tokens} tokens: the run is void")
        if len({run["token"] for run in alike if "token" in run}) > 1:
            raise SystemExit(f"schemes gave unlike tokens for {tokens} tokens: the run is void")


def prediction_error(runs):
    """Of those that have a prediction: rivals have none."""
    errors = [abs(run["predicted"] / run["ttft"] - 1) for run in runs if run["predicted"]]
    return statistics.median(errors) if errors else None


def row(runs, single):
    """One line of the table: median (fastest to slowest) and what it says."""
    times = sorted(run["ttft"] for run in runs)
    middle = statistics.median(times)
    last = runs[-1]
    ranks = len(last["ranks"])
    return {"tokens": last["tokens"], "scheme": last["scheme"], "ranks": ranks, "ttft": middle, "fastest": times[0],
            "slowest": times[-1], "speed_up": single / middle if single else None,
            "prediction_error": prediction_error(runs), "cuts": last["cuts"],
            "compute": [rank["compute_seconds"] for rank in last["ranks"]],
            "kv_wait": [rank["kv_wait_seconds"] for rank in last["ranks"]]}


def rows_of(runs):
    rows = []
    for tokens in sorted({run["tokens"] for run in runs}):
        alone = [run["ttft"] for run in runs if run["tokens"] == tokens and run["scheme"] == "single"]
        single = statistics.median(alone) if alone else None
        for scheme in dict.fromkeys(run["scheme"] for run in runs):
            chosen = [run for run in runs if run["tokens"] == tokens and run["scheme"] == scheme]
            rows.append(row(chosen, single))
    return rows


def table(rows):
    lines = ["| tokens | scheme | ranks | TTFT s (fastest to slowest) | speed-up | prediction off by | compute of each rank s "
             "| waits s |", "|---|---|---|---|---|---|---|---|"]
    for one in rows:
        speed_up = f"{one['speed_up']:.2f}" if one["speed_up"] else ""
        error = "" if one["prediction_error"] is None else f"{100 * one['prediction_error']:.1f} %"
        lines.append(f"| {one['tokens']} | {one['scheme']} | {one['ranks']} | {one['ttft']:.3f} ({one['fastest']:.3f} to "
                     f"{one['slowest']:.3f}) | {speed_up} | {error} | "
                     f"{' '.join(f'{seconds:.2f}' for seconds in one['compute'])} | "
                     f"{' '.join(f'{seconds:.2f}' for seconds in one['kv_wait'])} |")
    return "\n".join(lines)


def predicted(runs):
    known = [run["predicted"] for run in runs if run["predicted"]]
    return statistics.median(known) if known else None


def draw(folder, rows, runs):
    folder.mkdir(parents=True, exist_ok=True)
    for tokens in sorted({row["tokens"] for row in rows}):
        drawn = []
        for one in (row for row in rows if row["tokens"] == tokens):
            of_it = sorted((run for run in runs if run["tokens"] == tokens and run["scheme"] == one["scheme"]),
                           key=lambda run: run["ttft"])
            drawn.append({"label": one["scheme"], "median": one["ttft"], "fastest": one["fastest"], "slowest": one["slowest"],
                          "predicted": predicted(of_it)})
            middle = of_it[len(of_it) // 2]
            ranks = [{"compute": rank["compute_seconds"], "wait": rank["kv_wait_seconds"]} for rank in middle["ranks"]]
            name = "".join(letter if letter.isalnum() else "-" for letter in one["scheme"])
            picture = plots.waterfall(f"{tokens} tokens, {one['scheme']}", middle["ttft"], middle["predicted"], ranks)
            (folder / f"waterfall-{tokens}-{name}.svg").write_text(picture, encoding="utf-8")
        (folder / f"ttft-{tokens}.svg").write_text(plots.bars(f"Time to first token of {tokens} tokens", drawn), encoding="utf-8")


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--url", default="127.0.0.1:8000")
    parser.add_argument("--tokens", default="2048,4096")
    parser.add_argument("--schemes", default="single,balanced")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--workers", type=int, default=0, help="wait for so many prefill workers")
    parser.add_argument("--rank-command", default="", help="starts one rank of a rival; {rank} is its number from 1")
    parser.add_argument("--json")
    parser.add_argument("--svg", type=Path, metavar="FOLDER")
    options = parser.parse_args()
    lengths, schemes = [int(word) for word in options.tokens.split(",")], options.schemes.split(",")
    ready = [worker for worker in call(options.url, "GET", "/v1/cluster")["workers"]
             if worker["role"] == "prefill" and worker["state"] == "ready"]
    if len(ready) < max(1, options.workers):
        raise SystemExit(f"{len(ready)} prefill workers are ready, {max(1, options.workers)} are wanted")
    rivals = RankProcesses(options.rank_command, len(ready)) if options.rank_command else nullcontext()
    warm, runs, kv_bytes = [], [], None
    with rivals:
        if options.rank_command:
            kv_bytes = rivals.hellos[0]["kv_bytes_per_token"]
        for number in range(options.rounds + 1):
            for tokens in lengths:
                for scheme in schemes:
                    if options.rank_command and scheme.partition("@")[0] in rivals.schemes:
                        run = rivals.run(scheme, prompt(tokens))
                    else:
                        run = measure(options.url, scheme, tokens)
                    (runs if number else warm).append(run)
                    told = f", predicted {run['predicted']:.3f}" if run["predicted"] else ""
                    say(f"round {number}: {tokens} tokens, {scheme}: {run['ttft']:.3f} s{told}, cuts {run['cuts']}")
    check_logits(warm + runs)
    rows = rows_of(runs)
    print(table(rows))
    if options.svg:
        draw(options.svg, rows, runs)
    if options.json:
        with open(options.json, "w", encoding="utf-8") as file:
            json.dump({"rows": rows, "warm_up": warm, "runs": runs, "kv_bytes_per_token": kv_bytes}, file, indent=1)


if __name__ == "__main__":
    main()
