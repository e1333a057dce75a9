#!/usr/bin/env python3
"""Writes tokens.json: tricky texts, how every pre-tokenizer cuts them, and their ids in SmolLM2's vocabulary.

Run: python3 tests/golden/make_tokens.py MODEL.gguf   (needs: pip install gguf==0.19.0 regex)
"""
import json
import random
import sys
from pathlib import Path

from gguf import GGUFReader

from tokenizer_oracle import PRE_TOKENIZERS, Oracle, split

TEXTS = [
    "", " ", "  ", "\n", "\t", "\r\n", "a", " a", "a ", "Hello, world!", "Hello  world", "  leading and trailing  ",
    "don't can't I'll we've they'd it's I'm you're", "DON'T CAN'T I'LL WE'VE THEY'D IT'S I'M YOU'RE",
    "o'clock 'tis 'quoted'", "the '\u017fs and 'S and '\u212a", "x'\u017f x'\u017fs",
    "1 22 333 4444 55555 1234567890", "3.14159 1,000,000 -17 +5 1e-9 0xFF", "v1.2.3-rc4",
    "\u00bd \u00b2 \u2167 \u0663\u0664\u0665 \u096a\u096b \u5341\u4e8c",
    "if (a<=b && c!=d) { return x->y[i++]; } // done",
    "def f(x):\n    return {k: v for k, v in x.items()}\n\n\nclass A:\n\tpass\n",
    "SELECT * FROM t WHERE a = 'b''c';\r\n\r\n--x\r\n", "<html><body class=\"a b\">&nbsp;&#39;</body></html>",
    "https://example.org/a/b?c=d&e=%20f#g user@example.org", "C:\\path\\to\\file.txt ~/x $HOME ${A}",
    "\u6211\u4eec\u5728\u8fd9\u91cc\u3002\u4f60\u597d\uff0c\u4e16\u754c\uff01",
    "\u65e5\u672c\u8a9e\u306e\u30c6\u30ad\u30b9\u30c8\u3001\u30ab\u30bf\u30ab\u30ca",
    "\uc548\ub155\ud558\uc138\uc694 \uc138\uacc4", "\u041f\u0440\u0438\u0432\u0435\u0442, \u043c\u0438\u0440!",
    "\u0645\u0631\u062d\u0628\u0627 \u0628\u0627\u0644\u0639\u0627\u0644\u0645",
    "\u05e9\u05dc\u05d5\u05dd \u05e2\u05d5\u05dc\u05dd",
    "\u0e2a\u0e27\u0e31\u0e2a\u0e14\u0e35\u0e0a\u0e32\u0e27\u0e42\u0e25\u0e01",
    "\u0928\u092e\u0938\u094d\u0924\u0947 \u0926\u0941\u0928\u093f\u092f\u093e",
    "caf\u00e9 cafe\u0301 na\u00efve Stra\u00dfe \u0130stanbul \u01c5",
    "a\u0300\u0301\u0302 \u0301lone e\u0301\u0301\u0301",
    "\U0001f600\U0001f601 \U0001f468\u200d\U0001f469\u200d\U0001f467\u200d\U0001f466 "
    "\U0001f1e9\U0001f1ea \U0001f44d\U0001f3fd",
    "\u2603\ufe0f \u00a9\u00ae\u2122 \u2192\u21d2\u2211\u221e \u20ac\u00a3\u00a5", "\ufeffBOM first",
    "a\u00a0b\u2003c\u3000d\u2028e\u2029f\u0085g\u200bh\u180ei", "\u180e x\u180e\u180ey", "\u2003\u2003x",
    "a\u0085\u0085 b", "   \n  \n\n \t x", "x   \n", "x\n   ", "x   ", "   x", "\n\n\nx\n\n\n", "\r\r\n\n\r",
    " \r\n \r\n x", "a\n b\n  c\n   d\n    e", "...!!!???", " ...", "a...b", "!?\n\n", " !\r\n\n x",
    "===> ~~~ ||| ^^^ $$$ +++ <<>>", "\u201cquotes\u201d \u2018single\u2019 \u2014 dash \u2013 \u2026", "12\u00bd34",
    "a1b2c3", "A1 B22 C333", "\u0661\u0662\u06631", "snake_case camelCase PascalCase SCREAMING_CASE kebab-case",
    "antidisestablishmentarianism", "Donaudampfschifffahrtsgesellschaftskapit\u00e4n",
    "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa", "ababababababababababababababab",
    "        deep indent\n\t\t\ttabs\n", "x" + " " * 50 + "y", "\n" * 30, "\u00e9" * 20,
    "\U00010348 \U0001d49c\U0001d4b7 \U0001f9ff", "<|im_start|>user\nHi<|im_end|>\n<|im_start|>assistant\n",
    "<|im_start|><|im_end|><|endoftext|>", "a<|im_end|>b <|im_end|> c", "<|im_start|", "<<|im_end|>>",
    "<|im_<|im_end|>", "<repo_name>x<file_sep>y<reponame>", "not<|a_token|>", "<|endoftext|><|endoftext|>",
    "\u2581under", "\u0120\u010a stand-ins \u00c3\u00a9",
]
POOL = ("abcdefghijklmnopqrstuvwxyz ETAOIN      0123456789 \n\n\t'.,;:!?-_()[]{}<>|@#$%^&*+=/\\\"`~ "
        "\u00e9\u00fc\u00df\u00f1 \u4e2d\u6587\u5b57 \u0416\u0438 \u0301\u00a0\u2003\u0085\u180e"
        "\u3000\U0001f600\u200d\u00bd\u0663\u2014\u201c \r\n's'LL<|im_end|>")


def main():
    rng = random.Random(405)
    texts = TEXTS + ["".join(rng.choice(POOL) for _ in range(rng.randrange(1, 80))) for _ in range(120)]
    oracle = Oracle(GGUFReader(sys.argv[1]))
    cases = [{"text": t, "ids": oracle.encode(t, False), "special_ids": oracle.encode(t, True),
              "pieces": {name: [len(p.encode()) for p in split(name, t)] for name in PRE_TOKENIZERS}} for t in texts]
    with open(Path(__file__).parent / "tokens.json", "w") as out:
        out.write("[\n" + ",\n".join(json.dumps(c, separators=(",", ":")) for c in cases) + "\n]\n")


if __name__ == "__main__":
    main()
