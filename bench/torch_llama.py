"""PyTorch's side of bench/gpu.py: layers of the same shape in bf16, written plainly, with PyTorch's own attention.

A prefill is eager; its last layer runs for the last token alone, and its logits go to the host, as ours do. A decode step is one
CUDA graph. Weights are random: the speed is real. Nothing else of bench/ imports torch.
"""
import time

import torch
import torch.nn.functional as F

ROPE_BASE = 500000.0
EPSILON = 1e-5
CEILING_SIZE = 8192  # of a square product
CEILING_BYTES = 2 << 30  # beyond any cache


def rotated(x, turn):
    """x [batch, heads, tokens, head_dim] by turn, the cos and sin of [tokens, head_dim / 2]."""
    cos, sin = turn
    first, second = x.chunk(2, -1)
    return torch.cat((first * cos - second * sin, second * cos + first * sin), -1)


def normalized(x, gain):
    return F.rms_norm(x, x.shape[-1:], gain, EPSILON)


class TorchLlama:
    def __init__(self, shape, layers, vocab, device="cuda"):
        hidden, ffn, self.heads, self.kv_heads = shape
        self.head_dim, self.vocab, self.device = hidden // self.heads, vocab, device

        def matrix(rows, cols):
            return torch.randn(rows, cols, dtype=torch.bfloat16, device=device) / cols**0.5

        ones = torch.ones(hidden, dtype=torch.bfloat16, device=device)
        self.embedding, self.head, self.gain = matrix(vocab, hidden), matrix(vocab, hidden), ones
        self.layers = [{"gain": ones, "qkv": matrix(hidden + 2 * self.kv_heads * self.head_dim, hidden),
                        "out": matrix(hidden, hidden), "ffn_gain": ones, "gate_up": matrix(2 * ffn, hidden),
                        "down": matrix(hidden, ffn)} for _ in range(layers)]

    def turn(self, positions):
        half = self.head_dim // 2
        angles = positions[:, None] * ROPE_BASE ** (-torch.arange(half, device=self.device) / half)
        return angles.cos().bfloat16(), angles.sin().bfloat16()

    def in_heads(self, x):
        """[batch, tokens, heads * head_dim] -> [batch, heads, tokens, head_dim]"""
        return x.unflatten(-1, (-1, self.head_dim)).transpose(1, 2)

    def layer(self, weights, x, turn, rows, cache=None):
        """The last `rows` of x [batch, tokens, hidden] behind the layer. cache: K and V of earlier tokens, and room for x's."""
        hidden, normed = x.shape[-1], normalized(x, weights["gain"])
        if rows == x.shape[1]:
            q, k, v = F.linear(normed, weights["qkv"]).split((hidden, *2 * [self.kv_heads * self.head_dim]), -1)
        else:
            q = F.linear(normed[:, -rows:], weights["qkv"][:hidden])
            k, v = F.linear(normed, weights["qkv"][hidden:]).chunk(2, -1)
        q = rotated(self.in_heads(q), [part[-rows:] for part in turn])
        k, v = rotated(self.in_heads(k), turn), self.in_heads(v)
        if cache is not None:
            cache[0][:, :, -1:], cache[1][:, :, -1:] = k, v
            k, v = cache
        mixed = F.scaled_dot_product_attention(q, k, v, is_causal=rows > 1, enable_gqa=self.heads != self.kv_heads)
        x = x[:, -rows:] + F.linear(mixed.transpose(1, 2).flatten(2), weights["out"])
        gate, up = F.linear(normalized(x, weights["ffn_gain"]), weights["gate_up"]).chunk(2, -1)
        return x + F.linear(F.silu(gate) * up, weights["down"])

    def logits(self, x):
        return F.linear(normalized(x[:, -1], self.gain), self.head)

    @torch.inference_mode()
    def prefill(self, tokens):
        """Logits of the last of tokens [count], on the host."""
        x, turn = self.embedding[tokens][None], self.turn(torch.arange(len(tokens), device=self.device))
        for number, weights in enumerate(self.layers, 1):
            x = self.layer(weights, x, turn, 1 if number == len(self.layers) else len(tokens))
        return self.logits(x).float().cpu()

    def random_caches(self, context, batch):
        size = (2, batch, self.kv_heads, context + 1, self.head_dim)
        return [torch.randn(size, dtype=torch.bfloat16, device=self.device) for _ in self.layers]

    @torch.inference_mode()
    def decoder(self, context, batch, caches=None):
        """A function of tokens [batch] that gives the logits of a step behind `context` tokens, the same place each time."""
        caches = caches or self.random_caches(context, batch)
        turn = self.turn(torch.tensor([context], device=self.device))
        tokens = torch.zeros(batch, dtype=torch.long, device=self.device)

        def step():
            x = self.embedding[tokens][:, None]
            for weights, cache in zip(self.layers, caches):
                x = self.layer(weights, x, turn, 1, cache)
            return self.logits(x)

        replay = step if self.device == "cpu" else captured(step)

        @torch.inference_mode()
        def decode(given):
            tokens.copy_(given)
            return replay().float().cpu()
        return decode

    def random_tokens(self, count):
        return torch.randint(self.vocab, (count,), device=self.device)


def captured(step):
    """step as a CUDA graph; it has run before, so that libraries have what they allocate."""
    beside = torch.cuda.Stream()
    beside.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(beside):
        for _ in range(3):
            step()
    torch.cuda.current_stream().wait_stream(beside)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        result = step()

    def replay():
        graph.replay()
        return result
    return replay


def seconds_of(work, draw, count):
    """Each of `count` calls of work with what draw gives, behind one that does not count; work ends on the host."""
    samples = []
    for _ in range(count + 1):
        given = draw()
        if given.is_cuda:
            torch.cuda.synchronize()
        started = time.perf_counter()
        work(given)
        samples.append(time.perf_counter() - started)
    return samples[1:]


def seconds_on_device(work, count=10):
    """The fastest of `count`, by the device's own clock."""
    begin, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
    best = float("inf")
    for _ in range(count):
        begin.record()
        work()
        end.record()
        end.synchronize()
        best = min(best, begin.elapsed_time(end) / 1000)
    return best


def has_device():
    return torch.cuda.is_available()


def give_back():
    """What PyTorch keeps of the device's memory for later: the other side needs it first."""
    if torch.cuda.is_available():
        torch.cuda.empty_cache()


def ceilings():
    """What the device gives at most: operations a second of one large bf16 product, bytes read and written by a copy."""
    a, b = (torch.randn(CEILING_SIZE, CEILING_SIZE, dtype=torch.bfloat16, device="cuda") for _ in range(2))
    source = torch.empty(CEILING_BYTES, dtype=torch.uint8, device="cuda").random_()
    target = torch.empty_like(source)
    found = {"operations_per_second": 2 * CEILING_SIZE**3 / seconds_on_device(lambda: a @ b),
             "bytes_per_second": 2 * CEILING_BYTES / seconds_on_device(lambda: target.copy_(source))}
    del a, b, source, target
    give_back()
    return {"device": torch.cuda.get_device_name(), "torch": torch.__version__, **found}
