#!/usr/bin/env python3
"""What the prefix cache is worth: a second question about a document, the next turn of a conversation about it, and several
choices of one prompt, over the real API.

    bench/second_question.py                                 this build, deploy/examples/handbook.txt, one and two workers
    bench/second_question.py --document FILE --rounds 9

Each round asks two questions about the document with a `cache_salt` of its own, so the first one finds nothing kept; then goes on
behind an answer of --answer-tokens tokens to the second; then one choice and --choices choices of a prompt. It starts `runahead
serve` itself, on free ports of this machine. The second question and the next turn are asked once more with another salt: their
logits must be the same, or the run is void. stdout: a Markdown table of medians (smallest to largest); only the standard library
is used.
"""
import argparse
import random
import statistics
import time
from pathlib import Path

from cluster import Cluster

ROOT = Path(__file__).resolve().parent.parent


def ask(cluster, prompt, salt, choices=1, tokens=1):
    """Seconds of the whole answer, its usage, and the text of its first choice; when all workers have said what they keep."""
    body = {"prompt": prompt, "max_tokens": tokens, "temperature": 0, "n": choices, "cache_salt": salt, "min_tokens": tokens}
    started = time.monotonic()
    whole = cluster.call("POST", "/v1/completions", body)
    took = time.monotonic() - started
    while any(worker["running"] for worker in cluster.call("GET", "/v1/cluster")["workers"]):
        time.sleep(0.005)
    return took, whole["usage"], whole["choices"][0]["text"]


def check_same(warm, cold):
    if warm["runahead"]["first_logits_sha256"] != cold["runahead"]["first_logits_sha256"]:
        raise SystemExit("kept pages changed the logits: the run is void")


def one_round(cluster, document, choices, answer_tokens):
    salts = [str(random.getrandbits(64)) for _ in range(4)]
    first, second = (document + question for question in ("\n\nWho keeps the light?", "\n\nWhat is the rule for fog?"))
    cold = ask(cluster, first, salts[0])[1]
    warm = ask(cluster, second, salts[0])[1]
    check_same(warm, ask(cluster, second, salts[1])[1])
    turn = second + ask(cluster, second, salts[0], tokens=answer_tokens)[2] + "\n\nAnd what is the rule for snow?"
    follows = ask(cluster, turn, salts[0])[1]
    check_same(follows, ask(cluster, turn, salts[1])[1])
    alone, many = ask(cluster, first, salts[2])[0], ask(cluster, first, salts[3], choices)[0]
    return {"tokens": warm["prompt_tokens"], "cached": warm["prompt_tokens_details"]["cached_tokens"],
            "first": cold["runahead"]["ttft_seconds"], "second": warm["runahead"]["ttft_seconds"],
            "share": warm["runahead"]["ttft_seconds"] / cold["runahead"]["ttft_seconds"], "choices": many / alone,
            "turn": follows["runahead"]["ttft_seconds"],
            "uncached": follows["prompt_tokens"] - follows["prompt_tokens_details"]["cached_tokens"]}


def spread(rounds, name, digits=3):
    values = sorted(each[name] for each in rounds)
    return f"{statistics.median(values):.{digits}f} ({values[0]:.{digits}f} to {values[-1]:.{digits}f})"


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--binary", default=str(ROOT / "build/release/runahead"))
    parser.add_argument("--document", type=Path, default=ROOT / "deploy/examples/handbook.txt")
    parser.add_argument("--workers", default="1,2", help="with commas between")
    parser.add_argument("--choices", type=int, default=4)
    parser.add_argument("--answer-tokens", type=int, default=256)
    parser.add_argument("--rounds", type=int, default=5)
    options = parser.parse_args()
    document = options.document.read_text()
    print("| workers | tokens, cached | first question, s | second, s | second / first "
          f"| next turn behind {options.answer_tokens} tokens, s | of it computed, tokens | n = {options.choices} / n = 1 |")
    print("|---|---|---|---|---|---|---|---|")
    for workers in options.workers.split(","):
        with Cluster(options.binary, "--workers", workers) as cluster:
            rounds = [one_round(cluster, document, options.choices, options.answer_tokens) for _ in range(options.rounds)]
        cells = [workers, f"{rounds[0]['tokens']}, {rounds[0]['cached']}",
                 *(spread(rounds, name) for name in ("first", "second", "share", "turn")), spread(rounds, "uncached", 0),
                 spread(rounds, "choices", 2)]
        print("| " + " | ".join(cells) + " |", flush=True)


if __name__ == "__main__":
    main()
