#!/usr/bin/env python3
"""What each kernel takes of a device, as a table of what `ptxas -v` said while it compiled: registers, shared memory, spills.
The exit code is 1 if one spills registers to memory. Usage: resource_table.py BUILD_LOG"""
import re
import subprocess
import sys
from pathlib import Path

ENTRY = re.compile(r"Compiling entry function '(?P<name>\w+)' for '(?P<architecture>sm_\w+)'.*?"
                   r"(?P<stack>\d+) bytes stack frame, (?P<stores>\d+) bytes spill stores, (?P<loads>\d+) bytes spill loads.*?"
                   r"Used (?P<registers>\d+) registers(?P<rest>[^\n]*)", re.DOTALL)


def parse(log):
    """[{name, architecture, registers, shared, spilled}]"""
    rows = []
    for found in ENTRY.finditer(log):
        shared = re.search(r"(\d+) bytes smem", found["rest"])
        rows.append({"name": plain(found["name"]), "architecture": found["architecture"], "registers": int(found["registers"]),
                     "shared": int(shared.group(1)) if shared else 0,
                     "spilled": int(found["stack"]) + int(found["stores"]) + int(found["loads"])})
    return sorted(rows, key=lambda row: (row["name"], row["architecture"]))


def plain(name):
    """attend_kernel<64>, of what c++filt says."""
    said = subprocess.run(["c++filt", name], capture_output=True, text=True, check=True).stdout.strip()
    said = said.replace("(runahead::cuda::Epilogue)", "")
    found = re.search(r"cuda::(\w+(?:<[^>]*>)?)\(", said)
    return found.group(1) if found else said


def table(rows):
    architectures = sorted({row["architecture"] for row in rows})
    lines = ["| kernel | shared bytes | registers: " + ", ".join(architectures) + " |", "|---|---|---|"]
    for name in dict.fromkeys(row["name"] for row in rows):
        own = [row for row in rows if row["name"] == name]
        lines.append(f"| {name} | {max(row['shared'] for row in own)} | {', '.join(str(row['registers']) for row in own)} |")
    return "\n".join(lines)


def main():
    rows = parse(Path(sys.argv[1]).read_text(encoding="utf-8", errors="replace"))
    if not rows:
        raise SystemExit(f"{sys.argv[1]} tells of no kernel: was nothing compiled?")
    print(table(rows))
    if spilled := [f"{row['name']} on {row['architecture']}" for row in rows if row["spilled"] > 0]:
        raise SystemExit(f"registers are spilled to memory by {', '.join(spilled)}")


if __name__ == "__main__":
    main()
