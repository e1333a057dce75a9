"""What a peer process does: it reads one JSON object a line on stdin and answers one a line on stdout.

    {"op": "prefill", "ids": [...]}               -> {"seconds": s}            until the logits of the last token
    {"op": "decode", "ids": [...], "steps": n}    -> {"seconds": s}            median of one step after the context `ids`
    {"op": "fill", "prompts": [[...], ...]}       -> {}                        contexts of as many sequences (llama.cpp only)
    {"op": "decode_batch", "batch": b, "steps": n} -> {"seconds": s}           the same for the first b of them at once
    {"op": "perplexity", "ids": [...], "ctx": n}  -> {"perplexity": p}         llama.cpp's rule; or {"unsupported": why}
    {"op": "memory"}                              -> {"peak_bytes": b}         high-water mark of resident memory

A peer is an object with these methods. What a library prints must not reach the driver: stdout is moved away first.
"""
import json
import os
import sys


def peak_resident_bytes():
    with open("/proc/self/status") as status:
        for line in status:
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) * 1024  # the kernel counts in KiB
    raise RuntimeError("no VmHWM in /proc/self/status")


def serve(open_peer):
    """Answers requests until stdin ends. The first line out says that the model is loaded, and which version runs."""
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)

    def answer(fields):
        answers.write(json.dumps(fields) + "\n")
        answers.flush()

    peer = open_peer()
    answer({"ready": peer.version})
    for line in sys.stdin:
        request = json.loads(line)
        op = request.pop("op")
        answer({"peak_bytes": peak_resident_bytes()} if op == "memory" else getattr(peer, op)(**request))
