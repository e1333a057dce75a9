#!/usr/bin/env python3
"""Writes smollm2.json: logits, greedy continuations and perplexity of SmolLM2-135M-Instruct (Q4_1) in float64.

Run: python3 tests/golden/make_golden.py MODEL.gguf   (needs: pip install gguf==0.19.0 numpy regex; a few minutes)
README.md has the meaning of each field and the tolerances.
"""
import json
import sys
from pathlib import Path

import numpy as np

from reference_model import ReferenceModel
from tokenizer_oracle import Oracle

HERE = Path(__file__).parent
GREEDY = 20      # tokens of each continuation
PPL_CONTEXT = 256
SAMPLE_STEP = 389  # a prime: every 389th logit, so that the whole vocabulary is looked at


def prompts(oracle):
    long_text = (HERE / "long_text.txt").read_text()
    long_ids = oracle.encode(long_text, False)
    code = ("def fibonacci(n):\n    \"\"\"Return the n-th Fibonacci number.\"\"\"\n"
            "    a, b = 0, 1\n    for _ in range(n):\n")
    chat = ("<|im_start|>system\nYou are a helpful AI assistant named SmolLM, trained by Hugging Face<|im_end|>\n"
            "<|im_start|>user\nWhy is the sky blue? Answer in one sentence.<|im_end|>\n<|im_start|>assistant\n")
    multilingual = ("Guten Morgen! \u00bfC\u00f3mo est\u00e1s? \u4f60\u597d\uff0c\u4e16\u754c\u3002 "
                    "\u041f\u0440\u0438\u0432\u0435\u0442, \u043c\u0438\u0440 \U0001f30d. In French, \"good night\" is")
    return [
        ("one_token", "The", oracle.encode("The", False)),
        ("short", "The capital of France is", oracle.encode("The capital of France is", False)),
        ("code", code, oracle.encode(code, False)),
        ("multilingual", multilingual, oracle.encode(multilingual, False)),
        ("chat", chat, oracle.encode(chat, True)),
        ("medium", None, long_ids[:300]),
        ("long", None, long_ids),
    ], long_ids


def describe(model, name, text, ids):
    kv = []
    logits = model.logits(model.forward(np.array(ids), kv)[-1:])[0]
    top = np.argsort(-logits, kind="stable")[:20]
    entry = {"name": name, "text": text, "ids": ids, "top": [[int(i), round(float(logits[i]), 9)] for i in top],
             "sample": [round(float(x), 6) for x in logits[::SAMPLE_STEP]],
             "log_sum_exp": float(np.log(np.sum(np.exp(logits - logits.max()))) + logits.max()), "greedy": []}
    for _ in range(GREEDY):
        best, second = np.argsort(-logits, kind="stable")[:2]
        entry["greedy"].append([int(best), round(float(logits[best] - logits[second]), 9)])
        logits = model.logits(model.forward(np.array([best]), kv))[0]
    print(name, len(ids), "tokens; least margin", min(m for _, m in entry["greedy"]), file=sys.stderr, flush=True)
    return entry


def perplexity(model, ids):
    """llama.cpp's rule: whole chunks, each from an empty cache, no BOS; the tokens after the middle are scored."""
    total, scored, first = 0.0, 0, PPL_CONTEXT // 2
    for chunk in range(len(ids) // PPL_CONTEXT):
        tokens = np.array(ids[chunk * PPL_CONTEXT:(chunk + 1) * PPL_CONTEXT])
        logits = model.logits(model.forward(tokens, [])[first:-1])
        top = logits.max(axis=1)
        log_sum = np.log(np.exp(logits - top[:, None]).sum(axis=1)) + top
        total += float(np.sum(log_sum - logits[np.arange(len(top)), tokens[first + 1:]]))
        scored += len(top)
    return {"context": PPL_CONTEXT, "ids": ids, "tokens_scored": scored, "perplexity": float(np.exp(total / scored))}


def main():
    model = ReferenceModel(sys.argv[1])
    cases, long_ids = prompts(Oracle(model.reader))
    golden = {"sample_step": SAMPLE_STEP, "prompts": [describe(model, *case) for case in cases],
              "perplexity": perplexity(model, long_ids)}
    (HERE / "smollm2.json").write_text(json.dumps(golden, separators=(",", ":")).replace('{"name"', '\n{"name"') + "\n")


main()
