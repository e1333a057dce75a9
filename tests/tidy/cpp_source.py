"""Just enough of C++'s shape for tidy.py: where comments and strings are."""
import re

# One alternative each: line comment, block comment, raw string, string, character (not the ' of 1'000'000).
_TOKEN = re.compile(r"//[^\n]*|/\*.*?\*/"
                    r'|R"(?P<mark>[^\s()\\]{0,16})\(.*?\)(?P=mark)"|"(?:\\.|[^"\\\n])*"'
                    r"|(?<![0-9a-fA-F])'(?:\\.|[^'\\\n])+'", re.DOTALL)


def blank(text):
    """The same text, as many lines, with what is inside comments, strings and characters replaced by spaces."""

    def spaces(match):
        token = match[0]
        if token.startswith("/"):
            return re.sub(r"[^\n]", " ", token)
        opening = 2 if token.startswith("R") else 1
        return token[:opening] + re.sub(r"[^\n]", " ", token[opening:-1]) + token[-1]

    return _TOKEN.sub(spaces, text)
