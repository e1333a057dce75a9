"""Adds up what the stages of tests/run.sh left behind, prints every failure and every reason to skip, and closes with
`N passed, N failed, N skipped`. The exit code is 1 if anything failed. Usage: summary.py RESULTS_FOLDER STAGE...

A stage's folder holds any of: ctest.xml and gtest/*.xml (a GoogleTest program counts by its cases, any other ctest by
itself), pytest.xml, results.txt ("passed|failed|skipped NAME: REASON"), exit_code. A stage that ended badly and left no
failed test counts as one failure, so that a crash or a time limit is never lost.
"""
import re
import sys
import xml.etree.ElementTree as ElementTree
from pathlib import Path

REASON_LENGTH_MAX = 300  # a line that a person reads; the whole text is in the stage's own output
FRAMES_MAX = 16  # of a sanitizer's report: its own come first, and asio's


def first_line(text):
    lines = [line.strip() for line in (text or "").splitlines() if line.strip()]
    return " ".join(lines)[:REASON_LENGTH_MAX] if lines else "no reason given"


def last_words(output):
    """Of a program that died without a verdict: what a sanitizer reported and where, else a failed assertion, else the last line
    that speaks of its end, or the last."""
    lines = [line.strip() for line in (output or "").splitlines() if line.strip()]
    if not lines:
        return "it died without a word"
    for at, line in enumerate(lines):
        if found := re.search(r"(ERROR|WARNING): (\w+Sanitizer\b.*)|runtime error: .*", line):
            frames = [re.search(r"#\d+ \S+ in (.*)", frame) for frame in lines[at:]]
            places = [frame[1].split("/")[-1] for frame in frames if frame and re.search(r"\.(cc|h):\d+", frame[1])]
            return f"it died: {found[2] or line}"[:REASON_LENGTH_MAX] + "".join(f", {place}" for place in places[:FRAMES_MAX])
    failed = [line for line in lines if re.search(r"assertion .*failed", line, re.IGNORECASE)]
    telling = [line for line in lines if re.search(r"assert|abort|fatal|terminat|signal", line, re.IGNORECASE)]
    return "it died: " + (failed or telling or lines)[-1][:REASON_LENGTH_MAX]


def verdict(case):
    """(passed|failed|skipped, reason) of one <testcase> of pytest, GoogleTest or ctest."""
    for tag, outcome in (("failure", "failed"), ("error", "failed"), ("skipped", "skipped")):
        found = case.find(tag)
        if found is not None:
            told = found.get("message") or found.text
            if not told and case.find("system-out") is not None:
                return outcome, last_words(case.findtext("system-out"))
            return outcome, first_line(told)
    if case.get("status") in ("fail", "failed"):
        return "failed", first_line(case.findtext("system-out"))
    if case.get("status") in ("disabled", "notrun"):
        return "skipped", case.get("status")
    return "passed", ""


def cases(path):
    try:
        return list(ElementTree.parse(path).iter("testcase"))
    except ElementTree.ParseError:
        return []  # cut short: the program died, and its ctest entry says so


def ctest_results(folder):
    programs = {path.stem: cases(path) for path in (folder / "gtest").glob("*.xml")}
    for program in sorted(programs):
        for case in programs[program]:
            yield (f"{case.get('classname')}.{case.get('name')}", *verdict(case))
    if not (folder / "ctest.xml").exists():
        return
    for entry in cases(folder / "ctest.xml"):
        name = entry.get("name")
        own = [program for program in programs if re.fullmatch(rf"{re.escape(name)}_tests(_\d+)?", program)]
        counted = [case for program in own for case in programs[program]]
        outcome, reason = verdict(entry)
        told = any(verdict(case)[0] == "failed" for case in counted)
        if not counted or (outcome == "failed" and not told):
            yield name, outcome, reason


def stage_results(folder):
    yield from ctest_results(folder)
    if (folder / "pytest.xml").exists():
        for case in cases(folder / "pytest.xml"):
            yield (f"{case.get('classname')}::{case.get('name')}", *verdict(case))
    if (folder / "results.txt").exists():
        for line in (folder / "results.txt").read_text().splitlines():
            outcome, _, rest = line.partition(" ")
            name, _, reason = rest.partition(": ")
            yield name, outcome, reason


def summarize(root, stages):
    """[(stage, name, outcome, reason)] of everything that ran."""
    found = []
    for stage in stages:
        results = list(stage_results(root / stage))
        code_file = root / stage / "exit_code"
        code = code_file.read_text().strip() if code_file.exists() else "none"
        if code != "0" and not any(outcome == "failed" for _, outcome, _ in results):
            reason = "it ran past its time limit" if code in ("124", "137") else f"it ended with exit code {code}"
            results.append((f"stage {stage}", "failed", reason))
        elif not results:
            results.append((f"stage {stage}", "passed", ""))
        found += [(stage, *result) for result in results]
    return found


def main(arguments):
    found = summarize(Path(arguments[0]), arguments[1:])
    for title, wanted in (("skipped", "skipped"), ("FAILED", "failed")):
        for stage, name, outcome, reason in found:
            if outcome == wanted:
                print(f"{title}: [{stage}] {name}: {reason}")
    count = {outcome: sum(1 for result in found if result[2] == outcome) for outcome in ("passed", "failed", "skipped")}
    print(f"{count['passed']} passed, {count['failed']} failed, {count['skipped']} skipped")
    return 1 if count["failed"] else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
