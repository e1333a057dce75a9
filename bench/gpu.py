#!/usr/bin/env python3
"""One GPU: prefill, decode and first tokens, ours beside PyTorch on the same device, in turn, within a given time.

    bench/gpu.py                                              four shapes, 1k to 64k tokens, eight minutes
    bench/gpu.py --seconds 200 --shapes llama-3-8b --json FILE
    bench/gpu.py --without-torch                              ours alone

The models have seeded weights (bench/random_model.py), written into --folder first. Layers are all alike, so a few of them are
measured, on both sides the same number (the default model, SmolLM2 135M, has all of its own); what the whole model would take
is that, by its operations. PyTorch runs the same layers in bf16 (bench/torch_llama.py): prefill eager, a decode step as a CUDA
graph. Each side is measured --repetitions times in turn with the other, --rounds times; numbers are medians (least to most).
Small sizes come first, and one that would not end in time is left out and named. stdout: Markdown tables; --json FILE: every
number, written after each; stderr: progress. Needs PyPI `gguf` and `torch`, and librunahead_cuda.so beside the program or in
RUNAHEAD_CUDA_LIBRARY.
"""
import argparse
import importlib.util
import json
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
WHOLE_LAYERS = {"llama-3-8b": 32, "llama-7b": 32, "falcon-7b": 32, "smollm2-135m": 30}
FIRST_TOKEN_SHAPE, FIRST_TOKEN_PROMPT, FIRST_TOKENS = "smollm2-135m", 1024, 7
FIRST_TOKEN_SECONDS = 60
START_SECONDS = 15  # of a process and its model, before any was measured


class Failed(Exception):
    """A measurement that did not come about, in one sentence."""


def say(text):
    print(text, file=sys.stderr, flush=True)


@dataclass(frozen=True)
class Step:
    what: str  # prefill, decode, first token
    shape: str
    size: int  # tokens of the prompt, or before the step

    def __str__(self):
        return f"{self.what} of {self.shape} at {self.size} tokens"


def steps_of(shapes, tokens, contexts):
    """What fails soonest first, then by size: what the time does not allow for is the largest."""
    sizes = sorted(tokens)
    steps = [Step("prefill", shape, sizes[0]) for shape in shapes]
    if FIRST_TOKEN_SHAPE in shapes:
        steps.append(Step("first token", FIRST_TOKEN_SHAPE, FIRST_TOKEN_PROMPT))
    steps += [Step("decode", shape, context) for context in sorted(contexts) for shape in shapes]
    return steps + [Step("prefill", shape, size) for size in sizes[1:] for shape in shapes]


class Budget:
    """The time there is, and what a step will take of it: what a smaller one did, with computing by the square of the size."""

    def __init__(self, seconds, clock=time.monotonic):
        self.clock, self.end, self.seen = clock, clock() + seconds, {}

    def left(self):
        return self.end - self.clock()

    def predicted(self, step):
        if (step.what, step.shape) not in self.seen:
            return START_SECONDS
        size, took, computing = self.seen[step.what, step.shape]
        return took - computing + computing * (step.size / size) ** 2

    def note(self, step, took, computing):
        self.seen[step.what, step.shape] = (step.size, took, min(took, computing))


def run_steps(steps, budget, measure, report):
    """[row] and [why a step has none]. measure(step) gives rows and the seconds that were computing."""
    rows, left_out = [], []
    for step in steps:
        needed, started = budget.predicted(step), budget.clock()
        if needed > budget.left():
            left_out.append(f"{step}: it would take {needed:.0f} s, and {max(0.0, budget.left()):.0f} s are left")
            say(left_out[-1])
            continue
        try:
            found, computing = measure(step)
        except Failed as error:
            left_out.append(f"{step}: {error}")
            say(left_out[-1])
            continue
        budget.note(step, budget.clock() - started, computing)
        rows += found
        report(rows, left_out)
    return rows, left_out


def layer_operations(shape, keys):
    """Of one token with so many keys on average: of all of a layer, and of its K and V alone. Multiply and add are two."""
    hidden, ffn, heads, kv_heads = shape
    kv = 2 * hidden // heads * kv_heads * hidden
    return 2 * (kv + 2 * hidden * hidden + 3 * hidden * ffn + 2 * keys * hidden), 2 * kv


def prefill_operations(shape, layers, vocab, tokens):
    """As bench/engine_bench.h counts them: the last layer is for the last token only, beside K and V."""
    full, _ = layer_operations(shape, (tokens + 1) / 2)
    last, kv = layer_operations(shape, tokens)
    return (layers - 1) * tokens * full + (tokens - 1) * kv + last + 2 * vocab * shape[0]


def decode_bytes(shape, layers, vocab, context, batch):
    """Weights and K/V in bf16, each read once."""
    hidden, ffn, heads, kv_heads = shape
    kv = 2 * hidden // heads * kv_heads
    weights = layers * (kv * hidden + 2 * hidden * hidden + 3 * hidden * ffn) + vocab * hidden
    return 2 * (weights + layers * batch * (context + 1) * kv)


@contextmanager
def within(seconds):
    """Failed if what is inside takes longer: what waits for a process that hangs would wait for ever."""
    def end(*_):
        raise Failed(f"it did not end within {seconds} s")

    before = signal.signal(signal.SIGALRM, end)
    signal.alarm(seconds)
    try:
        yield
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)


def pooled(rounds):
    """One spread of several, [(median, least, most)], or None if there is none; a round without numbers is None."""
    told = [one for one in rounds if one]
    if not told:
        return None
    medians, least, most = zip(*told)
    return {"seconds": statistics.median(medians), "seconds_min": min(least), "seconds_max": max(most)}


def spread(samples):
    return statistics.median(samples), min(samples), max(samples)


class Ours:
    def __init__(self, binary, budget):
        self.binary, self.budget = binary, budget

    def bench(self, model, *flags):
        """Spreads of `runahead bench`'s results, in their order."""
        command = [str(self.binary), "bench", *flags, "--compute", "cuda", "--model", str(model), "-q", "-o", "json"]
        try:
            done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=max(5, self.budget.left()))
        except subprocess.TimeoutExpired:
            raise Failed("it did not end in the time there was") from None
        if done.returncode:
            raise Failed((done.stderr.strip().splitlines() or [f"exit code {done.returncode}"])[-1])
        return [(one["seconds"], one["seconds_min"], one["seconds_max"]) for one in json.loads(done.stdout)["results"]]

    def first_tokens(self, model, tokens):
        """Seconds to the first token of each request to `runahead serve`, behind one that does not count."""
        import chain
        import open_loop
        room = f"llama.context_length=int:{2 * tokens}"  # K/V for four such contexts, not for those of the longest prompt
        served = None
        try:
            with within(FIRST_TOKEN_SECONDS):
                served = open_loop.Cluster(str(self.binary), ["--workers", "1", "--compute", "cuda", "--model", str(model),
                                                              "--override-kv", room])
                url = f"{served.host}:{served.port}"
                return [chain.measure(url, "single", tokens)["ttft"] for _ in range(1 + FIRST_TOKENS)][1:]
        except (SystemExit, KeyError) as error:
            raise Failed(str(error).strip()) from None
        finally:
            if served:
                served.stop()


class Torch:
    """The rival: its models stay on the device."""

    def __init__(self, random_model, vocab):
        import torch_llama
        self.library, self.vocab, self.shapes, self.models = torch_llama, vocab, random_model.SHAPES, {}

    def model(self, shape):
        if shape not in self.models:
            *sizes, layers = self.shapes[shape]
            self.models[shape] = self.library.TorchLlama(sizes, layers, self.vocab)
        return self.models[shape]

    def samples(self, shape, work_of, count, repetitions):
        """A spread, or None if PyTorch cannot do it: it has no room, for one. Ours counts all the same."""
        try:
            model = self.model(shape)
            return spread(self.library.seconds_of(work_of(model), lambda: model.random_tokens(count), repetitions))
        except RuntimeError as error:
            say(f"PyTorch, {shape}: {str(error).splitlines()[0]}")
            return None
        finally:
            self.library.give_back()

    def prefill(self, shape, tokens, repetitions):
        return self.samples(shape, lambda model: model.prefill, tokens, repetitions)

    def decode(self, shape, context, batch, steps):
        return self.samples(shape, lambda model: model.decoder(context, batch), batch, steps)


class Measurement:
    def __init__(self, options, ours, torch, shapes, vocab):
        self.options, self.ours, self.torch, self.shapes, self.vocab = options, ours, torch, shapes, vocab

    def file(self, shape):
        return self.options.folder / f"{shape}.gguf"

    def __call__(self, step):
        rows = getattr(self, step.what.replace(" ", "_"))(step)
        for row in rows:
            say(f"{step}: " + ", ".join(f"{side} {row[side]['seconds']:.4f} s" for side in ("ours", "torch") if row.get(side)))
        rounds = self.options.rounds * ((self.options.steps if step.what == "decode" else self.options.repetitions) + 1)
        return rows, rounds * sum(row[side]["seconds"] for row in rows for side in ("ours", "torch") if row.get(side))

    def row(self, step, **fields):
        return {"what": step.what, "shape": step.shape, "layers": self.shapes[step.shape][-1], "tokens": step.size, **fields}

    def prefill(self, step):
        *shape, layers = self.shapes[step.shape]
        ours, torch = [], []
        for _ in range(self.options.rounds):
            ours += self.ours.bench(self.file(step.shape), "prefill", "--tokens", str(step.size), "--repetitions",
                                    str(self.options.repetitions))
            if self.torch:
                torch.append(self.torch.prefill(step.shape, step.size, self.options.repetitions))
        whole = WHOLE_LAYERS.get(step.shape, layers)
        return [self.row(step, ours=pooled(ours), torch=pooled(torch),
                         operations=prefill_operations(shape, layers, self.vocab, step.size),
                         whole_operations=prefill_operations(shape, whole, self.vocab, step.size))]

    def decode(self, step):
        *shape, layers = self.shapes[step.shape]
        batches = self.options.batches
        ours, torch = [], []
        for _ in range(self.options.rounds):
            ours.append(self.ours.bench(self.file(step.shape), "decode", "--context", str(step.size), "--batch",
                                        ",".join(map(str, batches)), "--steps", str(self.options.steps)))
            if self.torch:
                torch.append([self.torch.decode(step.shape, step.size, batch, self.options.steps) for batch in batches])
        return [self.row(step, batch=batch, ours=pooled(one[place] for one in ours), torch=pooled(one[place] for one in torch),
                         bytes=decode_bytes(shape, layers, self.vocab, step.size, batch))
                for place, batch in enumerate(batches)]

    def first_token(self, step):
        return [self.row(step, ours=pooled([spread(self.ours.first_tokens(self.file(step.shape), step.size))]))]


def rate(times, amount):
    """Amount a second, median (least to most): the slowest is the least."""
    return f"{amount / times['seconds']:,.0f} ({amount / times['seconds_max']:,.0f} to {amount / times['seconds_min']:,.0f})"


def milliseconds(times):
    return f"{1e3 * times['seconds']:.2f} ({1e3 * times['seconds_min']:.2f} to {1e3 * times['seconds_max']:.2f})"


def against(row):
    """PyTorch's time over ours: above one, ours is faster."""
    return f"{row['torch']['seconds'] / row['ours']['seconds']:.2f}" if row.get("torch") else "-"


def share(amount, seconds, ceiling, unit):
    told = f"{amount / seconds / unit:,.2f}"
    return f"{told} ({100 * amount / seconds / ceiling:.0f} %)" if ceiling else told


def table(titles, lines):
    return "\n".join(f"| {' | '.join(line)} |" for line in [titles, ["---"] * len(titles), *lines])


def tables(rows, left_out, ceilings):
    flops, moved = ceilings.get("operations_per_second"), ceilings.get("bytes_per_second")
    parts = []
    if ceilings:
        parts.append(f"{ceilings['device']}, PyTorch {ceilings['torch']}: a product of bf16 {flops / 1e12:,.0f} TFLOP/s, "
                     f"a copy {moved / 1e12:.2f} TB/s. Shares are of these.")
    prefill = sorted((row for row in rows if row["what"] == "prefill"), key=lambda row: (row["shape"], row["tokens"]))
    parts.append(table(["prefill", "layers", "tokens", "tokens/s", "PyTorch", "times PyTorch", "TFLOP/s", "whole model, s"], [
        [row["shape"], str(row["layers"]), f"{row['tokens']:,}", rate(row["ours"], row["tokens"]),
         rate(row["torch"], row["tokens"]) if row["torch"] else "-", against(row),
         share(row["operations"], row["ours"]["seconds"], flops, 1e12),
         f"{row['ours']['seconds'] * row['whole_operations'] / row['operations']:.3f}"] for row in prefill]))
    decode = sorted((row for row in rows if row["what"] == "decode"), key=lambda row: (row["shape"], row["tokens"], row["batch"]))
    parts.append(table(["decode", "layers", "context", "batch", "ms a step", "PyTorch", "times PyTorch", "tokens/s", "GB/s"], [
        [row["shape"], str(row["layers"]), f"{row['tokens']:,}", str(row["batch"]), milliseconds(row["ours"]),
         milliseconds(row["torch"]) if row["torch"] else "-", against(row), f"{row['batch'] / row['ours']['seconds']:,.0f}",
         share(row["bytes"], row["ours"]["seconds"], moved, 1e9)] for row in decode]))
    parts += [f"First token of {row['shape']} after a prompt of {row['tokens']:,} tokens, by `runahead serve`: "
              f"{milliseconds(row['ours'])} ms." for row in rows if row["what"] == "first token"]
    parts += [f"Left out: {one}." for one in left_out]
    return "\n\n".join(parts)


def missing(options):
    """What this cannot do without, in a sentence, or None."""
    if importlib.util.find_spec("gguf") is None:
        return f"{sys.executable} has no package gguf, which writes the models (tests/requirements.txt)"
    if not options.binary.exists():
        return f"{options.binary} is not built"
    if not options.without_torch and importlib.util.find_spec("torch") is None:
        return f"{sys.executable} has no package torch to measure beside; --without-torch measures ours alone"
    return None


def write_models(random_model, options):
    options.folder.mkdir(parents=True, exist_ok=True)
    for shape in options.shapes:
        started, longest = time.monotonic(), max(options.tokens + options.contexts) + options.steps + 2
        random_model.write_model(options.folder / f"{shape}.gguf", shape, None, "Q4_1", max(longest, 2 * FIRST_TOKEN_PROMPT))
        say(f"wrote {shape}.gguf in {time.monotonic() - started:.1f} s")


def parse(arguments):
    def whole_numbers(text):
        return [int(word) for word in text.split(",")]

    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--binary", type=Path, default=ROOT / "build/release/runahead")
    parser.add_argument("--folder", type=Path, help="of the models, which stay there; default: a temporary one")
    parser.add_argument("--shapes", type=lambda text: text.split(","), default=list(reversed(WHOLE_LAYERS)))
    parser.add_argument("--tokens", type=whole_numbers, default=[1024, 4096, 16384, 65536], help="of prompts")
    parser.add_argument("--contexts", type=whole_numbers, default=[1024, 16384], help="tokens before a decode step")
    parser.add_argument("--batches", type=whole_numbers, default=[1, 8], help="sequences in a decode step")
    parser.add_argument("--rounds", type=int, default=2, help="turns of each side")
    parser.add_argument("--repetitions", type=int, default=3, help="prefills in a turn")
    parser.add_argument("--steps", type=int, default=32, help="decode steps in a turn")
    parser.add_argument("--seconds", type=float, default=480, help="what all of it may take")
    parser.add_argument("--without-torch", action="store_true")
    parser.add_argument("--json", type=Path, metavar="FILE")
    parser.add_argument("-o", "--output", choices=["text", "json"], default="text", help="of stdout")
    return parser.parse_args(arguments)


def measure_all(options, budget):
    import random_model
    vocab = random_model.vocabulary_size()
    write_models(random_model, options)
    ours = Ours(options.binary, budget)
    try:
        ours.bench(options.folder / f"{options.shapes[0]}.gguf", "prefill", "--tokens", "1", "--repetitions", "1")
    except Failed as error:
        raise SystemExit(str(error)) from None  # no library, no driver, no device: every step would say so
    torch = None if options.without_torch else Torch(random_model, vocab)
    if torch and not torch.library.has_device():
        raise SystemExit("PyTorch sees no GPU, though ours does; --without-torch measures ours alone")
    result = {"ceilings": torch.library.ceilings() if torch else {}, "rows": [], "left_out": []}

    def report(rows, left_out):
        result.update(rows=rows, left_out=left_out)
        if options.json:
            options.json.write_text(json.dumps(result, indent=1), encoding="utf-8")

    steps = steps_of(options.shapes, options.tokens, options.contexts)
    report(*run_steps(steps, budget, Measurement(options, ours, torch, random_model.SHAPES, vocab), report))
    return result


def main(arguments=None):
    options = parse(arguments)
    budget = Budget(options.seconds)
    if lacks := missing(options):
        raise SystemExit(lacks)
    with tempfile.TemporaryDirectory() as made:
        options.folder = options.folder or Path(made)
        result = measure_all(options, budget)
    print(json.dumps(result) if options.output == "json" else tables(result["rows"], result["left_out"], result["ceilings"]))


if __name__ == "__main__":
    sys.exit(main())
