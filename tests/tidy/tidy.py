#!/usr/bin/env python3
"""What the machine can check of how the code reads: directions of includes, lengths, banned calls, dead files.
What needs to know C++ (functions of 50 lines at most, coroutines, ...) is clang-tidy's: tests/tidy/clang_tidy.py.

    tests/tidy/tidy.py           prints FILE:LINE: what is wrong and what to do; exit code 1 if it found anything
    tests/tidy/tidy.py --fix     first runs clang-format over the C++ files
    tests/tidy/tidy.py --graph   prints which folder includes which, and how often

tests/tidy/test_tidy.py runs each rule on the tree, and on a planted fault that it must find. Every exception is in a
table below, with its reason. Standard library only.
"""
import os
import re
import subprocess
import sys
from collections import namedtuple
from pathlib import Path, PurePosixPath

import cpp_source
from include_graph import IncludeGraph, folder_of, top_of

LINE_COLUMNS_MAX = 130  # clang-format breaks code at 120; a comment may stand out by ten
FILE_LINES_MAX = 600

# Which of our folders a folder may include: docs/ARCHITECTURE.md. Folders that are not named may include anything.
MAY_INCLUDE = {
    "base": {"base"},
    "kernels": {"kernels", "base"},
    "planner": {"planner", "base"},
    "proto": {"proto", "base"},
    "model": {"model", "kernels", "base"},
    "bench": {"bench", "actors", "planner", "transport", "model", "kernels", "base"},
    "transport": {"transport", "base"},
    "actors": {"actors", "model", "kernels", "planner", "transport", "proto", "base"},
    "services": {"services", "actors", "bench", "model", "kernels", "planner", "transport", "proto", "base"},
}
PRODUCT = tuple(MAY_INCLUDE)

# Folders below one top folder that lead back to themselves, and why. Nothing else may: a folder above or beside, or it is
# the same folder.
CYCLES = {
    ("model", "model/weights"): "the configuration is read from GGUF's keys, and weights have the shapes it says",
}
# Folders that share what lies above them and nothing else (ADR 18).
APART = [("actors/coordinator", "actors/worker"), ("actors/jobs", "actors/worker"), ("actors/coordinator", "actors/jobs"),
         ("services/commands", "services/metrics"), ("services/job_store", "services/gateway"),
         ("services/job_store", "services/metrics")]
# Files of a subfolder that no other file there uses, and that use none: why they are there all the same.
ALONE = {
    "services/http/http_client.h": "the other end of the server's wire, and Beast is at home here",
}

# (what, pattern of the included path, pattern of the files that may include it): libraries stay where they are wrapped.
LIBRARIES = [
    ("Protobuf", r"google/protobuf/|\.pb\.h$", r"(proto|actors)/"),
    ("UCX", r"uc[pst]/", r"transport/kv/ucx_\w+\.(cc|h)$"),
    ("NCCL", r"nccl\.h$", r"transport/kv/nccl_\w+\.cc$"),
    ("CUDA", r"(cuda|cublas)\w*(\.h|/)", r"kernels/cuda/|transport/kv/nccl_\w+\.cc$"),
    ("Beast", r"boost/beast", r"services/http/|base/boost_impl\.cc$"),
    ("Boost.URL", r"boost/url", r"services/http/http_target\.cc$"),
    # CRC32C is one instruction, and so is the pause in a spin.
    ("intrinsics", r"\w*intrin\.h$|arm_neon\.h$", r"kernels/cpu/|base/crc32c\.cc$|kernels/thread_team\.cc$"),
    ("SQLite", r"sqlite3\.h$", r"services/job_store/sqlite_\w+\.(cc|h)$"),
    ("PCRE2", r"pcre2\.h$", r"model/tokenizer/\w+\.cc$"),
    ("utf8proc", r"utf8proc\.h$", r"model/(chat_template/\w+|tokenizer/(byte_level_bpe|characters_of_words|text_steps))\.cc$"),
    ("spdlog", r"spdlog/", r"base/log\.(cc|h)$"),
    ("the command line parser", r"CLI/", r"services/"),
]

# (pattern, what to do, folders it is banned in; empty means everywhere)
DECIDES = ("actors", "planner", "model")  # these replay from a seed: time, chance and environment come through seams
BANNED = [
    (r"\bstd::w?regex\b", "use PCRE2 (model) or write the loop: std::regex is slow and overflows the stack", ()),
    (r"(?:^|[\s{,(])\.\w+ = [^;\n]*\b(?:CO_)?TRY\(",
     "take the value before the braces: GCC 12 leaks the members that an aggregate already has when TRY returns", ()),
    (r"\.dump\s*\(|\bnlohmann::to_string\s*\(", "use to_text (base/json_text.h): this one throws on bytes that are not UTF-8",
     PRODUCT),
    (r"\b(strcpy|strcat|v?sprintf|gets)\s*\(", "use std::string or std::format: no bound is checked here", ()),
    (r"\b(atoi|atol|atoll|atof)\s*\(", "use std::from_chars: this one cannot report an error", ()),
    (r"(?<![\w:.>])s?rand\s*\(|\bstd::s?rand\b", "use Rng (base/rng.h), which a seed replays", ()),
    (r"\busing\s+namespace\s+std\s*;", "name what you use", ()),
    (r"\b(steady_clock|system_clock|high_resolution_clock)\b", "take a Clock (base/clock.h)", DECIDES),
    (r"\bstd::(random_device|mt19937\w*)\b", "take an Rng (base/rng.h)", DECIDES),
    (r"\b(secure_)?getenv\s*\(", "take the value as an argument: only base and services read the environment", DECIDES),
    (r"\bstd::(jthread|thread|async)\b", "compute on the lane (actors/worker/compute_lane.h)", DECIDES),
    (r"\bstd::\w*mutex\b|\bstd::condition_variable\w*", "an actor is a strand, it needs no lock", DECIDES),
]

# file: {banned text: why it is right there}. An exception that is not used any more is a finding.
ALLOWED = {
    "base/json_text.cc": {
        ".dump(": "it says what becomes of bytes that are not UTF-8",
    },
    "actors/worker/thread_lane.h": {
        "std::thread": "the lane is the one thread that computes",
        "std::mutex": "the lane's queue is between two threads",
        "std::condition_variable": "the lane sleeps until its queue has work",
    },
    "model/weights/weights.cc": {
        "std::mutex": "the threads that pack the weights at start report their progress and the first error",
    },
}

CITED = re.compile(r"(?<![\w./-])(?:" + "|".join((*PRODUCT, "tests", "docs", "deploy", "helm")) + r")/[\w./-]*\w")
OUTSIDE = re.compile(r"\bDESI" + r"GN\b|\breference/\w+\.md|\b(engine|ecosystem|measured|style)\.md\b")
NO_PATHS = {"tests/fuzz/all"}  # ninja's targets
NOTES = re.compile(r"\b(" + "FIX" + r"ME|TO" + r"DO|X" + r"XX)\b")
MACHINE_PATHS = re.compile(r"(?<![\w.~$}/-])/(work|root|home|Users)/(?!runner\b)[\w.]")
REGISTRY_HOSTS = re.compile(r"\b(pypi|pythonhosted|npmjs|crates|rubygems|debian|ubuntu|golang|ghcr|quay)\."
                            r"(org|net|com|io)\b")
CPP = (".cc", ".h", ".cu", ".cuh")
Finding = namedtuple("Finding", "path line text")


class Tree:
    """The files of a checkout that belong to it; paths are relative, with forward slashes."""

    def __init__(self, root):
        self.root = Path(root)
        self.paths = sorted(self._tracked() or self._walked())
        self._texts, self._code = {}, {}

    def _tracked(self):
        if not (self.root / ".git").exists():
            return []
        listed = subprocess.run(["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"], cwd=self.root,
                                capture_output=True, check=False)
        return [path for path in listed.stdout.decode().split("\0") if path and (self.root / path).is_file()]

    def _walked(self):
        found = []
        for folder, folders, names in os.walk(self.root):
            folders[:] = [name for name in folders if not name.startswith(".") and name not in ("build", "__pycache__")]
            found += [(Path(folder) / name).relative_to(self.root).as_posix() for name in names]
        return found

    def text(self, path):
        """The file's text, or None where it is not text."""
        if path not in self._texts:
            data = (self.root / path).read_bytes()
            try:
                self._texts[path] = None if b"\0" in data[:4096] else data.decode()
            except UnicodeDecodeError:
                self._texts[path] = None
        return self._texts[path]

    def lines(self, path):
        return list(enumerate((self.text(path) or "").splitlines(), 1))

    def code(self, path):
        """Lines with the text of comments and strings blanked."""
        if path not in self._code:
            self._code[path] = cpp_source.blank(self.text(path) or "").split("\n")
        return list(enumerate(self._code[path], 1))

    def cpp(self, *folders):
        return [path for path in self.paths if path.endswith(CPP) and (not folders or path.split("/")[0] in folders)]

    def includes(self, path):
        """(line, included path, True for "quotes")."""
        for number, line in self.lines(path):
            match = re.match(r'\s*#\s*include\s*([<"])([^>"]+)[>"]', line)
            if match:
                yield number, match[2], match[1] == '"'


def include_directions(tree):
    """services -> { actors -> { model -> kernels, planner, transport, proto }, bench -> model } -> base"""
    for path in tree.cpp(*PRODUCT):
        folder = path.split("/")[0]
        for line, included, _ in tree.includes(path):
            target = included.split("/")[0]
            if target in (*PRODUCT, "tests") and target not in MAY_INCLUDE[folder]:
                allowed = ", ".join(sorted(MAY_INCLUDE[folder]))
                yield Finding(path, line, f"{folder}/ may not include {included}, only {allowed}: "
                                          "move the code, or pass it in as an interface")


def include_cycles(tree):
    """Below one top folder, no folder leads back to itself."""
    graph = IncludeGraph(tree, PRODUCT)
    cycles = graph.cycles()
    for cycle in cycles:
        if tuple(sorted(cycle)) not in CYCLES:
            path, line, included = graph.between(cycle)[-1]
            yield Finding(path, line, f"{', '.join(sorted(cycle))} include each other, here {included}: move what both need "
                                      "below both, or give a reason in CYCLES")
    for cycle in CYCLES:
        if set(cycle) <= set(graph.folders) and frozenset(cycle) not in cycles:
            yield Finding(cycle[0], 1, f"{', '.join(cycle)} are no cycle any more: delete it from CYCLES")


def folders_apart(tree):
    """Some folders beside each other do not know each other."""
    graph = IncludeGraph(tree, PRODUCT)
    for pair in APART:
        for path, line, included in graph.between(pair):
            yield Finding(path, line, f"{pair[0]} and {pair[1]} know nothing of each other, and here is {included}: "
                                      f"what both need belongs in {top_of(path)}/")


def unrelated_files(tree):
    """The files of a subfolder use each other: what does not is in the wrong place, or the folder is a warehouse."""
    graph = IncludeGraph(tree, PRODUCT)
    lonely = set()
    for folder in graph.folders:
        for group in graph.groups(folder)[1:] if "/" in folder else []:
            lonely |= group
            if not any(path in ALONE for path in group):
                largest = sorted(graph.groups(folder)[0])[0]
                yield Finding(sorted(group)[0], 1, f"{', '.join(sorted(group))} and the rest of {folder}/ ({largest}, ..) do "
                                                   "not use each other: move them to where they are used")
    for path in ALONE:
        if folder_of(path) in graph.folders and path not in lonely:
            yield Finding(path, 1, "it is not alone any more, or gone: delete it from ALONE in tests/tidy/tidy.py")


def library_homes(tree):
    """A third-party library is included only where it is wrapped."""
    for path in tree.cpp(*PRODUCT):
        for line, included, _ in tree.includes(path):
            for what, pattern, homes in LIBRARIES:
                if re.match(pattern, included) or (pattern.startswith("google") and included.endswith(".pb.h")):
                    if not re.match(homes, path):
                        yield Finding(path, line, f"{what} ({included}) belongs in {homes}: use the interface there")


def banned_calls(tree):
    for path in tree.cpp():
        folder, allowed = path.split("/")[0], ALLOWED.get(path, {})
        for line, code in tree.code(path):
            for pattern, instead, folders in BANNED:
                match = None if folders and folder not in folders else re.search(pattern, code)
                if match and not any(match[0].startswith(text) for text in allowed):
                    yield Finding(path, line, f"`{match[0].strip()}` is banned here: {instead}")


def unused_exceptions(tree):
    for path, texts in ALLOWED.items():
        for text in texts:
            if path not in tree.paths:
                continue
            banned = [re.search(pattern, code) for _, code in tree.code(path) for pattern, _, folders in BANNED
                      if not folders or path.split("/")[0] in folders]
            if not any(match and match[0].startswith(text) for match in banned):
                yield Finding(path, 1, f"`{text}` does not occur any more: delete its exception in tests/tidy/tidy.py")


def line_lengths(tree):
    for path in tree.paths:
        if path.endswith(CPP + (".py", ".sh", ".cmake", "CMakeLists.txt", ".proto")):
            for line, text in tree.lines(path):
                if len(text) > LINE_COLUMNS_MAX:
                    yield Finding(path, line, f"{len(text)} columns, {LINE_COLUMNS_MAX} at most: break the line")


def file_lengths(tree):
    for path in tree.paths:
        if path.endswith(CPP + (".py", ".sh")):
            count = len(tree.lines(path))
            if count > FILE_LINES_MAX:
                yield Finding(path, count, f"{count} lines, {FILE_LINES_MAX} at most: split it, one concept a file")


def dead_sources(tree):
    """Every .cc is compiled: its own folder's CMakeLists.txt globs, or that one or one above names the file or folder."""
    for path in tree.cpp():
        if not path.endswith((".cc", ".cu")):
            continue
        folder, name = os.path.split(path)
        own = _cmake_lists(tree, folder)
        named = re.compile(rf"\b{re.escape(name)}\b|\b{re.escape(os.path.splitext(name)[0])}\b"
                           rf"|(GLOB|FOLDERS)[^)]*\b{re.escape(os.path.basename(folder) or '.')}\b|\brunahead_tests\s*\(")
        above = [own] + [_cmake_lists(tree, parent.as_posix()) for parent in PurePosixPath(folder).parents]
        globs = re.search(r"\brunahead_(library|tests)\s*\(|GLOB", own)
        if not globs and not any(named.search(text) for text in above):
            yield Finding(path, 1, "no CMakeLists.txt compiles this file: add it to its folder's, or delete it")


def _cmake_lists(tree, folder):
    path = f"{folder}/CMakeLists.txt" if folder not in ("", ".") else "CMakeLists.txt"
    return tree.text(path) if path in tree.paths else ""


def dead_headers(tree):
    """Every header is included by some file, one of the product by a file of the product that is not its own source."""
    users = {}
    for path in tree.cpp():
        for _, name, quoted in tree.includes(path):
            for included in {name, os.path.normpath(os.path.join(os.path.dirname(path), name))} if quoted else {name}:
                users.setdefault(included, []).append(path)
    for path in tree.cpp():
        if not path.endswith((".h", ".cuh")):
            continue
        product = path.split("/")[0] in PRODUCT
        used = [user for user in users.get(path, []) if not product or (user.split("/")[0] in PRODUCT and
                os.path.splitext(user)[0] != os.path.splitext(path)[0])]
        if not used:
            yield Finding(path, 1, ("only tests include" if users.get(path) else "no file includes") +
                          " this header: include it where it is needed, or delete it")


def pragma_once(tree):
    for path in tree.cpp():
        if path.endswith((".h", ".cuh")) and "#pragma once" not in (tree.text(path) or ""):
            yield Finding(path, 1, "a header needs #pragma once")


def notes_to_self(tree):
    for path in tree.paths:
        for line, text in tree.lines(path):
            match = NOTES.search(text)
            if match:
                yield Finding(path, line, f"{match[0]}: do it now, or file an issue and delete the note")


def machine_traces(tree):
    for path in tree.paths:
        for line, text in tree.lines(path):
            match = MACHINE_PATHS.search(text)
            if match:
                yield Finding(path, line, f"`{match[0]}` is a path of one machine: make it relative, or an option")
            match = REGISTRY_HOSTS.search(text)
            if match:
                yield Finding(path, line, f"`{match[0]}` is a registry's host: name the package only, "
                                          "the machine's settings say where it comes from")


def crlf_and_tail(tree):
    for path in tree.paths:
        text = tree.text(path)
        if not text or not path.endswith(CPP + (".py", ".sh", ".cmake", "CMakeLists.txt", ".proto", ".md", ".yaml")):
            continue
        if "\r" in text:
            yield Finding(path, text[: text.index("\r")].count("\n") + 1, "a carriage return: lines end with \\n")
        if not text.endswith("\n"):
            yield Finding(path, text.count("\n") + 1, "the last line does not end: add a newline")


def cited_paths(tree):
    """A path of ours that is cited exists, and nothing outside the repository is: its reader cannot open it."""
    known = NO_PATHS | set(tree.paths) | {os.path.splitext(path)[0] for path in tree.paths}
    for path in tree.paths:
        known |= {parent.as_posix() for parent in PurePosixPath(path).parents}
    for path in tree.cpp(*PRODUCT, "tests") + [path for path in tree.paths if path.endswith(".md")]:
        for line, text in tree.lines(path):
            outside = OUTSIDE.search(text)
            if outside:
                yield Finding(path, line, f"`{outside[0]}` is no document of this repository: say it in docs/, and cite that")
            for match in CITED.finditer(text):
                cited = match[0].rstrip("./-")
                if not cited.endswith(".pb.h") and cited not in known and "*" not in text[match.end(): match.end() + 1]:
                    yield Finding(path, line, f"`{cited}` does not exist: cite what does")


RULES = [include_directions, include_cycles, folders_apart, unrelated_files,
         library_homes, banned_calls, unused_exceptions, line_lengths, file_lengths,
         dead_sources, dead_headers, pragma_once, notes_to_self, machine_traces, crlf_and_tail, cited_paths]


def clang_format(tree, *arguments):
    """clang-format 19 over every C++ file: other versions of it break lines elsewhere."""
    return subprocess.run(["clang-format-19", *arguments, *tree.cpp()], cwd=tree.root, capture_output=True, text=True,
                          check=False)


def main():
    root = Path(__file__).resolve().parents[2]
    if sys.argv[1:] == ["--fix"]:
        clang_format(Tree(root), "-i")
    tree = Tree(root)
    if sys.argv[1:] == ["--graph"]:
        print("\n".join(IncludeGraph(tree, PRODUCT).table()))
        return 0
    findings = [finding for rule in RULES for finding in rule(tree)]
    for finding in findings:
        print(f"{finding.path}:{finding.line}: {finding.text}")
    print(f"{len(findings)} findings in {len(tree.paths)} files", file=sys.stderr)
    return 1 if findings else 0


if __name__ == "__main__":
    sys.exit(main())
