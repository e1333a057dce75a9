#!/usr/bin/env python3
"""Runahead beside llama.cpp and OpenVINO GenAI: one machine, one model file, the same threads, one run.

    bench/compare_peers.py                                     everything, about an hour on two cores
    bench/compare_peers.py --tokens 512 --rounds 2 --peers ours,llama:file,openvino --no-quality     under five minutes
    bench/compare_peers.py --python PATH ...                   an interpreter that has llama-cpp-python and openvino-genai
    bench/compare_peers.py --model FILE ...                    another model, for instance one of bench/random_model.py

Every engine runs in a process of its own and only one works at a time: each round measures every engine once before the
next round begins, so that a change of the machine's load falls on all of them. Loading and warming up are not timed.
llama.cpp also runs requants of the same file, because its Q4_1 is not its fastest format; each engine's perplexity stands
beside its speed. stdout: a Markdown table; --json FILE: every sample; stderr: progress. Only the standard library is used
here; the engines' packages are installed into a virtual environment below the cache folder where they are missing.
"""
import argparse
import json
import os
import random
import statistics
import subprocess
import sys
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
PEERS = ROOT / "bench" / "peers"
CACHE = Path(os.environ.get("RUNAHEAD_CACHE_DIR", Path.home() / ".cache" / "runahead"))
MODELS = Path(os.environ.get("RUNAHEAD_MODEL_DIR", Path.home() / ".cache" / "runahead" / "models"))
PACKAGES = ["llama-cpp-python==0.3.36", "openvino-genai", "numpy"]
REQUANTS = ["Q4_0", "Q8_0", "F16", "BF16"]
PEER_NAMES = ["ours", "llama:file"] + [f"llama:{name}" for name in REQUANTS] + ["openvino"]
WARM_UP_TOKENS = 512  # runahead bench warms up with as many
CONTEXT_ROOM = 128    # tokens beyond the longest prompt or context, for the decode steps; --steps stays below it
PERPLEXITY_CTX = 1024


def say(text):
    print(text, file=sys.stderr, flush=True)


class Machine:
    """CPU time of the whole machine, from /proc/stat: how busy it was with others while one engine worked."""

    def __init__(self):
        self.ticks = os.sysconf("SC_CLK_TCK")
        self.cpus = len(os.sched_getaffinity(0))

    def busy_seconds(self):
        with open("/proc/stat") as stat:
            fields = [int(x) for x in stat.readline().split()[1:9]]
        return (sum(fields) - fields[3] - fields[4]) / self.ticks  # all but idle and waiting for a disk

    def process_seconds(self, pid):
        with open(f"/proc/{pid}/stat") as stat:
            fields = stat.read().rsplit(")", 1)[1].split()
        return (int(fields[11]) + int(fields[12])) / self.ticks

    @staticmethod
    def describe():
        with open("/proc/cpuinfo") as info:
            name = next((line.split(":", 1)[1].strip() for line in info if line.startswith("model name")), "unknown CPU")
        return f"{name}, {len(os.sched_getaffinity(0))} cores"


class PeerProcess:
    """An engine that lives as long as the run (bench/peers/protocol.py)."""

    def __init__(self, name, command, cwd=PEERS):
        self.name, self.samples = name, {}
        self.log = open(CACHE / "peers" / f"{name.replace(':', '-')}.log", "w")
        self.process = subprocess.Popen(command, cwd=cwd, stdin=subprocess.PIPE, stdout=subprocess.PIPE,
                                        stderr=self.log, text=True)
        self.version = self._answer()["ready"]

    def _answer(self):
        line = self.process.stdout.readline()
        if not line:
            raise SystemExit(f"{self.name} ended; see {self.log.name}")
        return json.loads(line)

    def ask(self, **request):
        self.process.stdin.write(json.dumps(request) + "\n")
        self.process.stdin.flush()
        return self._answer()

    def own_seconds(self, machine):
        return machine.process_seconds(self.process.pid)

    def prefill(self, tokens, vocab):
        return self.ask(op="prefill", ids=random_ids(tokens, vocab))["seconds"]

    def decode(self, context, steps, vocab, batch):
        if batch > 1:
            return None  # not measured
        return self.ask(op="decode", ids=random_ids(max(1, context), vocab), steps=steps)["seconds"]

    def perplexity(self, ids, _text):
        return self.ask(op="perplexity", ids=ids, ctx=PERPLEXITY_CTX)["perplexity"]

    def peak_bytes(self):
        return self.ask(op="memory")["peak_bytes"]

    def close(self):
        self.process.stdin.close()
        self.process.wait(timeout=60)


class LlamaCpp(PeerProcess):
    """With a second process for decoding several sequences, whose K/V would count in the first one's memory."""

    def __init__(self, name, command, batch_command, batch_max):
        super().__init__(name, command)
        self.batch_command, self.batch_max, self.batched, self.filled = batch_command, batch_max, None, None

    def decode(self, context, steps, vocab, batch):
        if batch == 1:
            return super().decode(context, steps, vocab, batch)
        if self.batched is None:
            self.batched = PeerProcess(self.name + ":batch", self.batch_command)
        if self.filled != context:
            self.batched.ask(op="fill", prompts=[random_ids(max(1, context), vocab) for _ in range(self.batch_max)])
            self.filled = context
        return self.batched.ask(op="decode_batch", batch=batch, steps=steps)["seconds"]

    def own_seconds(self, machine):
        return sum(PeerProcess.own_seconds(e, machine) for e in (self, self.batched) if e is not None)

    def close(self):
        super().close()
        if self.batched is not None:
            self.batched.close()


class Ours:
    """runahead, started anew for every sample: `runahead bench` warms up and times without loading."""

    def __init__(self, binary, model, threads, compute):
        self.name, self.samples = "ours", {}
        self.binary, self.flags = binary, ["--model", model, "--compute", compute]
        self.threads = ["--threads", str(threads)]
        self.version = subprocess.run([binary, "--version"], capture_output=True, text=True, check=True).stdout.strip()
        self.compute, self.peak = compute, 0

    def _run(self, *arguments):
        done = subprocess.run([self.binary, *arguments, *self.flags, "-o", "json"], capture_output=True, text=True)
        if done.returncode != 0:
            raise SystemExit(f"{' '.join(arguments)}: {done.stderr.strip()}")
        return json.loads(done.stdout)

    def own_seconds(self, _machine):
        usage = os.times()
        return usage.children_user + usage.children_system

    def prefill(self, tokens, _vocab):
        answer = self._run("bench", "prefill", "--tokens", str(tokens), "--repetitions", "1", *self.threads)
        self.peak = max(self.peak, answer["peak_resident_bytes"])
        self.compute = answer["results"][0]["compute"]
        return answer["results"][0]["seconds"]

    def decode(self, context, steps, _vocab, batch):
        answer = self._run("bench", "decode", "--context", str(context), "--batch", str(batch), "--steps", str(steps),
                           *self.threads)
        return answer["results"][0]["seconds"]

    def perplexity(self, _ids, text):
        return self._run("perplexity", "--file", text, "--ctx", str(PERPLEXITY_CTX))["perplexity"]

    def peak_bytes(self):
        return self.peak

    def close(self):
        pass


def random_ids(count, vocab):
    return [random.randrange(vocab) for _ in range(count)]


def peer_python(given):
    """An interpreter with the peers' packages; llama.cpp is compiled for this very machine."""
    if given:
        return given
    folder = CACHE / "peers" / "venv"
    python = str(folder / "bin" / "python")
    if not folder.exists():
        subprocess.run([sys.executable, "-m", "venv", str(folder)], check=True)
    if subprocess.run([python, "-c", "import llama_cpp, openvino_genai, numpy"], capture_output=True).returncode != 0:
        say("installing " + ", ".join(PACKAGES) + " (llama.cpp is compiled: about ten minutes on two cores)")
        subprocess.run([python, "-m", "pip", "install", "--quiet", *PACKAGES], check=True, stdout=sys.stderr,
                       env={**os.environ, "CMAKE_ARGS": "-DGGML_NATIVE=ON"})
    return python


def requant(python, model, name):
    """The model file in llama.cpp's format `name`, made once."""
    if name == "file":
        return str(model)
    target = CACHE / "peers" / f"{model.stem}-to-{name}.gguf"
    if not target.exists() or target.stat().st_mtime < model.stat().st_mtime:
        say(f"making {target.name}")
        with open(CACHE / "peers" / "requantize.log", "a") as log:
            subprocess.run([python, "llama_cpp_peer.py", "--requantize", str(model), str(target), name], cwd=PEERS,
                           check=True, stdout=log, stderr=log)
    return str(target)


def llama(python, model, name, args, flash):
    context = max(args.tokens + args.context + [WARM_UP_TOKENS, PERPLEXITY_CTX]) + CONTEXT_ROOM
    command = [python, "llama_cpp_peer.py", requant(python, model, name), str(args.threads)]
    batch_max = max(args.batch, default=1)
    return LlamaCpp(f"llama:{name}", command + [str(context), flash],
                    command + [str(max(args.context) + CONTEXT_ROOM), flash, str(batch_max)], batch_max)


def choose_flash(python, model, args, vocab, machine):
    """llama.cpp's faster attention for these prompts. It does not depend on the format of the weights, so one decides."""
    tokens = min(max(args.tokens), args.long_from)
    rivals = {flash: llama(python, model, "Q8_0", args, flash) for flash in ("on", "off")}
    for rival in rivals.values():
        rival.prefill(WARM_UP_TOKENS, vocab)
    seconds = {flash: measure(rival, machine, args, lambda rival=rival: rival.prefill(tokens, vocab))[0]
               for flash, rival in rivals.items()}
    for rival in rivals.values():
        rival.close()
    say(f"llama.cpp, {tokens} tokens: flash attention on {seconds['on']:.2f} s, off {seconds['off']:.2f} s")
    return min(seconds, key=seconds.get)


def measure(engine, machine, args, work):
    """The least disturbed of up to --attempts samples: (seconds, share of the machine that others used)."""
    best = None
    for _ in range(args.attempts):
        begin, busy, own = time.monotonic(), machine.busy_seconds(), engine.own_seconds(machine)
        seconds = work()
        busy, own = machine.busy_seconds() - busy, engine.own_seconds(machine) - own
        others = max(0.0, busy - own) / (time.monotonic() - begin) / machine.cpus
        if best is None or others < best[1]:
            best = (seconds, others)
        if others <= args.others_max:
            break
    return best


def tasks_of(args):
    """(key, kind, tokens, sequences)"""
    tasks = [(f"prefill {n}", "prefill", n, 1) for n in args.tokens]
    tasks += [(f"decode {c}", "decode", c, 1) for c in args.context]
    return tasks + [(f"decode {max(args.context)} x {b}", "decode", max(args.context), b) for b in args.batch]


def run_rounds(engines, args, vocab, machine):
    for engine in engines:
        engine.prefill(WARM_UP_TOKENS, vocab)
    for key, kind, size, batch in tasks_of(args):
        rounds = args.long_rounds if kind == "prefill" and size > args.long_from else args.rounds
        for number in range(rounds):
            for engine in engines:
                work = ((lambda: engine.prefill(size, vocab)) if kind == "prefill"
                        else (lambda: engine.decode(size, args.steps, vocab, batch)))
                seconds, others = measure(engine, machine, args, work)
                if seconds is None:
                    continue
                rate = (size if kind == "prefill" else batch) / seconds
                engine.samples.setdefault(key, []).append({"tokens_per_second": rate, "others": round(others, 3)})
                say(f"{key}, round {number + 1} of {rounds}: {engine.name:12} {rate:9.1f} tokens/s, others {others:4.0%}")


def cell(samples):
    if not samples:
        return "not measured"
    rates = [s["tokens_per_second"] for s in samples]
    return f"{statistics.median(rates):,.0f} ({min(rates):,.0f}–{max(rates):,.0f})"


def label(engine, flash):
    if engine.name == "ours":
        return f"**Runahead**, the file, {engine.compute}"
    if engine.name == "openvino":
        return "OpenVINO GenAI, the file"
    name = engine.name.split(":")[1]
    return "llama.cpp, " + ("the file" if name == "file" else f"requant {name}") + f", flash attention {flash}"


def ratio(ours, rivals, key):
    middle = lambda e: statistics.median(s["tokens_per_second"] for s in e.samples[key])
    best = max((middle(rival) for rival in rivals if key in rival.samples), default=None)
    return f"{middle(ours) / best:.2f}x" if best else "not measured"


def table(engines, args, flash):
    keys = [key for key, _, _, _ in tasks_of(args)]
    longest = max(args.tokens)
    heads = ["tokens/s"] + [f"prefill {n:,}" for n in args.tokens] + [f"decode after {c:,}" for c in args.context]
    heads += [f"decode of {b} after {max(args.context):,}" for b in args.batch]
    heads += [f"peak memory at {longest:,}", "perplexity"]
    lines = ["| " + " | ".join(heads) + " |", "|" + "---|" * len(heads)]
    for engine in engines:
        row = [label(engine, flash)] + [cell(engine.samples.get(key)) for key in keys]
        row += [f"{engine.memory / 2**20:,.0f} MiB", f"{engine.quality:.2f}" if engine.quality else "not measured"]
        lines.append("| " + " | ".join(row) + " |")
    ours = next((engine for engine in engines if engine.name == "ours"), None)
    if ours and len(engines) > 1:
        for what, names in (("the fastest llama.cpp", "llama"), ("OpenVINO", "openvino")):
            rivals = [engine for engine in engines if engine.name.startswith(names)]
            if rivals:
                ratios = [ratio(ours, rivals, key) for key in keys]
                lines.append("| ours over " + what + " | " + " | ".join(ratios) + " | | |")
    return "\n".join(lines)


def parse(argv):
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    numbers = lambda text: [int(x) for x in text.split(",")]
    parser.add_argument("--model", type=Path, default=MODELS / "SmolLM2-135M-Instruct.Q4_1.gguf")
    parser.add_argument("--binary", default=str(ROOT / "build" / "release" / "runahead"))
    parser.add_argument("--python", help="interpreter with the peers' packages, instead of our own environment")
    parser.add_argument("--peers", type=lambda text: text.split(","), default=PEER_NAMES, help=",".join(PEER_NAMES))
    parser.add_argument("--threads", type=int, default=min(2, os.cpu_count()))
    parser.add_argument("--compute", default="auto", help="our mode")
    parser.add_argument("--tokens", type=numbers, default=[512, 2048, 8192], help="prompt lengths")
    parser.add_argument("--context", type=numbers, default=[0, 2048], help="tokens before the first decode step")
    parser.add_argument("--batch", type=numbers, default=[4, 8], help="sequences decoded at once after the longest context")
    parser.add_argument("--steps", type=int, default=32, help="decode steps of one sample")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--long-rounds", type=int, default=2, help="of prompts over --long-from tokens")
    parser.add_argument("--long-from", type=int, default=4096)
    parser.add_argument("--attempts", type=int, default=3, help="samples, of which the least disturbed counts")
    parser.add_argument("--others-max", type=float, default=0.1, help="share of the machine that disturbs a sample")
    parser.add_argument("--flash", choices=["auto", "on", "off"], default="auto", help="llama.cpp's attention")
    parser.add_argument("--text", default=str(ROOT / "deploy" / "examples" / "handbook.txt"), help="for perplexity")
    parser.add_argument("--no-quality", action="store_true", help="leave out perplexity")
    parser.add_argument("--json", type=Path, help="write every sample here")
    args = parser.parse_args(argv)
    unknown = set(args.peers) - set(PEER_NAMES)
    if unknown:
        parser.error(f"no such peer: {', '.join(sorted(unknown))}; there are {', '.join(PEER_NAMES)}")
    return args


def open_engines(args, python, vocab, machine):
    flash = args.flash
    if flash == "auto" and any(name.startswith("llama") for name in args.peers):
        flash = choose_flash(python, args.model, args, vocab, machine)
    engines = []
    for name in args.peers:
        say(f"loading {name}")
        if name == "ours":
            engines.append(Ours(args.binary, str(args.model), args.threads, args.compute))
        elif name == "openvino":
            engines.append(PeerProcess(name, [python, "openvino_peer.py", str(args.model), str(args.threads)]))
        else:
            engines.append(llama(python, args.model, name.split(":")[1], args, flash))
    return engines, flash


def commit():
    got = subprocess.run(["git", "describe", "--always", "--dirty"], cwd=ROOT, capture_output=True, text=True)
    return got.stdout.strip() or "unknown"


def main(argv):
    args = parse(argv)
    (CACHE / "peers").mkdir(parents=True, exist_ok=True)
    python, machine = peer_python(args.python), Machine()
    ids = json.loads(subprocess.run([args.binary, "tokenize", "--model", str(args.model), "--file", args.text, "-o", "json"],
                                    capture_output=True, check=True).stdout)
    vocab = max(ids) + 1  # random prompts are of tokens that the model surely has
    engines, flash = open_engines(args, python, vocab, machine)
    run_rounds(engines, args, vocab, machine)
    for engine in engines:
        engine.memory = engine.peak_bytes()  # before perplexity, which keeps many logits
    for engine in engines:
        engine.quality = None if args.no_quality else engine.perplexity(ids, args.text)
        engine.close()
    others = [s["others"] for engine in engines for samples in engine.samples.values() for s in samples]
    print(table(engines, args, flash))
    versions = sorted({engine.version for engine in engines})
    note = (f"{machine.describe()}; {args.threads} threads; medians (slowest–fastest) of {args.rounds} interleaved rounds, "
            f"{args.long_rounds} above {args.long_from:,} tokens; others used {statistics.median(others):.0%} of the machine "
            f"in the median sample, {max(others):.0%} in the worst; commit {commit()}; {'; '.join(versions)}; "
            f"`bench/compare_peers.py {' '.join(argv)}`")
    print("\n" + note)
    if args.json:
        fields = [{"engine": e.name, "version": e.version, "peak_bytes": e.memory, "perplexity": e.quality,
                   "samples": e.samples} for e in engines]
        args.json.write_text(json.dumps({"note": note, "flash_attention": flash, "engines": fields}, indent=1) + "\n")


if __name__ == "__main__":
    main(sys.argv[1:])
