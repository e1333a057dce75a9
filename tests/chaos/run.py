#!/usr/bin/env python3
"""Chaos: a real cluster under faults from a seed, judged by what its clients, its job store and its metrics say.

    tests/chaos/run.py --seeds 1-20 --minutes 30     one line a seed, then a table; exit code 1 if one failed or was void
    tests/chaos/run.py --seeds 7 --kinds kill_decode,flip_page --keep
    tests/chaos/run.py --failpoints                  every boundary of a message instead of seeds, before and after, kill and stop
    tests/chaos/run.py --seeds 7 --plan              only prints what would happen

Logs and the timeline of a seed that failed stay in --folder (build/chaos); RUNAHEAD_BINARY names another binary.
"""

import argparse
import shutil
import signal
import sys
import time
from collections import Counter
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))
import cluster  # noqa: E402
import faults  # noqa: E402
from seed_run import SeedRun  # noqa: E402


FAILPOINTS_A_RUN = 12


def percentile(values, share):
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(share * len(ordered)))] if ordered else 0.0


def latencies(values):
    return f"{percentile(values, 0.5):.2f}/{percentile(values, 0.99):.2f}/{max(values, default=0):.2f} s"


def line(outcome):
    kinds = " ".join(f"{kind}*{count}" if count > 1 else kind for kind, count in sorted(outcome.faults.items()))
    return (f"seed {outcome.seed}: {outcome.verdict} in {outcome.seconds:.0f} s; accepted {outcome.accepted}, "
            f"finished {outcome.finished}, identical {outcome.identical}, "
            f"cancelled {outcome.cancelled}, broken off {outcome.broken}; "
            f"longest silence {outcome.silence:.1f} s; added {latencies(outcome.added)}; {kinds}")


def table(outcomes):
    faults_done, added, restarts = Counter(), [], {}
    for outcome in outcomes:
        faults_done.update(outcome.faults)
        added += outcome.added
        for name, seconds in outcome.restarts:
            restarts.setdefault("coordinator" if name == "coordinator" else "worker", []).append(seconds)
    total = {name: sum(getattr(outcome, name) for outcome in outcomes)
             for name in ("accepted", "finished", "identical", "cancelled", "broken", "damaged", "detected")}
    rows = [("seeds", f"{len(outcomes)}: " + ", ".join(f"{count} {verdict}" for verdict, count in
                                                        Counter(outcome.verdict for outcome in outcomes).items())),
            ("faults", f"{sum(faults_done.values())}: " + ", ".join(f"{kind} {count}"
                                                                   for kind, count in sorted(faults_done.items()))),
            ("failpoints not passed", str(sum(len(outcome.untested) for outcome in outcomes))),
            ("accepted / finished / identical", f"{total['accepted']} / {total['finished']} / {total['identical']}"),
            ("cancelled by their clients / broken off with the coordinator", f"{total['cancelled']} / {total['broken']}"),
            ("longest silence", f"{max((outcome.silence for outcome in outcomes), default=0):.2f} s"),
            ("added latency beside faults, p50/p99/max", latencies(added)),
            ("damaged pages / streams that refused one", f"{total['damaged']} / {total['detected']}")]
    rows += [(f"{name} serves after its restart, p50/p99/max of {len(values)}", latencies(values))
             for name, values in sorted(restarts.items())]
    width = max(len(name) for name, _ in rows)
    return "\n".join(f"{name:{width}}  {value}" for name, value in rows)


def parse_seeds(text):
    first, _, last = text.partition("-")
    return range(int(first), int(last or first) + 1)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=parse_seeds, default=range(1, 6), help="N or FIRST-LAST (default 1-5)")
    parser.add_argument("--minutes", type=float, default=60, help="begin no seed after so long (default 60)")
    parser.add_argument("--seconds", type=float, default=25, help="of faults in each seed (default 25)")
    parser.add_argument("--kinds", type=lambda text: text.split(","), help="only these faults (default all)")
    parser.add_argument("--folder", type=Path, default=cluster.ROOT / "build" / "chaos", help="logs (default build/chaos)")
    parser.add_argument("--keep", action="store_true", help="keep the logs of seeds that went well, too")
    parser.add_argument("--failpoints", nargs="?", const="", metavar="ROLE",
                        help="each boundary of this role (default of all) once, a dozen to a cluster")
    parser.add_argument("--actions", type=lambda text: text.split(","), default=["kill", "stop"],
                        help="of --failpoints (default kill,stop)")
    parser.add_argument("--plan", action="store_true", help="print the faults of the seeds and do nothing")
    chosen = parser.parse_args()
    if chosen.plan:
        for seed in chosen.seeds:
            prefill, decode = faults.draw_size(faults.random.Random(f"size {seed}"))
            names = [f"p{i + 1}" for i in range(prefill)] + [f"d{i + 1}" for i in range(decode)]
            print(f"seed {seed}: {' '.join(names)}")
            print("\n".join(map(str, faults.draw_plan(seed, chosen.seconds, names, chosen.kinds))))
        return 0
    if reason := cluster.missing():
        print(f"chaos: {reason}", file=sys.stderr)
        return 2
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # ends its processes
    outcomes, end = [], time.monotonic() + 60 * chosen.minutes
    plans = {seed: None for seed in chosen.seeds}
    if chosen.failpoints is not None:
        every = [each for each in faults.every_failpoint(chosen.actions) if chosen.failpoints in ("", each.detail["role"])]
        plans = {f"failpoints-{at // FAILPOINTS_A_RUN}": every[at:at + FAILPOINTS_A_RUN]
                 for at in range(0, len(every), FAILPOINTS_A_RUN)}
    for seed, plan in plans.items():
        if time.monotonic() > end:
            break
        folder = chosen.folder / f"seed-{seed}"
        shutil.rmtree(folder, ignore_errors=True)
        outcome = SeedRun(seed, folder, chosen.seconds, chosen.kinds, plan, (2, 1) if plan else None).run()
        outcomes.append(outcome)
        print(line(outcome), flush=True)
        for failure in outcome.failures:
            print(f"    {failure}", flush=True)
        for untested in outcome.untested:
            print(f"    not passed: {untested}", flush=True)
        if outcome.void:
            print(f"    void: {outcome.void}", flush=True)
        if outcome.verdict == "ok" and not chosen.keep:
            shutil.rmtree(folder, ignore_errors=True)
        elif outcome.verdict != "ok":
            print(f"    replay: {' '.join(sys.argv[:1])} --seeds {seed} --seconds {chosen.seconds:g}; logs: {folder}", flush=True)
    print(table(outcomes))
    return 0 if outcomes and all(outcome.verdict == "ok" for outcome in outcomes) else 1


if __name__ == "__main__":
    sys.exit(main())
