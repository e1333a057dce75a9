"""What goes wrong, and when: drawn from the seed before anything starts, so that a seed is the same faults again. How the
processes and the clients run beside them is not replayed: that is the simulation's (tests/sim).
"""

import random
import signal
import time
from dataclasses import dataclass, field

from proxy import Fault

# Boundaries where a process dies, stops or sleeps: role, message.
BOUNDARIES = [
    ("prefill", "hello"), ("prefill", "welcome"), ("prefill", "heartbeat"), ("prefill", "run_chain_step"),
    ("prefill", "rank_progress"), ("prefill", "first_token"), ("prefill", "rank_done"), ("prefill", "attempt_ended"),
    ("prefill", "kv_begin"), ("prefill", "kv_page"), ("prefill", "kv_end"),
    ("decode", "hello"), ("decode", "welcome"), ("decode", "heartbeat"), ("decode", "run_decode"), ("decode", "prompt_kept"),
    ("decode", "first_token"), ("decode", "token_batch"), ("decode", "decode_done"), ("decode", "attempt_ended"),
    ("decode", "kv_begin"), ("decode", "kv_page"), ("decode", "kv_end"),
    ("coordinator", "hello"), ("coordinator", "welcome"), ("coordinator", "run_chain_step"), ("coordinator", "run_decode"),
    ("coordinator", "rank_progress"), ("coordinator", "first_token"), ("coordinator", "rank_done"),
    ("coordinator", "token_batch"), ("coordinator", "decode_done"), ("coordinator", "heartbeat"),
]

# kind: weight. `none` is a fault, too: it shows that the checks find nothing where nothing is. `drop_frame` comes only when it is
# named: connections lose nothing, and an order that is lost costs a stall limit for each attempt that its worker has in work.
WEIGHTS = {
    "none": 4, "kill_prefill": 3, "kill_decode": 3, "kill_coordinator": 2, "failpoint": 6, "stop_prefill": 2, "stop_decode": 2,
    "stop_coordinator": 1, "term_prefill": 2, "term_decode": 2, "term_coordinator": 1,
    "cut_control": 1, "cut_data": 2, "delay_control": 1, "delay_data": 1, "stall_control": 1, "stall_data": 2,
    "hole_control": 1, "hole_data": 2, "split_control": 1, "merge_data": 1, "flip_data": 3, "flip_page": 2, "drop_page": 1,
    "double_page": 1, "swap_page": 1, "foreign_page": 1, "drop_frame": 0, "double_frame": 2, "swap_frame": 1,
}
DAMAGE = ("flip_page", "double_page", "foreign_page")  # that a receiver cannot overlook


@dataclass
class Planned:
    pause: float  # seconds before it, in which nothing is wrong
    kind: str
    target: str  # a process or a link
    seconds: float  # until it is taken back
    detail: dict = field(default_factory=dict)

    def __str__(self):
        more = " ".join(f"{key}={value}" for key, value in self.detail.items())
        return f"{self.pause:.2f} {self.kind} {self.target} {self.seconds:.2f} s {more}".rstrip()


def draw_size(rng):
    """Prefill and decode workers."""
    return rng.choice([2, 2, 3]), rng.choice([1, 1, 2])


def draw_plan(seed, seconds, workers, kinds=None):
    """One fault at a time: the next begins when the one before is healed and the cluster is whole again."""
    rng = random.Random(f"plan {seed}")
    weights = WEIGHTS if kinds is None else {kind: WEIGHTS[kind] or 1 for kind in WEIGHTS if kind in kinds}
    planned, taken = [], 0.0
    while taken < seconds:
        kind = rng.choices(list(weights), list(weights.values()))[0]
        planned.append(draw_fault(rng, kind, round(rng.uniform(0.2, 1.5), 2), workers))
        taken += planned[-1].pause + planned[-1].seconds
    return planned


def every_failpoint(actions=("kill", "stop")):
    """Each boundary, before and after, in a cluster of p1, p2 and d1: one plan."""
    for role, message in BOUNDARIES:
        for when in ("before", "after"):
            for action in actions:
                target = "coordinator" if role == "coordinator" else "p1" if role == "prefill" else "d1"
                yield Planned(0.2, "failpoint", target, 6,
                              {"role": role, "message": message, "when": when, "action": action, "nth": 1})


def draw_fault(rng, kind, pause, workers):
    of = {role: [name for name in workers if name[0] == role[0]] for role in ("prefill", "decode")}
    what, _, where = kind.partition("_")
    seconds, detail = rng.uniform(0.2, 1.0), {}
    if kind == "none":
        target = ""
    elif kind == "failpoint":
        role, message = rng.choice(BOUNDARIES)
        target = "coordinator" if role == "coordinator" else rng.choice(of[role])
        detail = {"role": role, "message": message, "when": rng.choice(["before", "after"]),
                  "action": rng.choice(["kill", "kill", "stop", f"sleep:{rng.randint(200, 3000)}"]),
                  "nth": rng.choice([1, 1, 2, 3, 30 if message in ("heartbeat", "kv_page", "token_batch") else 4])}
        seconds = 6
    elif where in ("prefill", "decode", "coordinator"):
        target = where if where == "coordinator" else rng.choice(of[where])
        if what == "stop":
            seconds = rng.choice([rng.uniform(0.3, 1.8), rng.uniform(2.2, 5)])  # within the lease, and beyond it
    else:
        link = "data" if where in ("data", "page") else "control"
        # Pages come from prefill workers alone, but for beginnings that a decode worker keeps.
        target = f"{link}-{rng.choice(of['prefill'] if link == 'data' else workers)}"
        detail = {"way": rng.choice(["up", "down", "both"])}
        seconds = rng.uniform(1, 6)
        if where in ("page", "frame") or what == "flip":
            seconds, detail = rng.uniform(2, 5), {"count": rng.randint(1, 3)}
            if where == "frame":
                detail["way"] = rng.choice(["up", "down"])
            if kind == "drop_frame":  # the attempt of each waits for the stall limit, one after the other
                detail["count"] = 1
        if what == "delay":
            detail["delay"] = rng.choice([0.005, 0.02, 0.1])
    return Planned(pause, kind, target, round(seconds, 2), detail)


def link_fault(planned):
    what, _, where = planned.kind.partition("_")
    way = planned.detail.get("way")
    ways = ("up", "down") if way == "both" else (way,)
    count = planned.detail.get("count", 0)
    if where in ("page", "frame"):
        return Fault(units={what: count}, unit_way=way or "down")
    return {"delay": lambda: Fault(delay=planned.detail["delay"]), "stall": lambda: Fault(stopped=ways),
            "hole": lambda: Fault(black_hole=ways), "split": lambda: Fault(pieces=7), "merge": lambda: Fault(merge=0.05),
            "flip": lambda: Fault(flips=count)}[what]()


class Nemesis:
    """Does what was planned. `say` writes the timeline."""

    def __init__(self, cluster, asked, say):
        self.cluster, self.asked, self.say = cluster, asked, say
        self.done = []  # (Planned, begin, end of its effects) by the clock of the clients
        self.damage = []  # of links: (kind, what)
        self.untested = []  # failpoints that were not passed
        self.bad = []  # what a fault itself found wrong
        self.restarted = []  # (name, seconds until it serves)

    def strike(self, planned):
        time.sleep(planned.pause)
        begin = time.monotonic()
        self.say(str(planned))
        if planned.kind == "none":
            time.sleep(planned.seconds)
        elif planned.target in self.cluster.links:
            self._hurt_link(planned)
        elif planned.kind == "failpoint":
            self._failpoint(planned)
        else:
            self._hurt_process(planned)
        self.cluster.wait_until(self.cluster.complete, 30, f"all workers after {planned}")
        healed = time.monotonic()
        self.done.append((planned, begin, healed))
        # What was asked before has ended: a request may be hurt by one fault, not by four in a row (limits::kAttemptsMax).
        self.cluster.wait_until(lambda: all(asked.ended for asked in list(self.asked) if asked.began < healed), 60,
                                f"an answer to everything that was asked before the end of {planned}")

    def _hurt_link(self, planned):
        link = self.cluster.links[planned.target]
        if planned.kind.startswith("cut"):
            link.cut()
            return time.sleep(planned.seconds / 4)
        link.set(link_fault(planned))
        end = time.monotonic() + planned.seconds
        while time.monotonic() < end and (link.fault.flips or not planned.detail.get("count") or any(link.fault.units.values())):
            time.sleep(0.02)
        link.heal()
        for what in link.take_damage():
            self.say(f"       {planned.target}: {what}")
            self.damage.append((planned.kind, what))

    def _hurt_process(self, planned):
        process = self.cluster.processes[planned.target]
        if planned.kind.startswith("stop"):
            process.send(signal.SIGSTOP)
            time.sleep(planned.seconds)
            return process.send(signal.SIGCONT)
        if planned.kind.startswith("kill"):
            process.end(signal.SIGKILL)
        else:
            self._ask_to_end(process)
        time.sleep(planned.seconds / 2 if planned.target != "coordinator" else 0.1)
        self._restart(process)

    def _ask_to_end(self, process):
        """Finishes what it has; but an order may be on its way to it in that moment."""
        def lost():
            return self.cluster.metric("coordinator", "runahead_replans_total")
        before = lost()
        code = process.end(signal.SIGTERM)
        if code != 0:
            self.bad.append(f"P14: {process.name} ended with {code} after SIGTERM")
        if process.name != "coordinator" and lost() > before + 1:
            self.bad.append(f"P14: {lost() - before:.0f} attempts were lost when {process.name} ended after SIGTERM")

    def _restart(self, process, failpoint=None):
        begin = time.monotonic()
        process.start(failpoint)
        if failpoint:
            return
        name = process.name
        serving = self.cluster.complete if name == "coordinator" else lambda: self.cluster.serves(name)
        self.cluster.wait_until(serving, 30, f"{name} after its restart")
        self.restarted.append((name, time.monotonic() - begin))

    def _failpoint(self, planned):
        """Restarted with the failpoint, left to run into it, then restarted without, or woken."""
        detail, process = planned.detail, self.cluster.processes[planned.target]
        text = f"{detail['role']}.{detail['message']}.{detail['when']}={detail['action']}@{detail['nth']}"
        process.end(signal.SIGKILL)
        mark = process.log.stat().st_size
        self._restart(process, text)

        def passed():
            with open(process.log, "rb") as log:
                log.seek(mark)
                return b"failpoint " in log.read()

        end = time.monotonic() + planned.seconds
        while time.monotonic() < end and not passed():
            time.sleep(0.02)
        if not passed():
            self.untested.append(text)
            self.say(f"       {text}: not passed")
        elif detail["action"] == "stop":
            time.sleep(3)  # beyond the lease
        elif detail["action"] != "kill":
            time.sleep(int(detail["action"].split(":")[1]) / 1000)
        process.send(signal.SIGCONT)
        process.end(signal.SIGKILL)
        self._restart(process)
