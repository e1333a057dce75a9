"""OpenVINO GenAI as a peer process (protocol.py), from the PyPI package openvino-genai, which reads the same GGUF.

Speed is LLMPipeline's with its defaults but the threads; it keeps a prefix cache, so every prompt must be new. Its clock is
its own: time to the first token, and time of each inference after it without sampling. Perplexity comes from the
log-probabilities that its continuous-batching pipeline gives of an echoed prompt (the same model, kernels and defaults).
    openvino_peer.py MODEL.gguf THREADS
"""
import math
import statistics
import sys

import numpy
import openvino
import openvino_genai

import protocol


def tensor(ids):
    return openvino.Tensor(numpy.array([ids], dtype=numpy.int64))


class OpenVino:
    def __init__(self, model, threads):
        self.version = "openvino-genai " + openvino_genai.__version__
        self.model, self.threads = model, threads
        self.pipeline = openvino_genai.LLMPipeline(model, "CPU", INFERENCE_NUM_THREADS=threads)

    def _generate(self, ids, tokens):
        config = openvino_genai.GenerationConfig()
        config.max_new_tokens, config.ignore_eos, config.do_sample = tokens, True, False
        return self.pipeline.generate(tensor(ids), config).perf_metrics

    def prefill(self, ids):
        return {"seconds": self._generate(ids, 1).get_ttft().mean / 1e3}

    def decode(self, ids, steps):
        # The first time is the prompt's, the second warms up.
        micros = self._generate(ids, steps + 2).raw_metrics.token_infer_durations[2:]
        return {"seconds": statistics.median(micros) / 1e6}

    def perplexity(self, ids, ctx):
        scheduler = openvino_genai.SchedulerConfig()
        scheduler.max_num_batched_tokens = ctx  # a chunk in one call, as the other engines run it
        pipeline = openvino_genai.ContinuousBatchingPipeline(
            self.model, scheduler, "CPU", {"INFERENCE_NUM_THREADS": self.threads})
        config = openvino_genai.GenerationConfig()
        config.max_new_tokens, config.echo, config.logprobs, config.do_sample = 1, True, 1, False
        log_probs = []
        for begin in range(0, len(ids) - ctx + 1, ctx):
            handle = pipeline.add_request(begin, tensor(ids[begin:begin + ctx]), config)
            while pipeline.has_non_finished_requests():
                pipeline.step()
            log_probs += handle.read_all()[0].generated_log_probs[ctx // 2 + 1:ctx]  # [i] is of the chunk's token i
        return {"perplexity": math.exp(-statistics.mean(log_probs))}


if __name__ == "__main__":
    protocol.serve(lambda: OpenVino(sys.argv[1], int(sys.argv[2])))
