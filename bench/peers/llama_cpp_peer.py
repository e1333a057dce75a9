"""llama.cpp as a peer process (protocol.py), through the low-level bindings of the PyPI package llama-cpp-python.

n_batch 2048, n_ubatch 512, the same threads for prompt and decode, K/V in F16 (all llama.cpp's defaults but the threads);
logits of the last token only, as a server does.
    llama_cpp_peer.py MODEL.gguf THREADS CONTEXT on|off [SEQUENCES]          flash attention on or off; CONTEXT for each
    llama_cpp_peer.py --requantize FROM.gguf TO.gguf Q4_0|Q8_0|F16|BF16      makes a file and ends
"""
import ctypes
import math
import os
import statistics
import sys
import time

import llama_cpp
import numpy

import protocol

BATCH_TOKENS = 2048
UBATCH_TOKENS = 512


class LlamaCpp:
    def __init__(self, model, threads, context_len, flash, sequences):
        self.version = "llama-cpp-python " + llama_cpp.__version__
        llama_cpp.llama_backend_init()
        self.model = llama_cpp.llama_model_load_from_file(model.encode(), llama_cpp.llama_model_default_params())
        if not self.model:
            raise RuntimeError(f"llama.cpp cannot load {model}")
        params = llama_cpp.llama_context_default_params()
        params.n_ctx, params.n_seq_max = context_len * sequences, sequences  # each has K/V of its own, as by default
        params.n_batch, params.n_ubatch = BATCH_TOKENS, UBATCH_TOKENS
        params.n_threads = params.n_threads_batch = threads
        params.flash_attn_type = (llama_cpp.LLAMA_FLASH_ATTN_TYPE_ENABLED if flash
                                  else llama_cpp.LLAMA_FLASH_ATTN_TYPE_DISABLED)
        self.context = llama_cpp.llama_init_from_model(self.model, params)
        if not self.context:
            raise RuntimeError("llama.cpp cannot make a context")
        self.vocab_size = llama_cpp.llama_vocab_n_tokens(llama_cpp.llama_model_get_vocab(self.model))
        self.batch_tokens = llama_cpp.llama_n_batch(self.context)  # fewer in a context shorter than that
        self.batch = llama_cpp.llama_batch_init(self.batch_tokens, 0, 1)

    def _clear(self):
        llama_cpp.llama_memory_clear(llama_cpp.llama_get_memory(self.context), True)

    def _decode(self, tokens):
        """Runs tokens (id, position, sequence, wants logits)."""
        batch = self.batch
        batch.n_tokens = len(tokens)
        for i, (token, position, sequence, wants_logits) in enumerate(tokens):
            batch.token[i] = token
            batch.pos[i] = position
            batch.n_seq_id[i] = 1
            batch.seq_id[i][0] = sequence
            batch.logits[i] = wants_logits
        start = time.perf_counter()
        if llama_cpp.llama_decode(self.context, batch) != 0:
            raise RuntimeError("llama_decode failed")
        llama_cpp.llama_synchronize(self.context)
        return time.perf_counter() - start

    def _run(self, ids, logits_from, sequence=0):
        """A sequence from its begin; logits of the tokens at positions >= logits_from."""
        tokens = [(token, at, sequence, at >= logits_from) for at, token in enumerate(ids)]
        step = self.batch_tokens
        return sum(self._decode(tokens[i:i + step]) for i in range(0, len(tokens), step))

    def prefill(self, ids):
        self._clear()
        return {"seconds": self._run(ids, len(ids) - 1)}

    def decode(self, ids, steps):
        self._clear()
        self._run(ids, len(ids))
        return self._steps([len(ids)], steps)

    def fill(self, prompts):
        self._clear()
        self.lengths = [len(ids) for ids in prompts]
        for sequence, ids in enumerate(prompts):
            self._run(ids, len(ids), sequence)
        return {}

    def decode_batch(self, batch, steps):
        answer = self._steps(self.lengths[:batch], steps)
        for sequence, length in enumerate(self.lengths[:batch]):
            llama_cpp.llama_memory_seq_rm(llama_cpp.llama_get_memory(self.context), sequence, length, -1)
        return answer

    def _steps(self, lengths, steps):
        seconds = [self._decode([((7919 * i + 101 * sequence) % self.vocab_size, length + i, sequence, True)
                                 for sequence, length in enumerate(lengths)]) for i in range(steps + 1)]
        return {"seconds": statistics.median(seconds[1:])}  # the first warms up

    def perplexity(self, ids, ctx):
        loss, scored, middle = 0.0, 0, ctx // 2
        for begin in range(0, len(ids) - ctx + 1, ctx):
            chunk = ids[begin:begin + ctx]
            self._clear()
            self._run(chunk, middle)  # ctx <= batch_tokens: one call, so all its logits are there
            logits = numpy.ctypeslib.as_array(
                ctypes.cast(llama_cpp.llama_get_logits(self.context), ctypes.POINTER(ctypes.c_float)),
                (ctx - middle, self.vocab_size))
            for row, token in zip(logits[:-1].astype(numpy.float64), chunk[middle + 1:]):
                loss += row.max() + math.log(numpy.exp(row - row.max()).sum()) - row[token]
                scored += 1
        return {"perplexity": math.exp(loss / scored)}


def requantize(source, target, name):
    params = llama_cpp.llama_model_quantize_default_params()
    params.ftype = getattr(llama_cpp, "LLAMA_FTYPE_MOSTLY_" + name)
    params.allow_requantize = True
    partial = target + ".partial"
    if llama_cpp.llama_model_quantize(source.encode(), partial.encode(), ctypes.byref(params)) != 0:
        raise RuntimeError(f"llama.cpp cannot make {target}")
    os.rename(partial, target)


if __name__ == "__main__":
    if sys.argv[1] == "--requantize":
        requantize(*sys.argv[2:5])
    else:
        sequences = int(sys.argv[5]) if len(sys.argv) > 5 else 1
        protocol.serve(lambda: LlamaCpp(sys.argv[1], int(sys.argv[2]), int(sys.argv[3]), sys.argv[4] == "on", sequences))
