"""Byte-level BPE, written for clarity and apart from the service: quadratic merging, and the published expressions run
by the PyPI package `regex`. Used by make_tokens.py and make_golden.py."""
import regex

GPT2 = r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+"
LLAMA3 = (r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*"
          r"|\s*[\r\n]+|\s+(?!\S)|\s+")
QWEN2 = LLAMA3.replace("{1,3}", "")
PRE_TOKENIZERS = {
    "smollm": [r"\p{N}", GPT2],
    "gpt-2": [GPT2],
    "llama-bpe": [LLAMA3],
    "qwen2": [QWEN2],
    "default": [r"[\p{P}\$\+<=>\^~\|]+", GPT2, r"\p{N}+", r"[0-9][0-9][0-9]"],
}


def byte_stand_ins():
    """GPT-2's printable character for each byte."""
    printable = [*range(ord("!"), ord("~") + 1), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    table, extra = {}, 0
    for byte in range(256):
        if byte in printable:
            table[byte] = chr(byte)
        else:
            table[byte] = chr(256 + extra)
            extra += 1
    return table


STAND_INS = byte_stand_ins()


def split(name, text):
    """The pieces of a text: each expression cuts the last one's pieces into matches and gaps."""
    pieces = [text]
    for expression in PRE_TOKENIZERS[name]:
        cut = []
        for piece in pieces:
            at = 0
            for match in regex.finditer(expression, piece):
                cut += [piece[at:match.start()], match.group()]
                at = match.end()
            cut.append(piece[at:])
        pieces = [piece for piece in cut if piece]
    return pieces


class Oracle:
    def __init__(self, reader):
        field = lambda key: reader.fields["tokenizer.ggml." + key].contents()
        self.tokens, types = field("tokens"), field("token_type")
        self.pre = field("pre")
        self.ids = {t: i for i, t in enumerate(self.tokens) if types[i] not in (2, 3)}
        self.ranks = {tuple(m.split(" ")): i for i, m in enumerate(field("merges"))}
        self.controls = {t: i for i, t in enumerate(self.tokens) if types[i] == 3}
        names = sorted(self.controls, key=len, reverse=True)
        self.control_expression = regex.compile("|".join(regex.escape(n) for n in names))

    def bpe(self, piece):
        parts = [STAND_INS[b] for b in piece.encode()]
        while len(parts) > 1:
            ranks = [self.ranks.get(pair, 1 << 60) for pair in zip(parts, parts[1:])]
            best = min(ranks)
            if best == 1 << 60:
                break
            i = ranks.index(best)
            parts[i:i + 2] = [parts[i] + parts[i + 1]]
        return [self.ids[p] for p in parts]

    def plain(self, text):
        return [i for piece in split(self.pre, text) for i in self.bpe(piece)]

    def encode(self, text, parse_special):
        if not parse_special:
            return self.plain(text)
        ids, at = [], 0
        for match in self.control_expression.finditer(text):
            ids += self.plain(text[at:match.start()]) + [self.controls[match.group()]]
            at = match.end()
        return ids + self.plain(text[at:])
