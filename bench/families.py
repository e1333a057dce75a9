#!/usr/bin/env python3
"""Prefill of every family of models in one shape, beside Llama's in the same run, and beside llama.cpp on the same file.

    bench/families.py                                          Llama-3.2-1B's shape, six layers, Q4_K_M, 512 tokens
    bench/families.py --families gemma3,falcon --rounds 5

Each round measures Llama, the family and llama.cpp one after the other, each in a process of its own; the models' weights are
random (bench/random_model.py). llama.cpp is PyPI's xllamacpp: its wheel uses AVX2 at most, so a build for the machine is faster
where there is more. stdout: a Markdown table of medians, with the least and the most. Needs tests/requirements.txt.
"""
import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

import random_model

ROOT = Path(__file__).resolve().parent.parent
RUNAHEAD = Path(os.environ.get("RUNAHEAD_BINARY", ROOT / "build" / "release" / "runahead"))
LLAMA_CPP = """
import sys, time
sys.path.insert(0, {folder!r})
import llama_cpp
engine = llama_cpp.Engine({model!r}, {tokens} * 2, f32_pages=False)
ids = [100 + 7 * i % 9000 for i in range({tokens})]
engine.logits(ids)
begin = time.perf_counter()
engine.logits(ids)
print({tokens} / (time.perf_counter() - begin))
"""


def ours(model, tokens, cache):
    command = [RUNAHEAD, "bench", "prefill", "-m", model, "--tokens", str(tokens), "--repetitions", "3", "--threads", "2",
               "--packed-cache", cache, "-o", "json", "-q"]
    result = json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)["results"][0]
    return tokens / result["seconds"], result["compute"]


def llama_cpp(model, tokens):
    code = LLAMA_CPP.format(folder=str(ROOT / "tests" / "e2e"), model=str(model), tokens=tokens)
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    return float(done.stdout) if done.returncode == 0 else None


def spread(values):
    if not values:
        return "does not load it"
    return f"{statistics.median(values):.0f} ({min(values):.0f}-{max(values):.0f})"


def measure(family, models, args, cache):
    rates = {"llama": [], family: [], "llama.cpp": []}
    for _ in range(args.rounds):
        rates["llama"].append(ours(models("llama"), args.tokens, cache)[0])
        rate, mode = ours(models(family), args.tokens, cache)
        rates[family].append(rate)
        peer = llama_cpp(models(family), args.tokens)
        if peer:
            rates["llama.cpp"].append(peer)
    ratio = [a / b for a, b in zip(rates[family], rates["llama"])]
    beside = [a / b for a, b in zip(rates[family], rates["llama.cpp"])]
    return (f"| {family} | {mode} | {spread(rates[family])} | {statistics.median(ratio):.2f} | {spread(rates['llama.cpp'])} | "
            + (f"{statistics.median(beside):.1f} |" if beside else "|"))


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--families", default=",".join(name for name in random_model.FAMILIES if name != "llama"))
    parser.add_argument("--shape", choices=random_model.SHAPES, default="llama-3.2-1b")
    parser.add_argument("--format", default="Q4_K_M")
    parser.add_argument("--tokens", type=int, default=512)
    parser.add_argument("--rounds", type=int, default=3)
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        def models(family):
            path = Path(folder) / f"{family}.gguf"
            if not path.exists():
                random_model.write_model(path, args.shape, None, args.format, family=family)
            return path

        print(f"| family | mode | tokens/s at {args.tokens} | of Llama's | llama.cpp (AVX2) | ours over it |")
        print("|---|---|---|---|---|---|")
        for family in args.families.split(","):
            print(measure(family, models, args, f"{folder}/packed"), flush=True)
            (Path(folder) / f"{family}.gguf").unlink()
            for packed in (Path(folder) / "packed").glob("*"):
                packed.unlink()


if __name__ == "__main__":
    main()
