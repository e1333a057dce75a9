"""What llama.cpp makes of texts with vocabularies of SentencePiece in a GGUF file: sentence_pieces.json, its answers.

    make_sentence_pieces.py LIBRARY > sentence_pieces.json

LIBRARY: see make_llama_vocab.py. Needs PyPI `gguf` 0.19.0 and `sentencepiece` 0.2.3, whose own ids of its own models must be the
library's. The vocabularies are random (seeded), but for two that SentencePiece learns from long_text.txt.
"""
import ctypes
import io
import json
import os
import random
import sys
import tempfile
from pathlib import Path

import gguf
import sentencepiece

from make_llama_vocab import Llama

NORMAL, UNKNOWN, CONTROL, USER_DEFINED, UNUSED, BYTE = 1, 2, 3, 4, 5, 6
SPACE = "\u2581"
BYTES = [(f"<0x{byte:02X}>", 0.0, BYTE) for byte in range(256)]
SPECIAL = [("<unk>", 0.0, UNKNOWN), ("<s>", 0.0, CONTROL), ("</s>", 0.0, CONTROL)]
# Bytes that are no UTF-8. None where the library takes a character's rest from the space behind: that space is lost.
BROKEN = [b"\xff", b"a\xe2\x96", b"\x81\x96b", b"a\xc3", b"\xed\xa0\x80\xc0\x80"]
TEXTS = ["", " ", "  ", "a", " a", "a ", "\n", "\t\n a", "a\n\nb", SPACE, "a" + SPACE + "b", "0<0x41>", "<s>",
         "a<s>b </s> a<unk>", "<s> <s>a  </s>\n b", "\u00e9\u00fc\u4e2d\U0001f600", " " * 17 + "a",
         "x" + " " * 9 + "y  z", "ab " * 9, "a\0b"]


def words(rng, alphabet, count, longest, inner_space):
    """Random tokens that grow out of each other, so that merges reach most of them."""
    pieces = list(alphabet)
    while len(pieces) < len(alphabet) + count:
        new = rng.choice(pieces) + rng.choice(pieces)
        plain = new.lstrip(SPACE)
        if len(new) <= longest and new not in pieces and (inner_space or SPACE not in plain):
            pieces.append(new)
    return pieces


def scored(rng, pieces, levels):
    return [(piece, -float(rng.randrange(levels)), NORMAL) for piece in pieces]


def texts_of(rng, pieces, specials, count):
    made = []
    for _ in range(count):
        parts = [rng.choice([*pieces, " ", " "]).replace(SPACE, " ") for _ in range(rng.randrange(1, 9))]
        if specials:
            parts.insert(rng.randrange(len(parts) + 1), rng.choice(specials))
        made.append("".join(parts))
    return made


def write(path, model, tokens, keys, charsmap=b"", with_scores=True):
    writer = gguf.GGUFWriter(path, "llama")
    writer.add_string("tokenizer.ggml.model", model)
    writer.add_token_list([text for text, _, _ in tokens])
    if with_scores:
        writer.add_token_scores([score for _, score, _ in tokens])
    writer.add_token_types([kind for _, _, kind in tokens])
    if charsmap:
        writer.add_precompiled_charsmap(charsmap)
    for key, value in keys.items():
        add = {bool: writer.add_bool, int: writer.add_uint32, str: writer.add_string}[type(value)]
        add(key, value)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.close()


def detokenized(llama, vocab, ids):
    raw, out = (ctypes.c_int32 * len(ids))(*ids), (ctypes.c_char * 65536)()
    size = llama.lib.llama_detokenize(vocab, raw, len(ids), out, len(out), False, True)
    return out.raw[:size]


def shown(raw):
    try:
        return raw.decode()
    except UnicodeDecodeError:
        return {"hex": raw.hex()}


class Maker:
    def __init__(self, llama, path):
        self.llama, self.path, self.cases = llama, path, []

    def add(self, name, model, tokens, keys, texts, charsmap=b"", with_scores=True):
        assert len({text for text, _, _ in tokens}) == len(tokens), name
        write(self.path, model, tokens, keys, charsmap, with_scores)
        vocab = self.llama.vocab(self.path)
        rows = []
        for text in texts:
            raw = text.encode() if isinstance(text, str) else text
            ids = [self.encode(vocab, raw, special) for special in (False, True)]
            whole = self.encode(vocab, raw, True, add_special=True)
            back = detokenized(self.llama, vocab, ids[0])  # null in a row: the same again
            rows.append([shown(raw), ids[0], ids[1] if ids[1] != ids[0] else None, len(whole) - len(ids[1]),
                         shown(back) if back != raw else None])
        plain = [token for token in tokens if token[2] != BYTE]  # the bytes' tokens are in one place
        at = next((i for i, token in enumerate(tokens) if token[2] == BYTE), 0)
        self.cases.append({
            "name": name, "model": model, "keys": keys, "bytes_at": at, "bytes": len(tokens) - len(plain),
            "charsmap": charsmap.hex(),
            "tokens": [text for text, _, _ in plain], "scores": [score for _, score, _ in plain] if with_scores else None,
            "types": [kind for _, _, kind in plain], "rows": rows})

    def encode(self, vocab, raw, parse_special, add_special=False):
        out = (ctypes.c_int32 * 4096)()
        return list(out[:self.llama.lib.llama_tokenize(vocab, raw, len(raw), out, len(out), add_special, parse_special)])


PREFIX = "tokenizer.ggml.add_space_prefix"
ALPHABET = [SPACE, *"abcdexyz\n", "\u00e9", "\u4e2d"]


def llama_kinds(maker):
    rng = random.Random(1711)
    pieces = words(rng, ALPHABET, 90, 7, False)
    base = SPECIAL + BYTES
    more = texts_of(rng, pieces, [], 24)
    maker.add("usual", "llama", base + scored(rng, pieces, 1000), {}, TEXTS + more + BROKEN)
    maker.add("ties", "llama", base + scored(rng, pieces, 3), {PREFIX: False}, TEXTS + more + BROKEN)
    maker.add("no scores", "llama", base + scored(rng, pieces, 3), {}, more[:12], with_scores=False)
    maker.add("no bytes", "llama", SPECIAL + scored(rng, pieces, 50), {}, more[:16] + ["", "  a"])
    joined = words(rng, ALPHABET, 120, 9, True)
    maker.add("words joined", "llama", base + scored(rng, joined, 40), {PREFIX: True},
              TEXTS + texts_of(rng, joined, ["   "], 24) + BROKEN)
    own = [("<usr>", 0.0, USER_DEFINED), ("<usr>x", 0.0, USER_DEFINED), ("  ", 0.0, USER_DEFINED), ("    ", 0.0, USER_DEFINED),
           ("\n\n", 0.0, USER_DEFINED), ("<|im_end|>", 0.0, CONTROL), ("q", -1.0, UNUSED)]
    marks = [text for text, _, _ in own] + ["<s>", "</s>"]
    many = TEXTS + texts_of(rng, pieces, marks, 30)
    maker.add("own tokens", "llama", base + own + scored(rng, pieces, 90), {}, many)
    swapped = [SPECIAL[0], SPECIAL[2], SPECIAL[1]]
    maker.add("gemma", "llama", swapped + own + BYTES + scored(rng, pieces, 90),
              {PREFIX: False, "tokenizer.ggml.bos_token_id": 2, "tokenizer.ggml.eos_token_id": 1}, many)
    phi = [("<|user|>", 0.0, CONTROL), ("<|endoftext|>", 0.0, CONTROL), ("<usr>", 0.0, USER_DEFINED)]
    maker.add("phi 3", "llama", base + phi + scored(rng, pieces, 90), {"general.name": "My Phi-3 mini"},
              texts_of(rng, pieces, ["<|user|>\n ", "<s> ", "</s>\t", "<|endoftext|> \n", "<usr>  "], 30))


def t5_kinds(maker):
    rng = random.Random(1712)
    pieces = words(rng, ALPHABET, 90, 7, False)
    special = [("<pad>", 0.0, CONTROL), ("</s>", 0.0, CONTROL), ("<unk>", 0.0, UNKNOWN)]
    tokens = special + [(p, -rng.random() * 12, NORMAL) for p in pieces]
    tokens += [("<extra_0>", 0.0, USER_DEFINED), ("q", -3.0, UNUSED)] + BYTES[:20]
    texts = TEXTS + texts_of(rng, pieces, ["<extra_0>", "q", "</s>", "\u0416\u0416"], 30) + BROKEN
    extra = "tokenizer.ggml.remove_extra_whitespaces"
    for space in (False, True):
        for merge in (False, True):
            maker.add(f"unigram {space} {merge}", "t5", tokens, {PREFIX: space, extra: merge}, texts)


def learned(folder, kind, **options):
    model = io.BytesIO()
    lines = (Path(__file__).parent / "long_text.txt").read_text().splitlines()
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(lines), model_writer=model, model_type=kind, minloglevel=2, num_threads=1, **options)
    return sentencepiece.SentencePieceProcessor(model_proto=model.getvalue()), model.getvalue()


def tokens_of(model):
    kinds = [(model.is_unknown, UNKNOWN), (model.is_control, CONTROL), (model.is_unused, UNUSED), (model.is_byte, BYTE)]
    return [(model.id_to_piece(i), model.get_score(i), next((kind for is_kind, kind in kinds if is_kind(i)), NORMAL))
            for i in range(model.get_piece_size())]


def field_of(message, number):
    """The bytes of a length-delimited field of a protobuf message."""
    at = 0

    def varint():
        nonlocal at
        value = shift = 0
        while True:
            at += 1
            value |= (message[at - 1] & 127) << shift
            shift += 7
            if message[at - 1] < 128:
                return value

    while at < len(message):
        key = varint()
        size = {0: lambda: varint() * 0, 1: lambda: 8, 2: varint, 5: lambda: 4}[key & 7]()
        if key >> 3 == number and key & 7 == 2:
            return message[at:at + size]
        at += size
    return b""


def learned_kinds(maker, folder):
    lines = [line for line in (Path(__file__).parent / "long_text.txt").read_text().splitlines() if line.strip()]
    texts = [line[:240] for line in lines[:5]]
    texts += ["Unseen words: \u00e4\u4e2d\u6587 \U0001f600, 1234!", "two  spaces", " lead", "trail "]
    model, _ = learned(folder, "bpe", vocab_size=420, byte_fallback=True, normalization_rule_name="identity",
                       remove_extra_whitespaces=False, hard_vocab_limit=False)
    maker.add("learned pairs", "llama", tokens_of(model), {}, texts)
    same(maker.cases[-1], model)
    rules = Path(folder) / "rules.tsv"
    pairs = [("\uff21", "A"), ("\ufb01", "fi"), ("e\u0301", "\u00e9"), ("\t", " "), ("\u3000", " "), ("\u00ad", ""),
             ("xyz", "X"), ("xy", "Y")]
    row = lambda text: " ".join(f"{ord(c):X}" for c in text)
    rules.write_text("".join(f"{row(left)}\t{row(right)}\n" for left, right in pairs))
    model, proto = learned(folder, "unigram", vocab_size=220, normalization_rule_tsv=str(rules), hard_vocab_limit=False)
    texts += ["\uff21\uff21 \ufb01n e\u0301e\u0301 a\tb\u3000c\u00ad\u00add", "xyzxyxx", "\u3000\u3000a  ", "\u00ad",
              "e\u0301\u0301"]
    normalizer_spec, precompiled_charsmap = 3, 2  # fields
    maker.add("learned unigram", "t5", tokens_of(model),
              {PREFIX: True, "tokenizer.ggml.remove_extra_whitespaces": True, "tokenizer.ggml.unknown_token_id": model.unk_id(),
               "tokenizer.ggml.eos_token_id": model.eos_id()}, texts,
              field_of(field_of(proto, normalizer_spec), precompiled_charsmap))
    same(maker.cases[-1], model)


def same(case, model):
    for row in case["rows"]:
        own = model.encode(row[0])
        if own != row[1]:
            print("SentencePiece parts:", case["name"], row[0], own, row[1], file=sys.stderr)


def main():
    llama = Llama(os.path.abspath(sys.argv[1]))
    with tempfile.TemporaryDirectory() as folder:
        maker = Maker(llama, os.path.join(folder, "vocab.gguf"))
        llama_kinds(maker)
        t5_kinds(maker)
        learned_kinds(maker, folder)
    print('{"made_with":"llama.cpp in PyPI xllamacpp 2026.10.11549, sentencepiece 0.2.3","cases":[')
    print(",\n".join(json.dumps(case, ensure_ascii=True, separators=(",", ":")) for case in maker.cases) + "]}")


if __name__ == "__main__":
    main()
