#!/usr/bin/env python3
"""Writes helm/runahead/README.md: the table of values, from helm/runahead/values.yaml and its comments.

    helm/readme.py            writes it
    helm/readme.py --check    exit code 1 if it is not as it would be written
Comments are those of a key's own line and of the lines below it that begin further right, or those right above it. PyYAML.
"""
import json
import re
import sys
from pathlib import Path

import yaml

CHART = Path(__file__).resolve().parent / "runahead"
HEAD = """# The chart of Runahead

Written by `helm/readme.py` from `values.yaml`; the schema, `values.schema.json`, refuses what is not in this table. How it is
run and watched: `docs/operations.md`; with GPUs: `docs/gpu.md` and `values-gpu.yaml`.

    helm install llm helm/runahead
    helm test llm --logs

| value | default | what |
|---|---|---|
"""
ENTRY = re.compile(r"( *)([\w-]+):(.*)")


def leaves(values, prefix=""):
    for key, value in values.items():
        if isinstance(value, dict) and value and prefix + key != "metrics.dashboard.labels":
            yield from leaves(value, f"{prefix}{key}.")
        else:
            yield prefix + key, value


def comments(text):
    """path -> what the comments say of it."""
    found, stack, above = {}, [], []
    last = None
    for line in text.splitlines():
        if re.match(r" *#", line):
            begin = line.index("#")
            if last and begin > 20:
                found[last] += " " + line.strip(" #")
            else:
                above.append(re.sub(r"^ *# {3,}(\w+) +", r"<br>`\1`: ", line).strip(" #"))
            continue
        entry = ENTRY.match(line)
        if not entry:
            above, last = [], None
            continue
        while stack and stack[-1][0] >= len(entry[1]):
            stack.pop()
        stack.append((len(entry[1]), entry[2]))
        last = ".".join(key for _, key in stack)
        own = entry[3].split(" #", 1)[1:] or [" ".join(above)]
        found[last], above = own[0].strip().replace("|", "\\|"), []
    return found


def readme():
    text = (CHART / "values.yaml").read_text()
    said = comments(text)
    rows, groups = [], set()
    for path, value in leaves(yaml.safe_load(text)):
        parent = path.rpartition(".")[0]
        if parent and parent not in groups and said.get(parent):
            rows.append(f"| `{parent}` | | {said[parent]} |")
        groups.add(parent)
        rows.append(f"| `{path}` | `{json.dumps(value)}` | {said.get(path, '')} |")
    return HEAD + "\n".join(row.replace("  ", " ") for row in rows) + "\n"


def main():
    path = CHART / "README.md"
    if sys.argv[1:] == ["--check"]:
        same = path.exists() and path.read_text() == readme()
        print("up to date" if same else "helm/runahead/README.md is old: run helm/readme.py", file=sys.stderr)
        return 0 if same else 1
    path.write_text(readme())
    return 0


if __name__ == "__main__":
    sys.exit(main())
