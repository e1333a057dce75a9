"""The ranks of a rival scheme (bench/rivals), each a process `runahead bench rank` that this module starts and drives."""
import json
import shlex
import subprocess
import time

PAGE = 64  # tokens: chunks begin at whole pages


def even_chunks(tokens, count):
    pages = -(-tokens // PAGE)
    return [pages * i // count * PAGE for i in range(1, count)]


def equal_time_chunks(tokens, count, per_token, per_pair):
    """Cuts after which each chunk takes the same time although the later ones see more."""
    def seconds(end):
        return per_token * end + per_pair * end * end / 2
    cuts, end = [], 0
    for i in range(1, count):
        while end < tokens and seconds(end) < seconds(tokens) * i / count:
            end += PAGE
        cuts.append(end)
    return sorted({cut for cut in cuts if 0 < cut < tokens})


class RankProcesses:
    """`command` starts one rank; {rank} in it is its number from 1. Use as a context: the processes end with it."""

    def __init__(self, command, count):
        self.count = count
        self.runs = 0
        self.processes = [subprocess.Popen(shlex.split(command.replace("{rank}", str(rank))), stdin=subprocess.PIPE,
                                           stdout=subprocess.PIPE, text=True) for rank in range(1, count + 1)]
        self.hellos = [self.read(process) for process in self.processes]
        self.schemes = self.hellos[0]["schemes"]

    def __enter__(self):
        return self

    def __exit__(self, *_):
        for process in self.processes:
            process.stdin.close()
        for process in self.processes:
            try:
                process.wait(timeout=20)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()

    @staticmethod
    def read(process):
        line = process.stdout.readline()
        if not line:
            raise SystemExit("a rank has ended; its reason stands above")
        answer = json.loads(line)
        if "error" in answer:
            raise SystemExit(f"a rank could not do it: {answer['error']}")
        return answer

    def cuts(self, scheme, tokens):
        """NAME, NAME@640+1280 (cuts by hand), NAME@x8 (8 even chunks), NAME@t8 (8 chunks of equal time)."""
        name, _, cuts = scheme.partition("@")
        if not cuts:
            return even_chunks(tokens, self.count * max(1, self.schemes[name]["chunks_a_rank"]))
        if cuts[0] == "x":
            return even_chunks(tokens, int(cuts[1:]))
        if cuts[0] == "t":
            return equal_time_chunks(tokens, int(cuts[1:]), self.hellos[0]["seconds_per_token"],
                                     self.hellos[0]["seconds_per_pair"])
        return [int(cut) for cut in cuts.split("+")]

    def run(self, scheme, prompt):
        """One run; the time counts from before the first rank is told until the last one says its token."""
        self.runs += 1
        cuts = self.cuts(scheme, len(prompt))
        order = {"run": self.runs, "scheme": scheme.partition("@")[0], "peers": [hello["kv"] for hello in self.hellos],
                 "tokens": prompt, "cuts": cuts}
        lines = [json.dumps({**order, "rank": rank}) + "\n" for rank in range(self.count)]
        begin = time.monotonic()
        for process, line in zip(self.processes, lines):
            process.stdin.write(line)
            process.stdin.flush()
        first = self.read(self.processes[-1])
        ttft = time.monotonic() - begin
        reports = [self.read(process) for process in self.processes]
        return {"scheme": scheme, "tokens": len(prompt), "ttft": ttft, "cuts": cuts, "predicted": None,
                "ranks": [{**report, "kv_wait_seconds": report["wait_seconds"]} for report in reports],
                "token": first["token"],
                "logits": first["logits_sha256"] if self.schemes[order["scheme"]]["exact"] else None}
