"""The Llama architecture in numpy and float64, straight from the published definition: an oracle, not an engine.

RMSNorm before each block; grouped-query attention with RoPE on interleaved pairs (GGUF's order for `llama`); SwiGLU;
logits from output.weight or the embedding. Weights are the file's, dequantised by PyPI `gguf` to float32, then exact in
float64; every other operation runs in float64.
"""
import numpy as np
from gguf import GGUFReader, quants


class ReferenceModel:
    def __init__(self, path):
        self.reader = GGUFReader(path)
        self.tensors = {t.name: t for t in self.reader.tensors}
        arch = self.value("general.architecture")
        assert arch == "llama", arch
        get = lambda name: self.value("llama." + name)
        self.layers = get("block_count")
        self.heads, self.kv_heads = get("attention.head_count"), get("attention.head_count_kv")
        self.dim = get("embedding_length")
        self.head_dim = self.dim // self.heads
        self.epsilon = np.float64(get("attention.layer_norm_rms_epsilon"))
        self.base = np.float64(get("rope.freq_base"))
        self.embedding = self.weight("token_embd.weight").astype(np.float64)  # [vocab, dim]
        tied = "output.weight" not in self.tensors
        self.head = self.embedding if tied else self.weight("output.weight").astype(np.float64)
        self.output_norm = self.weight("output_norm.weight").astype(np.float64)
        self.cache = {}

    def value(self, key):
        return self.reader.fields[key].contents()

    def weight(self, name):
        tensor = self.tensors[name]
        return quants.dequantize(tensor.data, tensor.tensor_type).reshape(tuple(reversed(tensor.shape.tolist())))

    def layer_weights(self, layer):
        if layer not in self.cache:
            names = ["attn_norm", "attn_q", "attn_k", "attn_v", "attn_output",
                     "ffn_norm", "ffn_gate", "ffn_up", "ffn_down"]
            self.cache[layer] = {n: self.weight(f"blk.{layer}.{n}.weight").astype(np.float64) for n in names}
        return self.cache[layer]

    def norm(self, x, weight):
        return x / np.sqrt(np.mean(x * x, axis=-1, keepdims=True) + self.epsilon) * weight

    def rope(self, x, positions):  # x [tokens, heads, head_dim]
        frequencies = self.base ** (-np.arange(0, self.head_dim, 2, dtype=np.float64) / self.head_dim)
        angle = positions[:, None].astype(np.float64) * frequencies[None, :]
        cos, sin = np.cos(angle)[:, None, :], np.sin(angle)[:, None, :]
        even, odd = x[..., 0::2], x[..., 1::2]
        out = np.empty_like(x)
        out[..., 0::2] = even * cos - odd * sin
        out[..., 1::2] = even * sin + odd * cos
        return out

    def attend(self, q, k, v, first):  # q [n, heads, head_dim]; k, v [first + n, kv_heads, head_dim]
        out = np.empty_like(q)
        visible = np.arange(k.shape[0])[None, :] <= first + np.arange(q.shape[0])[:, None]
        for head in range(self.heads):
            kv = head // (self.heads // self.kv_heads)
            scores = np.where(visible, q[:, head] @ k[:, kv].T / np.sqrt(self.head_dim), -np.inf)
            weights = np.exp(scores - scores.max(axis=1, keepdims=True))
            out[:, head] = weights / weights.sum(axis=1, keepdims=True) @ v[:, kv]
        return out

    def forward(self, tokens, kv):
        """Hidden states [n, dim] before the head. kv: a list that a caller keeps from call to call; empty at first."""
        first = kv[0][0].shape[0] if kv else 0
        x = self.embedding[tokens]
        positions = np.arange(first, first + len(tokens))
        for layer in range(self.layers):
            w = self.layer_weights(layer)
            h = self.norm(x, w["attn_norm"])
            q = self.rope((h @ w["attn_q"].T).reshape(-1, self.heads, self.head_dim), positions)
            k = self.rope((h @ w["attn_k"].T).reshape(-1, self.kv_heads, self.head_dim), positions)
            v = (h @ w["attn_v"].T).reshape(-1, self.kv_heads, self.head_dim)
            if first:
                k, v = np.concatenate([kv[layer][0], k]), np.concatenate([kv[layer][1], v])
                kv[layer] = (k, v)
            else:
                kv.append((k, v))
            x = x + self.attend(q, k, v, first).reshape(len(tokens), -1) @ w["attn_output"].T
            h = self.norm(x, w["ffn_norm"])
            gate = h @ w["ffn_gate"].T
            x = x + (gate / (1 + np.exp(-gate)) * (h @ w["ffn_up"].T)) @ w["ffn_down"].T
        return x

    def logits(self, hidden):  # [n, dim] -> [n, vocab]
        return self.norm(hidden, self.output_norm) @ self.head.T
