#!/usr/bin/env python3
"""Writes a GGUF model of random weights in the shapes of a larger one: its speed is real, what it says means nothing.

    bench/random_model.py OUT.gguf                                        Llama 3 8B's layers, four of them, in Q4_1
    bench/random_model.py OUT.gguf --shape llama-3.2-1b --format Q4_K_M   llama.cpp's usual mix of Q4_K and Q6_K
    bench/random_model.py OUT.gguf --shape llama-3.2-1b --format BF16     floats of 16 bits
    bench/random_model.py OUT.gguf --shape falcon-7b                      Falcon's shape on Llama's layers: 71 heads on one of K/V
    bench/random_model.py OUT.gguf --family gemma3                        another family's layers in that shape
    bench/random_model.py OUT.gguf --shape moe-small --experts 32 --used 4   experts of that FFN size, of which a token takes four
    bench/random_model.py OUT.gguf --tokenizer-only                       for RUNAHEAD_TOKENIZER, where there is no model

The tokenizer, and with it the vocabulary, is that of the default model (or of the file RUNAHEAD_TOKENIZER), so that all engines
of bench/compare_peers.py can load the file. A few layers are enough, since they are all alike. Needs PyPI `gguf`
(tests/requirements.txt).
"""
import argparse
import functools
import math
import os
from pathlib import Path

import gguf
import numpy as np

MODELS = Path(os.environ.get("RUNAHEAD_MODEL_DIR", Path.home() / ".cache" / "runahead" / "models"))
TOKENIZER = Path(os.environ.get("RUNAHEAD_TOKENIZER", MODELS / "SmolLM2-135M-Instruct.Q4_1.gguf"))
SEED = 20240508  # the day of arXiv 2405.05329
# Hidden size, FFN size, query heads, K/V heads, layers. Falcon's FFN has two matrices where Llama's layers have three: two thirds
# of its size is the same work. A quarter: half of hidden size, head size and FFN size, for slow nodes of a testbed. Tiny: for an
# emulated GPU.
SHAPES = {"llama-3-8b": (4096, 14336, 32, 8, 4), "llama-3.2-1b": (2048, 8192, 32, 8, 6),
          "llama-7b": (4096, 11008, 32, 32, 4), "llama-7b-quarter": (2048, 5504, 32, 32, 8),
          "falcon-7b": (4544, 12128, 71, 1, 4), "falcon-7b-quarter": (2272, 6080, 71, 1, 8),
          "smollm2-135m": (576, 1536, 9, 3, 30), "gemma-3-1b": (1024, 6912, 4, 1, 26),
          "moe-small": (1024, 512, 16, 4, 4), "moe-small-dense": (1024, 2048, 16, 4, 4), "tiny": (64, 96, 2, 1, 3)}
# What the layers of a family have beside or instead of Llama's: general.architecture, unless it is the family's name.
FAMILIES = {
    "llama": {},
    "qwen2": {"biases": ("attn_q", "attn_k", "attn_v")},
    "qwen3": {"head_norms": True},
    "gemma2": {"post_norms": True, "window": 4096},
    "gemma3": {"post_norms": True, "head_norms": True, "window": 512},
    "falcon": {"layer_norm": True, "gate": False, "fused_qkv": True, "ffn_norm": False},
    "phi3": {"fused_qkv": True, "fused_gate_up": True},
    "smollm3": {},
    "granite": {"numbers": {"logit_scale": 8.0, "residual_scale": 0.22, "embedding_scale": 12.0, "attention.scale": 0.0156}},
    "olmo2": {"pre_norms": False, "post_norms": True, "row_norms": True},
    "stablelm": {"layer_norm": True, "rotated": 0.25},
    "starcoder2": {"layer_norm": True, "gate": False,
                   "biases": ("attn_q", "attn_k", "attn_v", "attn_output", "ffn_up", "ffn_down")},
}
# Of a block: where its halves d and m lie (m in None: it has none), the sd of a weight whose other bytes are random and
# d is 1, and m over d such that the mean is zero. Q4_K: codes 0..15 times scales 0..63, less minima 0..63 times m.
FORMATS = {"Q4_0": (0, None, 4.6, 0), "Q4_1": (0, 2, 4.6, -7.5), "Q8_0": (0, None, 74, 0), "Q4_K": (0, 2, 260, 7.5),
           "Q6_K": (208, None, 1370, 0)}


def random_blocks(rng, name, rows, row_len):
    """[rows, bytes of a row] with weights of mean 0 and sd 1 / sqrt(row_len)."""
    if name in ("F16", "BF16"):
        weights = rng.standard_normal((rows, row_len), np.float32) * np.float32(1 / math.sqrt(row_len))
        halves = weights.astype("<f2") if name == "F16" else (weights.view("<u4") + 0x8000 >> 16).astype("<u2")
        return halves.view(np.uint8)
    block_len, block_bytes = gguf.GGML_QUANT_SIZES[gguf.GGMLQuantizationType[name]]
    d_at, m_at, sd, m_over_d = FORMATS[name]
    blocks = rng.integers(0, 256, (rows * row_len // block_len, block_bytes), dtype=np.uint8)
    d = 1 / (sd * math.sqrt(row_len))
    blocks[:, d_at:d_at + 2] = np.array([d], "<f2").view(np.uint8)
    if m_at is not None:
        blocks[:, m_at:m_at + 2] = np.array([m_over_d * d], "<f2").view(np.uint8)
    return blocks.reshape(rows, -1)


def has_more_bits(layer, layers):
    """Where llama.cpp's Q4_K_M takes Q6_K for the values and the FFN's second matrix."""
    return layer < layers // 8 or layer >= 7 * layers // 8 or (layer - layers // 8) % 3 == 2


def format_of(name, mix, layer, layers):
    if mix != "Q4_K_M":
        return mix
    if layer is None or (name in ("attn_v", "ffn_down") and has_more_bits(layer, layers)):
        return "Q6_K"
    return "Q4_K"


def copy_tokenizer(writer):
    for name, field in tokenizer_file().fields.items():
        if name.startswith("tokenizer."):
            writer.add_key_value(name, field.contents(), field.types[0], field.types[-1] if len(field.types) > 1 else None)


def write_header(writer, shape, layers, context_len, family):
    hidden, ffn, heads, kv_heads = shape
    writer.add_block_count(layers)
    writer.add_context_length(context_len)
    writer.add_embedding_length(hidden)
    writer.add_feed_forward_length(ffn)
    writer.add_head_count(heads)
    writer.add_head_count_kv(kv_heads)
    writer.add_rope_dimension_count(int(hidden // heads * family.get("rotated", 1)))
    writer.add_rope_freq_base(500000.0)
    (writer.add_layer_norm_eps if family.get("layer_norm") else writer.add_layer_norm_rms_eps)(1e-5)
    if family.get("window"):
        writer.add_sliding_window(family["window"])
    if family.get("experts"):
        writer.add_expert_count(family["experts"])
        writer.add_expert_used_count(family["used"])
    for key, value in family.get("numbers", {}).items():
        writer.add_float32(f"{writer.arch}.{key}", value)


@functools.cache
def tokenizer_file():
    """Seconds: it has a hundred thousand strings."""
    return gguf.GGUFReader(TOKENIZER)


def vocabulary_size():
    return len(tokenizer_file().fields["tokenizer.ggml.tokens"].data)


def write_tokenizer(out):
    writer = gguf.GGUFWriter(out, "llama")
    copy_tokenizer(writer)
    close(writer)


def close(writer):
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


class LayerWriter:
    """The tensors of the layers, in the formats of a mix."""

    def __init__(self, writer, shape, layers, mix, family):
        self.writer, self.layers, self.mix, self.family = writer, layers, mix, family
        self.hidden, self.ffn, self.heads, self.kv_heads = shape
        self.head_dim = self.hidden // self.heads
        self.rng = np.random.default_rng(SEED)

    def matrix(self, name, rows, row_len, layer=None):
        kind = format_of(name, self.mix, layer, self.layers)
        prefix = "" if layer is None else f"blk.{layer}."
        self.writer.add_tensor(f"{prefix}{name}.weight", random_blocks(self.rng, kind, rows, row_len),
                               raw_dtype=gguf.GGMLQuantizationType[kind])
        if name in self.family.get("biases", ()):
            self.writer.add_tensor(f"{prefix}{name}.bias", np.full(rows, 0.01, np.float32))

    def experts(self, layer):
        """All of one product in one tensor, and a router that likes them alike."""
        count = self.family["experts"]
        self.writer.add_tensor(f"blk.{layer}.ffn_gate_inp.weight",
                               self.rng.standard_normal((count, self.hidden), np.float32) / np.float32(math.sqrt(self.hidden)))
        for name, rows, row_len in (("ffn_gate", self.ffn, self.hidden), ("ffn_up", self.ffn, self.hidden),
                                    ("ffn_down", self.hidden, self.ffn)):
            kind = format_of(name, self.mix, layer, self.layers)
            blocks = random_blocks(self.rng, kind, count * rows, row_len)
            self.writer.add_tensor(f"blk.{layer}.{name}_exps.weight", blocks.reshape(count, rows, -1),
                                   raw_dtype=gguf.GGMLQuantizationType[kind])

    def norm(self, name, size=None):
        self.writer.add_tensor(f"{name}.weight", np.ones(size or self.hidden, np.float32))
        if self.family.get("layer_norm"):
            self.writer.add_tensor(f"{name}.bias", np.zeros(size or self.hidden, np.float32))

    def norms(self, layer):
        of, block = self.family.get, f"blk.{layer}."
        if of("pre_norms", True):
            self.norm(block + "attn_norm")
            if of("ffn_norm", True):
                self.norm(block + "ffn_norm")
        if of("post_norms"):
            self.norm(block + "post_attention_norm")
            self.norm(block + "post_ffw_norm")
        for name, heads in (("attn_q_norm", self.heads), ("attn_k_norm", self.kv_heads)):
            if of("head_norms") or of("row_norms"):
                self.norm(block + name, self.head_dim * (heads if of("row_norms") else 1))

    def layer(self, layer):
        of, kv = self.family.get, self.head_dim * self.kv_heads
        if of("fused_qkv"):
            self.matrix("attn_qkv", self.hidden + 2 * kv, self.hidden, layer)
        else:
            for name, rows in (("attn_q", self.hidden), ("attn_k", kv), ("attn_v", kv)):
                self.matrix(name, rows, self.hidden, layer)
        self.matrix("attn_output", self.hidden, self.hidden, layer)
        if of("experts"):
            self.experts(layer)
            self.norms(layer)
            return
        if of("gate", True) and not of("fused_gate_up"):
            self.matrix("ffn_gate", self.ffn, self.hidden, layer)
        self.matrix("ffn_up", (2 if of("fused_gate_up") else 1) * self.ffn, self.hidden, layer)
        self.matrix("ffn_down", self.hidden, self.ffn, layer)
        self.norms(layer)


def write_model(out, shape_name, layers, mix, context_len=32768, family="llama", **changes):
    """changes: of what the family has, window=0 for none."""
    *shape, usual_layers = SHAPES[shape_name]
    layers = layers or usual_layers
    writer = gguf.GGUFWriter(out, family)
    has = {**FAMILIES[family], **changes}
    write_header(writer, shape, layers, context_len, has)
    copy_tokenizer(writer)
    tensors = LayerWriter(writer, shape, layers, mix, has)
    tensors.matrix("token_embd", vocabulary_size(), shape[0])
    if not family.startswith("gemma"):  # whose head is the embedding
        tensors.matrix("output", vocabulary_size(), shape[0])
    tensors.norm("output_norm")
    for layer in range(layers):
        tensors.layer(layer)
    close(writer)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out", type=Path)
    parser.add_argument("--shape", choices=SHAPES, default="llama-3-8b")
    parser.add_argument("--family", choices=FAMILIES, default="llama", help="whose layers they are")
    parser.add_argument("--layers", type=int, help="default: a few, see SHAPES")
    parser.add_argument("--experts", type=int, default=0, help="in each layer, of the shape's FFN size; default: none")
    parser.add_argument("--used", type=int, default=2, help="experts that a token takes")
    parser.add_argument("--context", type=int, default=32768, help="tokens that the model takes")
    parser.add_argument("--tokenizer-only", action="store_true")
    parser.add_argument("--format", choices=["Q4_0", "Q4_1", "Q8_0", "Q4_K_M", "F16", "BF16"], default="Q4_1")
    args = parser.parse_args()
    if not TOKENIZER.exists():
        parser.error(f"there is no {TOKENIZER}, whose tokenizer the model gets; deploy/quickstart.sh fetches it")
    if args.tokenizer_only:
        write_tokenizer(args.out)
    else:
        write_model(args.out, args.shape, args.layers, args.format, args.context, args.family,
                    **({"experts": args.experts, "used": args.used} if args.experts else {}))


if __name__ == "__main__":
    main()
