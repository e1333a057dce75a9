#!/usr/bin/env python3
"""What a chain sends of a model whose layers have a window, beside the same model without: Gemma 3's layers, 8,192 tokens, four
ranks.

    bench/windows.py                                           K/V bytes into each rank, and the time to the first token
    bench/windows.py --shape gemma-3-1b --tokens 8192          the whole width: minutes

Both clusters run on this machine, over TCP, one after the other, with even cuts; the weights are random (bench/random_model.py).
The narrow shape of the default has Gemma 3 1B's layers, window and K/V head: the same pages are left out, and they are as large.
"""
import argparse
import os
import tempfile
from pathlib import Path

import random_model
from cluster import Cluster

ROOT = Path(__file__).resolve().parent.parent
RUNAHEAD = Path(os.environ.get("RUNAHEAD_BINARY", ROOT / "build" / "release" / "runahead"))
random_model.SHAPES["narrow"] = (256, 512, 1, 1, 26)


def measure(cluster, tokens):
    body = {"prompt": [100 + 7 * i % 9000 for i in range(tokens)], "max_tokens": 2, "temperature": 0, "cache_salt": "bench",
            "runahead": {"strategy": "even"}}
    answer = cluster.call("POST", "/v1/completions", body)
    trace = cluster.call("GET", f"/v1/requests/{answer['id']}/trace")
    received = {}
    for event in trace["traceEvents"]:
        if event.get("name") == "kv_send":
            received[event["args"]["runahead.rank"]] = event["args"]["runahead.kv.received_bytes"]
    return [received[rank] for rank in sorted(received)], answer["usage"]["runahead"]["ttft_seconds"]


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--shape", default="narrow", choices=random_model.SHAPES)
    parser.add_argument("--tokens", type=int, default=8192)
    parser.add_argument("--ranks", type=int, default=4)
    args = parser.parse_args()
    busiest = {}
    with tempfile.TemporaryDirectory() as folder:
        for name, changes in (("windows", {}), ("no windows", {"window": 0})):
            path = Path(folder) / f"{name.split()[0]}.gguf"
            random_model.write_model(path, args.shape, None, "Q8_0", family="gemma3", **changes)
            flags = ["--workers", str(args.ranks), "--model", path, "--transport", "tcp", "--packed-cache", folder]
            with Cluster(RUNAHEAD, *flags) as cluster:
                received, seconds = measure(cluster, args.tokens)
            busiest[name] = max(received)
            mib = [round(b / 2**20, 1) for b in received]
            print(f"{name}: MiB into each rank {mib}, first token after {seconds:.2f} s", flush=True)
    print(f"busiest link: {busiest['windows'] / busiest['no windows']:.3f} of the same model without windows")


if __name__ == "__main__":
    main()
