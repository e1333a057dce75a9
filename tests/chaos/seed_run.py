"""One seed from start to rest: load without faults (too little of it: void) -> faults under load -> everything heals, what was
asked ends -> rest -> the checks.
"""

import json
import random
import signal
import sqlite3
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

from cluster import Cluster
from faults import DAMAGE, Nemesis, draw_plan, draw_size
from load import REQUEST_SECONDS_MAX, Clients, make_prompts

CALM_SECONDS, CALM_SECONDS_MAX = 4, 12
CALM_FINISHED_MIN = 4  # before the first fault, else the seed is void
REST_SECONDS = 15  # what may hold a page: 10 s of a dead connection, 5 s of a transfer
SILENCE_SECONDS_MAX = 25  # of a stream while the coordinator lives: it writes a comment each second
PROMPTS = make_prompts(random.Random("prompts"))


@dataclass
class Outcome:
    seed: int
    failures: list = field(default_factory=list)  # "P1: ..."
    void: str = ""
    faults: dict = field(default_factory=dict)  # kind: count
    accepted: int = 0
    finished: int = 0
    identical: int = 0
    cancelled: int = 0
    broken: int = 0  # by the end of the coordinator, which a stream of one connection does not survive
    silence: float = 0
    added: list = field(default_factory=list)  # seconds, of requests beside a fault
    restarts: list = field(default_factory=list)
    damaged: int = 0
    detected: int = 0
    untested: list = field(default_factory=list)
    seconds: float = 0

    @property
    def verdict(self):
        return "FAILED" if self.failures else "void" if self.void else "ok"


def make_reference(cluster):
    """{prompt: text}, without faults and one by one."""
    texts = {}
    for name, (prompt, tokens) in PROMPTS.items():
        status, body = cluster.request("POST", "/v1/completions", {
            "prompt": prompt, "max_tokens": tokens, "temperature": 0, "ignore_eos": True, "runahead": {"strategy": "single"}},
            timeout=120)
        if status != 200:
            raise RuntimeError(f"the reference: {status} {body[:300]}")
        texts[name] = json.loads(body)["choices"][0]["text"]
    return texts


class SeedRun:
    def __init__(self, seed, folder, seconds=25, kinds=None, plan=None, size=None):
        self.seed, self.folder, self.seconds, self.kinds, self.given = seed, Path(folder), seconds, kinds, plan
        self.outcome = Outcome(seed)
        self.size = size or draw_size(random.Random(f"size {seed}"))
        self.began = time.monotonic()
        self.folder.mkdir(parents=True, exist_ok=True)
        self.timeline = open(self.folder / "timeline.txt", "w", encoding="utf-8", buffering=1)

    def say(self, line):
        print(f"{time.monotonic() - self.began:7.2f} {line}", file=self.timeline)

    def fail(self, promise, what):
        self.outcome.failures.append(f"{promise}: {what}")
        self.say(f"FAILED {promise}: {what}")

    def run(self):
        try:
            with Cluster(self.folder, *self.size, seed=self.seed) as cluster:
                self._run(cluster)
        except TimeoutError as error:
            self.fail("P7", str(error))
        finally:
            self.outcome.seconds = time.monotonic() - self.began
            self.timeline.close()
        return self.outcome

    def _run(self, cluster):
        self.cluster = cluster
        self.reference = make_reference(cluster)
        self.clients = Clients(cluster, PROMPTS, self.seed)
        self.nemesis = Nemesis(cluster, self.clients.asked, self.say)
        self.asked_after = 0
        self.clients.start()
        calm = self._calm()
        self.calm_until = time.monotonic()
        if calm < CALM_FINISHED_MIN:
            self.outcome.void = f"{calm} requests were finished in the {CALM_SECONDS_MAX} s before the first fault"
        self.pids = {name: process.pid for name, process in cluster.processes.items()}
        self.damage_seen = self._detected()
        try:
            for planned in self.given or draw_plan(self.seed, self.seconds, cluster.workers, self.kinds):
                self._strike(planned)
        except TimeoutError as error:
            self.fail("P8", str(error))
        for link in cluster.links.values():
            link.heal()
        self.say("everything is whole again")
        if not self.clients.stop(REQUEST_SECONDS_MAX + 10):
            self.fail("P7", f"{sum(not asked.ended for asked in self.clients.asked)} requests have not ended")
        self._judge()

    def _calm(self):
        """How many requests were finished while nothing was wrong."""
        begin = time.monotonic()
        while True:
            time.sleep(0.1)
            finished = sum(asked.outcome == "finished" for asked in list(self.clients.asked))
            waited = time.monotonic() - begin
            if waited >= CALM_SECONDS and (finished >= CALM_FINISHED_MIN or waited >= CALM_SECONDS_MAX):
                return finished

    def _strike(self, planned):
        before = self._detected()
        self.nemesis.strike(planned)
        self.outcome.faults[planned.kind] = self.outcome.faults.get(planned.kind, 0) + 1
        damage = len([kind for kind, _ in self.nemesis.damage if kind in DAMAGE]) - self.outcome.damaged
        if damage:
            time.sleep(0.5)
            found = self._detected() - before
            self.outcome.damaged += damage
            self.outcome.detected += int(found)
            if not found:
                self.fail("P6", f"{damage} damaged pages, and no receiver has counted one ({planned})")

    def _detected(self):
        return sum(self.cluster.metric(name, "runahead_kv_transfer_failures_total", reason="corrupt")
                   for name in self.cluster.workers)

    def _judge(self):
        self._judge_answers()
        self._judge_times()
        self._judge_processes()
        try:
            self.cluster.wait_until(self.cluster.at_rest, REST_SECONDS, "rest")
        except TimeoutError:
            self.fail("P4", f"not at rest: {json.dumps(self.cluster.state())[:600]}")
        self._judge_pages()
        self._judge_numbers()
        for name, process in self.cluster.processes.items():
            if name != "coordinator" and process.end(signal.SIGTERM) != 0:
                self.fail("P14", f"{name} at rest ended with {process.exit_codes[-1]} after SIGTERM")
        if self.cluster.processes["coordinator"].end(signal.SIGTERM) != 0:
            self.fail("P14", "the coordinator at rest did not end well after SIGTERM")
        self._judge_jobs()

    def _coordinator_ended(self, asked, left=True):
        """Did the coordinator die while this was asked? Or leave, after SIGTERM: then what it has accepted must end first."""
        def ends(planned):
            return planned.target == "coordinator" and planned.kind != "stop_coordinator" \
                and (left or planned.kind != "term_coordinator")
        return any(ends(planned) and begin <= asked.ended and end >= asked.began for planned, begin, end in self.nemesis.done)

    def _judge_answers(self):
        for number, asked in enumerate(self.clients.asked):
            who = f"{asked.kind} {number} ({asked.prompt}, {asked.plan})"
            self.outcome.accepted += asked.accepted
            self.outcome.finished += asked.outcome == "finished"
            self.outcome.cancelled += asked.outcome == "cancelled"
            if asked.outcome == "finished":
                expected = self.reference[asked.prompt]
                same = asked.text == expected and asked.tokens == PROMPTS[asked.prompt][1]
                self.outcome.identical += same
                if not same:
                    self.fail("P1", f"{who} has {asked.tokens} tokens and the text {asked.text!r}, not {expected!r}")
                if asked.kind == "job" and asked.ids != list(range(PROMPTS[asked.prompt][1])):
                    self.fail("P1", f"{who} saw the indices {asked.ids}")
            elif asked.outcome == "broken" and asked.kind != "job" and self._coordinator_ended(asked, left=False):
                self.outcome.broken += 1
                if not self.reference[asked.prompt].startswith(asked.text):
                    self.fail("P1", f"{who} broke off behind {asked.text!r}")
            elif asked.outcome != "cancelled":
                self.fail("P1", f"{who} is {asked.outcome} after {asked.seconds:.1f} s: {asked.error}")
            if asked.cut_off and not self._coordinator_ended(asked):
                self.fail("P1", f"{who}: a connection ended without an answer though the coordinator lived")

    def _judge_jobs(self):
        keys = {}
        with sqlite3.connect(f"file:{self.cluster.job_store}?mode=ro", uri=True) as store:
            for key, job, status in store.execute("SELECT idempotency_key, id, status FROM jobs"):
                keys.setdefault(key, []).append((job, status))
        for asked in self.clients.asked:
            if asked.kind != "job" or not asked.accepted:
                continue
            rows = keys.get(asked.key, [])
            if len(rows) != 1 or rows[0][0] != asked.job:
                self.fail("P5", f"job {asked.job} with the key {asked.key} has the rows {rows}")

    def _judge_times(self):
        alone = {}
        for asked in self.clients.asked:
            if asked.outcome == "finished" and asked.ended < self.calm_until:
                alone.setdefault((asked.prompt, asked.kind), []).append(asked.seconds)
        usual = {key: sorted(values)[len(values) // 2] for key, values in alone.items()}
        whole = {name: [v for (prompt, _), v in usual.items() if prompt == name] for name in PROMPTS}
        for asked in self.clients.asked:
            if asked.ended and asked.seconds > REQUEST_SECONDS_MAX + 1:
                self.fail("P7", f"{asked.kind} ({asked.prompt}) took {asked.seconds:.1f} s")
            if not self._coordinator_ended(asked):
                self.outcome.silence = max(self.outcome.silence, asked.silence)
            beside = any(begin <= asked.ended and end >= asked.began for planned, begin, end in self.nemesis.done
                         if planned.kind != "none")
            base = usual.get((asked.prompt, asked.kind)) or (min(whole[asked.prompt]) if whole[asked.prompt] else None)
            if asked.outcome == "finished" and beside and base is not None:
                self.outcome.added.append(max(0.0, asked.seconds - base))
        if self.outcome.silence > SILENCE_SECONDS_MAX:
            self.fail("P7", f"a stream was silent for {self.outcome.silence:.1f} s")

    def _judge_processes(self):
        self.outcome.restarts = self.nemesis.restarted
        self.outcome.untested = self.nemesis.untested
        for what in self.nemesis.bad:
            self.fail(*what.split(": ", 1))
        hurt = {planned.target for planned, _, _ in self.nemesis.done}
        for name, process in self.cluster.processes.items():
            if name not in hurt and process.pid != self.pids[name]:
                self.fail("P8", f"{name} has another process than at the start")
            if not process.lives():
                self.fail("P8", f"{name} ended with {process.popen.returncode}")
        for name in {name for name, _ in self.nemesis.restarted if name != "coordinator"}:
            if not self._works(name):
                self.fail("P8", f"{name} was restarted and gets no work")

    def _works(self, name):
        """A few completions at once, over every prefill worker and whichever decode worker is free: is it one of them?"""
        def pages():
            return self.cluster.metric(name, "runahead_kv_stream_bytes_total")
        before = pages()
        for _ in range(5):
            with ThreadPoolExecutor(2 * len(self.cluster.workers)) as pool:
                answers = list(pool.map(self._complete, range(2 * self.size[1])))
            self.asked_after += len(answers)
            for status, body in answers:
                if status != 200:
                    self.fail("P8", f"a completion after the faults: {status} {body[:200]}")
                    return True
            time.sleep(0.1)
            if pages() > before:
                return True
        return False

    def _complete(self, number):
        return self.cluster.request("POST", "/v1/completions", {
            "prompt": PROMPTS["long"][0], "max_tokens": 8, "temperature": 0, "ignore_eos": True,
            "runahead": {"strategy": "even"}, "cache_salt": f"works {number} {time.time_ns()}"}, timeout=60)

    def _judge_pages(self):
        for name in self.cluster.workers:
            for state in ("leased", "quarantined"):
                left = self.cluster.metric(name, "runahead_kv_pages", state=state)
                if left:
                    self.fail("P4", f"{name} has {left:.0f} pages {state} at rest")

    def _judge_numbers(self):
        metric = self.cluster.metric
        accepted = metric("coordinator", "runahead_requests_accepted_total")
        ended = metric("coordinator", "runahead_requests_ended_total")
        now = metric("coordinator", "runahead_requests_running") + metric("coordinator", "runahead_requests_waiting")
        if accepted != ended + now:
            self.fail("P15", f"{accepted:.0f} accepted, but {ended:.0f} ended and {now:.0f} in work")
        if any(planned.target == "coordinator" for planned, _, _ in self.nemesis.done if planned.kind != "stop_coordinator"):
            return  # its counters began anew
        done = sum(metric("coordinator", "runahead_requests_ended_total", outcome=outcome) for outcome in ("stop", "length"))
        finished = self.outcome.finished + self.asked_after + len(PROMPTS)
        if not finished <= done <= finished + self.outcome.cancelled:
            self.fail("P15", f"clients have {finished} answers and went away from {self.outcome.cancelled}, "
                             f"the metrics say {done:.0f}")
        failed = metric("coordinator", "runahead_requests_ended_total", outcome="failed")
        if failed:
            self.fail("P15", f"the metrics say that {failed:.0f} requests failed, of which no client knows")
