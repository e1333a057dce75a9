"""Writes hf_added_token_rules.json: what `tokenizers` makes of added tokens with `lstrip`, `rstrip`, `single_word` and
`normalized` in random texts, on the tokenizers of hf_tokenizers.json.

    python -m venv venv && venv/bin/pip install tokenizers==0.23.3 && venv/bin/python make_hf_added_token_rules.py

A folder, a seed and a number of cases make another file for a longer comparison by hand:
`make_hf_added_token_rules.py /tmp/more 7 100` and RUNAHEAD_TOKEN_RULES=/tmp/more/hf_added_token_rules.json for model_tests.
"""
import json
import random
import sys
from pathlib import Path

import tokenizers
from tokenizers import Tokenizer

HERE = Path(__file__).parent
BASES = json.loads((HERE / "hf_tokenizers.json").read_text())
NAMES = ["gpt2", "llama3", "qwen2", "gemma", "llama2", "metaspace-first", "metaspace-always", "metaspace-never", "unigram-t5",
         "unigram-words", "unigram-nfkc", "unigram-llama", "unigram-first", "unigram-spm"]
CONTENTS = ["<m>", "<mm>", "tok", "ab", "bc", "abcd", "two words", "\u00e9t", "e\u0301x", " lead", "\u2581w", "\uff21\uff21q",
            "Word_", "9nine", "\n\n", "x ", "<|\u5f00|>", "\u212bk"]
AROUND = [" ", " ", "  ", "\n", "\t", "\r\n", "\u00a0", "\u3000", "\u2003", "\u0085", "\u2028", "a", "Z", "7", "_", "\u00e9",
          "e\u0301", "\u0301", "\u4f60", "\u0663", "\u2167", "\u203f", "\u200d", "\u200b", "\u24b6", "\U0001F170",
          "\U0001F600", "\u00b2", "\u2581", "-", ".", "<", ">", "the", "dogs ", "It's", "<|extra|>", "<|end|>", "<s>"]


# What chance seldom makes: tokens within one that is refused, neighbours that want the same spaces, every kind of neighbour.
ALONE = {"single_word": True}
GREEDY = {"lstrip": True, "rstrip": True}
FIXED = [
    ({"ab": ALONE, "bc": {}, "<m>": {}},
     ["xabc", "abc", "ab c", "ab", "_ab", "ab9", "\u00e9ab", "ab\u0301", "ab<m>ab", "<m>abc bc", "ab\u200d", "ab\u200b", "-ab-",
      "abab", "ab\U0001F170", "\u203fab"]),
    ({"<m>": GREEDY, "<mm>": GREEDY, "tok": {}},
     ["a  <m>  <mm> \n b", "<m><mm>", " <m> ", "a <m>\u3000tok <mm>", "tok <m> tok", "\u00a0\n<mm>\t\t<mm>x", "<m>  "]),
    ({"<m>": GREEDY | ALONE, "tok": ALONE | {"normalized": True}},
     ["a <m> b", "a<m> b", "tok <m> tok", "tok<m>tok", "a tok", "atok tok9"])]


def fixed(name, base):
    vocab = base["tokenizer"]["model"]["vocab"]  # whose texts keep their ids
    for flags, words in FIXED:
        new = [text for text in flags if text not in vocab]
        yield name, [{"id": vocab[text] if text in vocab else base["size"] + new.index(text), "content": text,
                      "special": text[0] == "<",
                      **{flag: own.get(flag, False) for flag in ("lstrip", "rstrip", "single_word", "normalized")}}
                     for text, own in flags.items()], words


def added(rng, base, normalizer):
    """None on which the library ends: what the normaliser leaves nothing of, and spaces that take others."""
    vocab = base["tokenizer"]["model"]["vocab"]
    have = set(vocab) if isinstance(vocab, dict) else {piece for piece, _ in vocab}
    free = [text for text in CONTENTS if text not in have]
    out = []
    for i, text in enumerate(rng.sample(free, 6)):
        token = {"id": base["size"] + i, "content": text, "special": rng.random() < 0.5}
        for flag in ("lstrip", "rstrip", "single_word", "normalized"):
            token[flag] = rng.random() < 0.4
        if text != text.strip():
            token.update(lstrip=False, rstrip=False)
        if normalizer and not normalizer.normalize_str(text):
            token["normalized"] = False
        out.append(token)
    return out


def texts(rng, tokens, count):
    for _ in range(count):
        parts = [rng.choice(tokens)["content"] if rng.random() < 0.4 else rng.choice(AROUND)
                 for _ in range(rng.randrange(1, 12))]
        yield "".join(parts)


def main():
    folder, seed, cases = (Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3])) if len(sys.argv) > 1 else (HERE, 1, 2)
    rng, lines = random.Random(seed), []
    chosen = [one for name in ("gpt2", "llama2") for one in fixed(name, BASES[name])]
    for name in NAMES:
        for _ in range(cases):
            tokens = added(rng, BASES[name], Tokenizer.from_str(json.dumps(BASES[name]["tokenizer"])).normalizer)
            chosen.append((name, tokens, list(texts(rng, tokens, 20))))
    for name, tokens, words in chosen:
        file = json.loads(json.dumps(BASES[name]["tokenizer"]))
        file["added_tokens"] += tokens
        t = Tokenizer.from_str(json.dumps(file))
        found = [[text, t.encode(text, add_special_tokens=False).ids] for text in words]
        lines.append(json.dumps({"tokenizer": name, "added": tokens, "texts": found}, separators=(",", ":")))
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "hf_added_token_rules.json").write_text(
        '{"tokenizers": "' + tokenizers.__version__ + '", "cases": [\n' + ",\n".join(lines) + "\n]}\n")


if __name__ == "__main__":
    main()
