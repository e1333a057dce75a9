"""Commands in Markdown, as a reader would take them: fenced blocks of bash, and those indented by four columns.

A comment in the line before a block says what is not the default, which is to run it:
    <!-- not run: REASON -->    nobody can run it here; flags are looked up all the same
    <!-- file: NAME -->         the block is a file of the reader's
    <!-- prints -->             what the block before it prints: each of these lines, in order, where ... stands for anything
"""
import re
import shlex
from dataclasses import dataclass

MARK = re.compile(r"<!-- (not run|file|prints)(?:: (.*?))? -->$")
BEFORE_A_COMMAND = ("sudo", "until", "while", "if", "!", "(", "time", "exec")
HEREDOC = re.compile(r"<<-?\s*'?(\w+)'?")


@dataclass
class Block:
    document: str
    line: int
    kind: str  # "shell", "file", "prints"
    text: str
    reason: str = ""  # why it is not run
    name: str = ""  # of a file

    def __str__(self):
        return f"{self.document}:{self.line}"


def blocks_of(document, text):
    lines, found, at, mark = text.splitlines(), [], 0, None
    while at < len(lines):
        line, begin = lines[at], at
        if MARK.match(line):
            mark, at = MARK.match(line), at + 1
            continue
        if line.startswith("```"):
            end = next(i for i in range(at + 1, len(lines)) if lines[i].startswith("```"))
            found += block_of(document, begin + 1, line[3:].strip(), "\n".join(lines[at + 1:end]), mark)
            at = end + 1
        elif line.startswith("    ") and line.strip() and (at == 0 or not lines[at - 1].strip() or mark):
            while at < len(lines) and (lines[at].startswith("    ") or not lines[at].strip()):
                at += 1
            found += block_of(document, begin + 1, "bash", "\n".join(each[4:] for each in lines[begin:at]).rstrip(), mark)
        else:
            at += 1
        mark = mark if not line.strip() else None
    return found


def block_of(document, line, language, text, mark):
    kind, argument = (mark[1], mark[2]) if mark else ("", "")
    if kind == "file":
        return [Block(document, line, "file", text, name=argument)]
    if kind == "prints":
        return [Block(document, line, "prints", text)]
    if language not in ("bash", "sh"):
        assert not kind, f"{document}:{line}: only a block of bash can be marked '{kind}'"
        return []
    assert kind != "not run" or argument, f"{document}:{line}: a block that is not run says why"
    return [Block(document, line, "shell", text, reason=argument if kind == "not run" else "")]


def commands_in(text):
    """The commands of a shell text as lists of words, one for each program in it; here-documents are left out."""
    lines, kept, until = text.replace("\\\n", " ").splitlines(), [], None
    for line in lines:
        if until:
            until = None if line.strip() == until else until
            continue
        here = HEREDOC.search(line)
        until = here[1] if here else None
        kept.append(re.sub(r"(^|\s)#.*", "", line))
    for line in kept:
        for part in re.split(r"&&|\|\||[;|&](?!\d)|\$\(|<\(|\bdo\b|\bthen\b", line):
            try:
                words = shlex.split(part.replace("{", " ").replace("}", " "))
            except ValueError:
                words = part.split()
            while words and (re.match(r"\w+=", words[0]) or words[0] in BEFORE_A_COMMAND):
                words = words[1:]
            if words:
                yield words
