#!/usr/bin/env python3
"""clang-tidy 19 (.clang-tidy) over the C++ files: what changed, or all of them.

    tests/tidy/clang_tidy.py                     files that differ from the base, the newest commit's first
    tests/tidy/clang_tidy.py FILE...                 these
    tests/tidy/clang_tidy.py --all               every file: about 25 minutes on 2 cores
    tests/tidy/clang_tidy.py --base REV          the base; else origin/main where there is one, else ten commits ago
    tests/tidy/clang_tidy.py --seconds N         begins no file after N seconds, and says how many are left

Needs a finished build/release (its compile commands and generated headers). Prints FILE:LINE: what is wrong; exit code 1
if it found anything, or a FILE that no source includes. A header is looked at through the source beside it, or else the first
one that includes it, directly or not. The fuzzers are not in that build, and not looked at.
"""
import argparse
import json
import os
import re
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
BUILD = "build/release"
COMMANDS = "build/lint"  # the build's, one for each source
COMMITS_BACK = 10
FINDING = re.compile(r"^(/[^:]+):(\d+):\d+: (?:warning|error): (.*)$")


def git(*arguments):
    done = subprocess.run(["git", *arguments], cwd=ROOT, capture_output=True, text=True, check=False)
    return done.stdout.split() if done.returncode == 0 else []


def default_base():
    for revision in ("origin/main", f"HEAD~{COMMITS_BACK}"):
        found = git("merge-base", "HEAD", revision)
        if found and found != git("rev-parse", "HEAD"):
            return found[0]
    return "HEAD"


def changed_files(base):
    """What is not committed first, then by commit, the newest first; each file once."""
    files = git("diff", "--name-only", "HEAD") + git("ls-files", "--others", "--exclude-standard")
    for commit in git("rev-list", f"{base}..HEAD"):
        files += git("diff-tree", "--no-commit-id", "--name-only", "-r", "-m", "--first-parent", commit)
    return list(dict.fromkeys(files))


def compiled_sources():
    """Relative paths of the sources that the build compiles. Writes a compile command for each: in a unity build (RUNAHEAD_UNITY)
    there is one for several, in a file that includes them."""
    commands = {}
    for entry in json.loads((ROOT / BUILD / "compile_commands.json").read_text()):
        text = Path(entry["file"]).read_text() if "/Unity/" in entry["file"] else ""
        included = re.findall(r'^#include "(.+)"$', text, re.MULTILINE)
        for file in included or [entry["file"]]:
            commands[file] = {**entry, "file": file, "command": entry["command"].replace(entry["file"], file)}
    (ROOT / COMMANDS).mkdir(parents=True, exist_ok=True)
    (ROOT / COMMANDS / "compile_commands.json").write_text(json.dumps(list(commands.values()), indent=1))
    paths = {os.path.relpath(file, ROOT) for file in commands}
    return sorted(path for path in paths if not path.startswith(("..", "build/")))


def includers(files):
    """Which files include a header, by its path."""
    users = {}
    for path in files:
        for included in re.findall(r'^\s*#\s*include\s*"([^"]+)"', (ROOT / path).read_text(), re.MULTILINE):
            for target in (included, os.path.normpath(os.path.join(os.path.dirname(path), included))):
                users.setdefault(target, []).append(path)
    return users


def sources_for(files, sources):
    """(the sources through which clang-tidy sees these files, in the same order; the files that none of them includes)"""
    known, users, found, unseen = set(sources), None, [], []
    for file in files:
        beside = re.sub(r"\.h$", ".cc", file)
        if beside in known:
            found.append(beside)
            continue
        if not file.endswith(".h"):
            unseen.append(file)
            continue
        users = users or includers([path for path in git("ls-files", "--cached", "--others", "--exclude-standard", "*.h", "*.cc")
                                    if (ROOT / path).exists()])
        reached, source = [file], None
        for path in reached:  # grows: from header to header until a source comes
            source = source or (path if path in known else None)
            if not source:
                reached += [user for user in users.get(path, []) if user not in reached]
        found.append(source) if source else unseen.append(file)
    return list(dict.fromkeys(found)), unseen


def check(source):
    """(findings, what went wrong with clang-tidy itself)"""
    done = subprocess.run(["clang-tidy-19", "-p", COMMANDS, "--quiet", source], cwd=ROOT, capture_output=True, text=True,
                          check=False)
    found = set()
    for line in done.stdout.splitlines():
        match = FINDING.match(line)
        if match:
            found.add((os.path.relpath(match[1], ROOT), int(match[2]), match[3]))
    return found, "" if found or done.returncode == 0 else f"{source}: {done.stderr[-2000:]}"


def run(sources, seconds):
    """(findings, failures, sources that were not begun)"""
    end = time.monotonic() + seconds if seconds else None
    found, failures, left = set(), [], []

    def one(source):
        if end and time.monotonic() > end:
            left.append(source)
            return
        new, failure = check(source)
        found.update(new)
        failures.extend([failure] if failure else [])

    with ThreadPoolExecutor(os.cpu_count()) as pool:
        list(pool.map(one, sources))
    return sorted(found), failures, left


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("files", nargs="*")
    parser.add_argument("--all", action="store_true")
    parser.add_argument("--base")
    parser.add_argument("--seconds", type=int, default=0)
    options = parser.parse_args()
    sources = compiled_sources()
    files = options.files or changed_files(options.base or default_base())
    files = [file for file in files if file.endswith((".cc", ".h")) and (ROOT / file).exists()]
    wanted, unseen = (sources, []) if options.all else sources_for(files, sources)
    found, failures, left = run(wanted, options.seconds)
    for path, line, text in found:
        print(f"{path}:{line}: {text}")
    for failure in failures:
        print(failure)
    for file in unseen:
        print(f"{file}: no source of {BUILD} includes it, so it is not looked at")
    print(f"{len(found)} findings in {len(wanted) - len(left)} of {len(sources)} sources"
          + (f"; no time for {len(left)} that changed" if left else ""), file=sys.stderr)
    return 1 if found or failures or (unseen and options.files) else 0


if __name__ == "__main__":
    sys.exit(main())
