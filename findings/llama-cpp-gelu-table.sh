#!/usr/bin/env bash
# llama.cpp (PyPI xllamacpp 2026.10.11549) on the processor: how exactly a model in 32-bit floats is computed whose FFN has GELU
# (Gemma, Falcon, StarCoder2, GPT-2, ...).
#   expected  to the accuracy of 32-bit sums: log-probabilities within some 1e-5 of the same arithmetic in 64 bits
#   seen      GELU is looked up in a table of 16-bit floats, by the input rounded to 16 bits, so log-probabilities are off by
#             1e-3. 64-bit arithmetic with that table in it is ten times nearer; the rest are inputs that round the other way
# Needs python3 with venv and the network, works in a folder of its own, and fails if what is seen changes.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install -q --disable-pip-version-check xllamacpp==2026.10.11549 gguf==0.19.0 numpy==2.4.6
cd "$folder"
venv/bin/python - <<'PYTHON'
import importlib.util
import json
import subprocess
import sys
from importlib.metadata import version

import gguf
import numpy as np

WIDTH, HEADS, FFN, VOCAB, LAYERS, TOKENS = 128, 4, 512, 256, 4, 48
HEAD = WIDTH // HEADS
rng = np.random.default_rng(7)
weights = {"token_embd.weight": rng.standard_normal((VOCAB, WIDTH)) * 0.2, "output_norm.weight": np.ones(WIDTH),
           "output_norm.bias": np.zeros(WIDTH)}
for i in range(LAYERS):
    for name, rows, cols in (("attn_qkv", 3 * WIDTH, WIDTH), ("attn_output", WIDTH, WIDTH), ("ffn_up", FFN, WIDTH),
                             ("ffn_down", WIDTH, FFN)):
        weights[f"blk.{i}.{name}.weight"] = rng.standard_normal((rows, cols)) * (1 / np.sqrt(cols))
    weights[f"blk.{i}.attn_norm.weight"], weights[f"blk.{i}.attn_norm.bias"] = np.ones(WIDTH), np.zeros(WIDTH)
weights = {name: value.astype(np.float32) for name, value in weights.items()}

writer = gguf.GGUFWriter("falcon.gguf", "falcon")
writer.add_context_length(512)
writer.add_embedding_length(WIDTH)
writer.add_block_count(LAYERS)
writer.add_feed_forward_length(FFN)
writer.add_head_count(HEADS)
writer.add_head_count_kv(HEADS)
writer.add_layer_norm_eps(1e-5)
writer.add_tokenizer_model("gpt2")
writer.add_tokenizer_pre("gpt-2")
writer.add_token_list([chr(0x100 + i) for i in range(VOCAB)])
writer.add_token_types([1] * VOCAB)
writer.add_token_merges(["a b"])
writer.add_bos_token_id(0)
writer.add_eos_token_id(1)
for name, value in weights.items():
    writer.add_tensor(name, value)
writer.write_header_to_file()
writer.write_kv_data_to_file()
writer.write_tensors_to_file()
writer.close()


def gelu(x):
    return x / 2 * (1 + np.tanh(np.sqrt(2 / np.pi) * (x + 0.044715 * x**3)))


def gelu_by_table(x):
    looked_up = gelu(x.astype(np.float16).astype(np.float64)).astype(np.float16).astype(np.float64)
    return np.where(np.abs(x) >= 10, np.where(x > 0, x, 0), looked_up)


def forward(ids, activation):
    w = {name: value.astype(np.float64) for name, value in weights.items()}

    def norm(x, name):
        y = x - x.mean(-1, keepdims=True)
        return y / np.sqrt((y**2).mean(-1, keepdims=True) + 1e-5) * w[name + ".weight"] + w[name + ".bias"]

    angle = np.outer(np.arange(len(ids)), 10000.0 ** (-np.arange(0, HEAD, 2) / HEAD))[:, None]

    def turn(x):
        a, b = np.split(x, 2, -1)
        return np.concatenate([a * np.cos(angle) - b * np.sin(angle), b * np.cos(angle) + a * np.sin(angle)], -1)

    x = w["token_embd.weight"][ids]
    for i in range(LAYERS):
        block = f"blk.{i}."
        n = norm(x, block + "attn_norm")
        q, k, v = (part.reshape(len(ids), HEADS, HEAD) for part in np.split(n @ w[block + "attn_qkv.weight"].T, 3, -1))
        scores = np.einsum("qhd,khd->hqk", turn(q), turn(k)) / np.sqrt(HEAD)
        scores = np.where(np.tril(np.ones(scores.shape[1:])), scores, -np.inf)
        p = np.exp(scores - scores.max(-1, keepdims=True))
        mixed = np.einsum("hqk,khd->qhd", p / p.sum(-1, keepdims=True), v).reshape(len(ids), WIDTH)
        inner = activation(n @ w[block + "ffn_up.weight"].T)
        x = x + mixed @ w[block + "attn_output.weight"].T + inner @ w[block + "ffn_down.weight"].T
    logits = norm(x[-1], "output_norm") @ w["token_embd.weight"].T
    return logits - logits.max() - np.log(np.exp(logits - logits.max()).sum())


ids = rng.integers(2, VOCAB, TOKENS)
import xllamacpp as xlc

params = xlc.CommonParams()
params.model.path, params.n_ctx, params.warmup = "falcon.gguf", 512, False
params.cache_type_k = params.cache_type_v = xlc.ggml_type.GGML_TYPE_F32
params.flash_attn_type = xlc.llama_flash_attn_type.LLAMA_FLASH_ATTN_TYPE_DISABLED
server = xlc.Server(params)
answer = server.handle_completions({"prompt": ids.tolist(), "n_predict": 1, "temperature": 0, "n_probs": 20,
                                    "cache_prompt": False})
answer = answer if isinstance(answer, dict) else json.loads(answer)
top = answer["choices"][0]["logprobs"]["content"][0]["top_logprobs"]
said, of = np.array([t["logprob"] for t in top]), [t["id"] for t in top]
exact, by_table = (np.abs(forward(ids, f)[of] - said).max() for f in (gelu, gelu_by_table))
print(f"xllamacpp {version('xllamacpp')}: 20 log-probabilities of a model in F32, the largest difference")
print(f"  from 64-bit arithmetic                    {exact:.1e}")
print(f"  from the same with a table of 16 bits     {by_table:.1e}")
sys.exit(0 if exact > 5e-4 and by_table < exact / 5 else 1)
PYTHON
