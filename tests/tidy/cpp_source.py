"""Just enough of C++'s shape for tidy.py: where comments and strings are, and where functions begin and end."""
import re

# One alternative each: line comment, block comment, raw string, string, character (not the ' of 1'000'000).
_TOKEN = re.compile(r"//[^\n]*|/\*.*?\*/"
                    r'|R"(?P<mark>[^\s()\\]{0,16})\(.*?\)(?P=mark)"|"(?:\\.|[^"\\\n])*"'
                    r"|(?<![0-9a-fA-F])'(?:\\.|[^'\\\n])+'", re.DOTALL)
_CONDITIONAL = re.compile(r"\s*#\s*(ifdef|ifndef|if|elif|else|endif)\b")
_TEMPLATE = re.compile(r"\btemplate\s*<")
_TYPE = re.compile(r"^(?:\[\[.*?\]\]\s*|typedef\s+|static\s+|constexpr\s+)*(class|struct|union|enum)\b")
_CONSTRUCTOR_COLON = re.compile(r"\)\s*(?:noexcept\s*(?:\([^()]*\))?\s*)?:(?!:)")


def blank(text):
    """The same text, as many lines, with what is inside comments, strings and characters replaced by spaces."""

    def spaces(match):
        token = match[0]
        if token.startswith("/"):
            return re.sub(r"[^\n]", " ", token)
        opening = 2 if token.startswith("R") else 1
        return token[:opening] + re.sub(r"[^\n]", " ", token[opening:-1]) + token[-1]

    return _TOKEN.sub(spaces, text)


def without_directives(code):
    """Blanks preprocessor lines, and every branch of a conditional but its first: braces then balance."""
    lines, skipping, continued = [], [], False  # skipping: one entry for each open conditional
    for line in code.split("\n"):
        match = None if continued else _CONDITIONAL.match(line)
        if match and match[1] in ("if", "ifdef", "ifndef"):
            skipping.append(False)
        elif match and match[1] in ("elif", "else") and skipping:
            skipping[-1] = True
        elif match and match[1] == "endif" and skipping:
            skipping.pop()
        directive = continued or line.lstrip().startswith("#")
        continued = directive and line.rstrip().endswith("\\")
        lines.append("" if directive or any(skipping) else line)
    return "\n".join(lines)


def _without_template(head):
    """`head` less its `template <...>` prefixes."""
    while match := _TEMPLATE.match(head):
        depth, at = 1, match.end()
        while at < len(head) and depth:
            depth += {"<": 1, ">": -1}.get(head[at], 0)
            at += 1
        head = head[at:].lstrip()
    return head


def _kind(head):
    """What a brace after `head` opens: a scope that holds functions, a function, a member's initializer, or other."""
    head = _without_template(re.sub(r"\b(public|private|protected)\s*:", " ", head).strip())
    if re.match(r"(inline\s+)?namespace\b|extern\b[^()]*$", head) or head.startswith("export"):
        return "scope"
    if _TYPE.match(head) and not head.endswith(")"):
        return "scope"
    if "(" not in head:
        return "other"
    colon = _CONSTRUCTOR_COLON.search(head)
    if colon and re.search(r"[\w>]$", head):
        return "initializer"  # Type(int x) : member_{x} ...
    return "function"


def functions(text):
    """(first line, last line) of every function that is defined at the scope of a namespace or a type."""
    code = without_directives(blank(text))
    stack, head, line, found = [], [], 1, []
    head_line = None  # the line on which the current declaration begins
    for char in code:
        inside = any(kind in ("function", "other", "initializer") for kind, _ in stack)
        if char == "{":
            kind = "other" if inside else _kind("".join(head))
            stack.append((kind, head_line or line))
            if kind != "initializer" and not inside:
                head, head_line = [], None
        elif char == "}" and stack:
            kind, first = stack.pop()
            if kind == "function":
                found.append((first, line))
            if not any(kind in ("function", "other", "initializer") for kind, _ in stack):
                if kind != "initializer":
                    head, head_line = [], None
                else:
                    head.append("}")
        elif not inside:
            if char == ";":
                head, head_line = [], None
            else:
                head.append(char)
                if head_line is None and not char.isspace():
                    head_line = line
        if char == "\n":
            line += 1
    return found
