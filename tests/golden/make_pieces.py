"""How the models' own expressions cut texts: pieces.json, by Hugging Face's library (its expressions run in Oniguruma).

    make_pieces.py > pieces.json

Needs PyPI `tokenizers` 0.23.3. The expressions are those of the models' tokenizer.json where llama.cpp's are only near to them
(tekken, gpt-4o: to llama.cpp there are no capitals but ASCII's and no marks), or else llama.cpp's.
"""
import json
import random
import sys

from tokenizers import Regex
from tokenizers.pre_tokenizers import Split

from make_tokens import POOL, TEXTS

CONTRACTION = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)"
REST = r" ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
SLASHED = r" ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+"
UPPER, LOWER = r"[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]", r"[\p{Ll}\p{Lm}\p{Lo}\p{M}]"
GPT2 = r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+"
QWEN2 = CONTRACTION + r"|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}|" + REST


def capitals(contraction, digits):
    return (rf"[^\r\n\p{{L}}\p{{N}}]?{UPPER}*{LOWER}+{contraction}|[^\r\n\p{{L}}\p{{N}}]?{UPPER}+{LOWER}*{contraction}"
            rf"|{digits}|{SLASHED}")


IDEOGRAPHS = "[\u4e00-\u9fa5\u3040-\u309f\u30a0-\u30ff]+"
SCRIPTS = "[\u4e00-\u9fa5\u0800-\u4e00\uac00-\ud7ff]+"
DEEPSEEK3 = (r"[!\"#$%&'()*+,\-./:;<=>?@\[\\\]^_`{|}~][A-Za-z]+|[^\r\n\p{L}\p{P}\p{S}]?[\p{L}\p{M}]+| ?[\p{P}\p{S}]+[\r\n]*"
             r"|\s*[\r\n]+|\s+(?!\S)|\s+")
BLOOM = " ?[^(\\s|.,!?\u2026\u3002\uff0c\u3001\u0964\u06d4\u060c)]+"
EXPRESSIONS = {
    "qwen35": [CONTRACTION + r"|[^\r\n\p{L}\p{N}]?[\p{L}\p{M}]+|\p{N}| ?[^\s\p{L}\p{M}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"],
    "tekken": [capitals("", r"\p{N}")],
    "gpt-4o": [capitals(CONTRACTION + "?", r"\p{N}{1,3}")],
    "deepseek-coder": [r"[\r\n]", r"\s?\p{L}+", r"\s?\p{P}+", SCRIPTS, r"\p{N}"],
    "deepseek-v3": [r"\p{N}{1,3}", IDEOGRAPHS, DEEPSEEK3],
    "falcon": [r"[\p{P}\$\+<=>\^~\|`]+", GPT2, r"[0-9][0-9][0-9]"],
    "bloom": [BLOOM],
    "viking": [BLOOM, r"\p{N}"],
    "jais-2": [CONTRACTION + r"|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+"
               + "".join(rf"|\s{{{n}}}(?!\S)" for n in ("512", "256", "128", "64", "32", "16", "8", "4", "1,2")) + r"|\s{1}"],
    "seed-coder": [CONTRACTION + r"|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1}| ?[^\s\p{L}\p{N}\r\n]+|\s*[\r\n]+|\s+(?!\S)|\s+"],
    "bailingmoe": [r"'(?i:[sdmt]|ll|ve|re)|[^\r\n\p{L}\p{N}]?+\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]++[\r\n]*|\s*[\r\n]|\s+(?!\S)|\s+"],
    "minicpm5": [r"\p{N}{1,3}", CONTRACTION + r"|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}+|" + REST],
    "exaone-moe": [CONTRACTION + r"|[^\r\n\p{L}\p{N}]?(?:\p{L}\p{M}*(?: \p{L}\p{M}*)*)+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n/]?"
                   r"|\s*[\r\n]|\s+(?!\S)|\s+"],
    "laguna": [r"[^\n]+|[\n]+", QWEN2],
    "superbpe": [r"\p{N}+", r"(?=([0-9]{3})+(?![0-9]))"],
}
MORE = ["Hello WorldHELLOworld \u041f\u0440\u0438\u0432\u0435\u0442\u041c\u0418\u0420 \u0627\u0644\u0639\u0627\u0644\u0645",
        "it's IT'S x'Sy", "1 12 123 1234 12345 123456 1234567 12\u00b2345678", "/usr/bin/\n// x /\r\n",
        "a b c dd e", "x" * 3 + " " * 700 + "y",
        "\u3131\u314f\uff01\u3002\u3105 \uff21\uff42\uff13"]


def pieces(expressions, text):
    parts = [text]
    for expression in expressions:
        split = Split(Regex(expression), "isolated")
        parts = [piece for part in parts for piece, _ in split.pre_tokenize_str(part) if piece]
    return [len(part.encode()) for part in parts]


def main():
    rng = random.Random(1713)
    texts = TEXTS[1:64:2] + MORE + ["".join(rng.choice(POOL) for _ in range(rng.randrange(20, 60))) for _ in range(12)]
    print('{"texts":' + json.dumps(texts, separators=(",", ":")) + ',"pieces":{')
    rows = [json.dumps(name) + ":" + json.dumps([pieces(expressions, text) for text in texts], separators=(",", ":"))
            for name, expressions in EXPRESSIONS.items()]
    print(",\n".join(rows) + "}}")


if __name__ == "__main__":
    main()
