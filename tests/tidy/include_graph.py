"""Who includes whom, by folder: the graph that docs/ARCHITECTURE.md draws in one line, with its numbers.

A folder is one of the tree's (`actors/worker`); what lies in a top folder itself belongs to a folder of that name.
"""
import posixpath
from collections import defaultdict


class IncludeGraph:
    def __init__(self, tree, top_folders):
        self.files = tree.cpp(*top_folders)
        known = set(self.files)
        self.includes = [(path, line, included) for path in self.files
                         for line, included, quoted in tree.includes(path)
                         if quoted and (included in known or included.endswith(".pb.h"))]  # proto/'s are generated
        self.edges = defaultdict(list)  # (folder, folder): includes
        for include in self.includes:
            self.edges[folder_of(include[0]), folder_of(include[2])].append(include)
        self.folders = sorted({folder_of(path) for path in self.files} | {target for _, target in self.edges})

    def table(self):
        """A line a folder: its files, the includes among them, and the folders that it includes, how often."""
        width = max((len(folder) for folder in self.folders), default=0)
        for folder in self.folders:
            count = sum(folder_of(path) == folder for path in self.files)
            own = len(self.edges.get((folder, folder), ()))
            others = [f"{target} {len(found)}" for (source, target), found in sorted(self.edges.items())
                      if source == folder != target]
            yield f"{folder:<{width}}  {count:3} files, {own:2} among them -> {', '.join(others) or 'nothing'}"

    def cycles(self):
        """Sets of folders below one top folder, each of which leads back to itself through others of the set."""
        targets = defaultdict(set)
        for source, target in self.edges:
            if source != target and top_of(source) == top_of(target):
                targets[source].add(target)
        reached = {folder: _reachable(targets, folder) for folder in self.folders}
        found = {frozenset(other for other in reached[folder] if folder in reached[other])
                 for folder in self.folders if folder in reached[folder]}
        return sorted(found, key=sorted)

    def between(self, folders):
        """The includes that lead from one of these folders to another of them."""
        return [include for (source, target), found in sorted(self.edges.items())
                if source != target and source in folders and target in folders for include in found]

    def groups(self, folder):
        """The files of a folder, in groups that do not use each other; the largest first.

        A header and its source are one. A file uses what it includes, and what that includes in turn inside the same
        top folder: weights use GGUF by way of the model's configuration, which lies a folder above.
        """
        targets = defaultdict(set)
        for path, _, included in self.includes:
            if top_of(path) == top_of(included):
                targets[path].add(included)
        members = [path for path in self.files if folder_of(path) == folder]
        group = {path: {path} for path in members}
        for path in members:
            used = _reachable(targets, path) | {other for other in members if _stem(other) == _stem(path)}
            for other in used & set(members):
                if group[path] is not group[other]:
                    merged = group[path] | group[other]
                    for member in merged:
                        group[member] = merged
        return sorted({frozenset(one) for one in group.values()}, key=lambda one: (-len(one), sorted(one)))


def folder_of(path):
    return posixpath.dirname(path)


def top_of(path):
    return path.split("/")[0]


def _stem(path):
    return posixpath.splitext(path)[0]


def _reachable(targets, start):
    reached, left = set(), [start]
    while left:
        for target in targets.get(left.pop(), ()):
            if target not in reached:
                reached.add(target)
                left.append(target)
    return reached
