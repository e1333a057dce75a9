#!/usr/bin/env python3
"""Planted bugs of the protocol, and which test finds each: that is how we know that the tests test something.

    tests/chaos/mutants.py --list
    tests/chaos/mutants.py [NAME ...]      builds each and runs its test until that fails; exit code 1 if one survives

A mutant is one source file with one place changed. It is compiled by itself with the flags of the build folder (--build,
default build/release, whose targets must be up to date), and linked before the library it belongs to, into a program in
build/mutants: nothing of it is in the product's sources or in the binary that is shipped. 20 to 60 s each.
"""

import argparse
import json
import os
import re
import shlex
import subprocess
import sys
import time
from collections import namedtuple
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]

# found: (program, arguments): a program of the build, or chaos with arguments of run.py.
Mutant = namedtuple("Mutant", "name file old new found")
SIM = ("tests/sim/sim_run", "--seeds 400")


def actors(cases):
    return ("tests/actors/actors_tests", f"--gtest_filter={cases}")


def transport(cases):
    return ("tests/transport/transport_tests", f"--gtest_filter={cases}")


def services(cases):
    return ("tests/services/services_tests", f"--gtest_filter={cases}")


def chaos(kinds, seeds="1-3"):
    return ("runahead", f"--seeds {seeds} --seconds 20 --kinds {kinds}")


ATTEMPTS, CORE = "actors/coordinator/coordinator_attempts.cc", "actors/coordinator/coordinator_core.cc"
LEDGER, LINK, JOBS = "transport/kv/kv_ledger.cc", "actors/worker/worker_link.cc", "actors/jobs/job_service.cc"
REGISTRY = "actors/coordinator/worker_registry.cc"
MUTANTS = [
    Mutant("older-attempts-are-heard", ATTEMPTS, "if (attempt.id != attempt_of(message) && !options_.faults.skip_attempt_check)",
           "if (false)", SIM),
    Mutant("acknowledged-before-commit", JOBS, "if (faults_.ack_before_commit)", "if (true)", SIM),
    Mutant("a-lost-coordinator-ends-no-attempt", LINK, "if (!options_.faults.no_lease_sweep)", "if (false)", SIM),
    Mutant("a-silent-worker-is-never-lost", CORE, "  sweep_silent(now);\n", "", actors("Membership.*")),
    Mutant("a-stuck-attempt-goes-on", CORE, "  fail_stalled(now);\n", "", actors("Stall.*")),
    Mutant("a-stuck-worker-stays-stuck", REGISTRY, "  if (worker.holds.empty())\n", "  if (false)\n", actors("Stall.*")),
    Mutant("a-lost-report-is-never-missed", REGISTRY,
           "return worker.idle_since && now - *worker.idle_since >= limits::kLeaseDuration;", "return false;", actors("Stall.*")),
    Mutant("a-retry-doubles-an-index", ATTEMPTS,
           "if (options_.faults.double_token_index && request.attempt->base > 0) --index;",
           "if (request.attempt->base > 0) --index;", SIM),
    Mutant("a-gap-in-the-tokens-is-taken", ATTEMPTS, "if (index - 1 > expected)", "if (false)", actors("Request.*")),
    Mutant("tokens-come-twice", ATTEMPTS, "if (request.complete || index++ < expected) continue;",
           "if (request.complete) continue; ++index;", actors("Request.*:Attempts.*")),
    Mutant("decoding-begins-on-half-the-pages", "actors/worker/decode_core.cc", "  sequences_.emplace(id, std::move(sequence));",
           "  sequence->pages_complete = true;\n  sequences_.emplace(id, std::move(sequence));", SIM),
    Mutant("no-retry", ATTEMPTS, "if (request.fruitless >= static_cast<uint32_t>(limits::kAttemptsMax)",
           "if (request.fruitless >= 1", SIM),
    Mutant("a-retry-forgets-what-was-emitted", "actors/coordinator/coordinator_dispatch.cc",
           "const std::vector<TokenId> prompt = whole_prompt(request.spec.prompt, request.emitted);",
           "const std::vector<TokenId> prompt = request.spec.prompt;", SIM),
    Mutant("a-cancel-is-not-told", ATTEMPTS, "    if (id == attempt.decode) message.mutable_end_attempt()",
           "    if (reason == ErrorCode::kCancelled) continue;\n"
           "    if (id == attempt.decode) message.mutable_end_attempt()", SIM),
    Mutant("pages-are-free-while-a-peer-writes", "transport/kv/message_streams.cc",
           "  while (receiving_ > 0 || (endpoint_ && !endpoint_->is_closed())) co_await context_->changed.wait();\n", "",
           transport("Kv/*AfterTheReceivers*:Kv/*ThePin*:Kv/KvShutdown*")),
    Mutant("pages-are-free-though-they-are-shared", "model/kv_pages.cc",
           "if (slots_[slot].leases == 0) free_slots_.push_back(slot);", "free_slots_.push_back(slot);", SIM),
    Mutant("a-checksum-is-ignored", LEDGER, "if (crc != header.page_crc32c)", "if (false)", chaos("flip_page")),
    Mutant("a-checksum-is-ignored (unit)", LEDGER, "if (crc != header.page_crc32c)", "if (false)",
           transport("Kv/*Checksum*:*Corrupt*")),
    Mutant("pages-of-other-streams-are-taken", LEDGER,
           "if (header.attempt != params_.attempt || header.stream_token != params_.stream_token)", "if (false)",
           transport("*PagesThatAreNotTheStreamsOwn*")),
    Mutant("a-page-may-come-twice", LEDGER, "if (claimed_[geometry_.index(header.key)]) return", "if (false) return",
           transport("*PagesThatAreNotTheStreamsOwn*")),
    Mutant("any-token-opens-a-stream", "transport/kv/tcp_kv_streams.cc",
           "  if (hello.stream_token != ledger_.params().stream_token) return StreamReply::kWrongToken;\n", "",
           transport("*WrongToken*/tcp*")),
    Mutant("a-restarted-sender-is-taken-for-the-old-one", "transport/kv/tcp_kv_transport.cc",
           "if (hello.incarnation != options.incarnation)", "if (false)", transport("*ARestartedSenderIsNotTaken*")),
    Mutant("a-frozen-peer-is-waited-for", "transport/kv/tcp_kv_streams.cc",
           "stall_.start(timeouts_.transfer, shared_from_this());\n  while (!page.empty())", "while (!page.empty())",
           transport("*APageThatStopsHalfWay*")),
    Mutant("a-key-makes-a-second-job", JOBS, "    if (first) {\n", "    if (false) {\n", actors("JobService*")),
    Mutant("an-end-at-the-deadline-is-lost", "actors/coordinator/token_stream.cc",
           "    if (std::optional<Result<StreamEvent>> event = queue->take()) co_return std::move(*event);\n    co_return fail",
           "    co_return fail", actors("TokenQueue*")),
    Mutant("a-drain-waits-for-nobody", LINK,
           "return drain_until_ && (role_.running() == 0 || env_.clock.now() >= *drain_until_);",
           "return drain_until_.has_value();", chaos("term_prefill,term_decode")),
    Mutant("a-drain-waits-for-readers-of-waiting-jobs", "services/gateway/jobs_routes.cc",
           "        if (!ended && context_.is_over()) break;\n", "", services("JobsTest.EventsEndWithTheService*")),
    Mutant("an-end-is-not-counted", "services/metrics/coordinator_metrics.cc",
           "s.ended.Add(s.with({{\"outcome\", end_of(record)}})).Increment();",
           "if (end_of(record) != std::string(\"cancelled\")) "
           "s.ended.Add(s.with({{\"outcome\", end_of(record)}})).Increment();", chaos("none", "1")),
]


def command_of(build, target):
    """The words that link a target, without what ninja writes around them."""
    said = subprocess.run(["ninja", "-C", str(build), "-t", "commands", target], capture_output=True, text=True, check=True)
    return shlex.split(next(part for part in said.stdout.splitlines()[-1].split(" && ") if " -o " in part))


def compile_command(build, source):
    """The words that compile the library's file, or the unity file that holds it, with the source left out."""
    said = subprocess.run(["ninja", "-C", str(build), "-t", "compdb"], capture_output=True, text=True, check=True)
    for entry in json.loads(said.stdout):
        path = build / entry["file"]
        if not entry["output"].endswith(".o") or "_tests.dir" in entry["output"] or path.suffix not in (".cc", ".cxx"):
            continue
        if path != source and not (path.name.startswith("unity_") and f'"{source}"' in path.read_text()):
            continue
        words = shlex.split(entry["command"])
        words = words[next(i for i, word in enumerate(words) if re.search(r"(\+\+|cc)(-\d+)?$", word) and "ccache" not in word):]
        for flag in ("-o", "-MT", "-MF"):
            at = words.index(flag)
            del words[at:at + 2]
        return [word for word in words if word not in ("-MD", "-c", entry["file"])]
    raise SystemExit(f"no target of {build} compiles {source}")


def build_mutant(mutant, build, folder):
    source = ROOT / mutant.file
    text = source.read_text()
    if text.count(mutant.old) != 1:
        raise SystemExit(f"{mutant.name}: {mutant.file} holds what is to be changed {text.count(mutant.old)} times, not once")
    folder.mkdir(parents=True, exist_ok=True)
    changed = folder / source.name
    changed.write_text(text.replace(mutant.old, mutant.new))
    compiled = folder / "mutant.o"
    subprocess.run([*compile_command(build, source), "-w", "-o", str(compiled), "-c", str(changed)], cwd=build, check=True)
    link = command_of(build, mutant.found[0])
    program = folder / Path(mutant.found[0]).name
    at = link.index("-o")
    link[at:at + 2] = ["-o", str(program)]
    # Before everything else: the first definition is taken, and the library's own is left out.
    subprocess.run([link[0], str(compiled), "-Wl,--allow-multiple-definition", *link[1:]], cwd=build, check=True)
    return program


WRONG = re.compile(r"Failure$|^\s*P\d+: |^[A-Z_]{6,}\b|invariant|RUNAHEAD_CHECK|^\[  FAILED  \]")
TEST_SECONDS_MAX = 900


def run_test(mutant, program, folder):
    """The line that says what was wrong; empty: it survived. Ends the test at the first such line."""
    words = shlex.split(mutant.found[1])
    command = ["stdbuf", "-oL", str(program), *words]
    if program.name == "runahead":
        command = [sys.executable, str(ROOT / "tests/chaos/run.py"), *words, "--folder", str(folder / "chaos")]
    environment = {**os.environ, "RUNAHEAD_BINARY": str(program)}
    with subprocess.Popen(["timeout", "--kill-after=10", str(TEST_SECONDS_MAX), *command], stdout=subprocess.PIPE,
                          stderr=subprocess.STDOUT, text=True, env=environment, cwd=ROOT) as test:
        said = []
        for line in test.stdout:
            said.append(line.strip())
            if WRONG.search(line):
                test.terminate()
                return line.strip()[:150]
        code = test.wait()
    if code < 0 or code > 128:
        return f"ended by a signal ({code}): {said[-1] if said else ''}"[:150]
    return ""


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("names", nargs="*", help="of mutants (default all)")
    parser.add_argument("--build", type=Path, default=ROOT / "build" / "release", help="default build/release")
    parser.add_argument("--list", action="store_true", help="the names, and what finds them")
    chosen = parser.parse_args()
    wanted = [mutant for mutant in MUTANTS if not chosen.names or mutant.name in chosen.names]
    if chosen.list:
        for mutant in wanted:
            print(f"{mutant.name:45} {mutant.found[0].rsplit('/', 1)[-1]} {mutant.found[1]}")
        return 0
    survived = 0
    for mutant in wanted:
        begin = time.monotonic()
        folder = ROOT / "build" / "mutants" / re.sub(r"\W+", "-", mutant.name)
        why = run_test(mutant, build_mutant(mutant, chosen.build.resolve(), folder), folder)
        found = bool(why)
        survived += not found
        print(f"{'found' if found else 'SURVIVED':8} {mutant.name} by {mutant.found[0].rsplit('/', 1)[-1]} {mutant.found[1]} "
              f"in {time.monotonic() - begin:.0f} s: {why}", flush=True)
    print(f"{len(wanted) - survived} of {len(wanted)} found")
    return 1 if survived else 0


if __name__ == "__main__":
    sys.exit(main())
