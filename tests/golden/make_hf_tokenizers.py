"""Writes hf_tokenizers.json: tiny tokenizer.json files of the kinds that model/weights/hf_tokenizer.cc takes, and the ids that
Hugging Face's own library gives for texts, with the tokens around them and without.

    python -m venv venv && venv/bin/pip install tokenizers==0.23.3 && venv/bin/python make_hf_tokenizers.py
"""
import json
from pathlib import Path

import tokenizers
from tokenizers import AddedToken, Regex, Tokenizer, normalizers, pre_tokenizers, processors
from tokenizers.models import BPE
from tokenizers.trainers import BpeTrainer

LLAMA3 = (r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*"
          r"|\s*[\r\n]+|\s+(?!\S)|\s+")
QWEN2 = LLAMA3.replace("{1,3}", "")
CORPUS = ["The quick brown fox jumps over the lazy dog, and the other dogs sleep.",
          "It's 2024 and we've 12345 reasons to be here.", "    indented code:\n\tif (a == b) {\n\t\treturn 100;\n\t}\n",
          "caf\u00e9 na\u00efve r\u00e9sum\u00e9 \u00fcber \u00c5ngstr\u00f6m",
          "\u043f\u0440\u0438\u0432\u0435\u0442 \u043c\u0438\u0440 \u4f60\u597d\u4e16\u754c the the the",
          "aaaa aaa aa a bbbb abab ababab"] * 4
TEXTS = ["", " ", "  ", "a", " a", "  a  b ", "The quick brown fox", "the dogs, they've slept", "It's 12345 and 67",
         "aaaaaaaaa", "abababab", "caf\u00e9 cafe\u0301 A\u030angstro\u0308m", "line\n\nline\r\n  \tend ",
         "\u4f60\u597d \u043c\u0438\u0440 \U0001F600 \u2581x", "<s>hello</s> there",
         "one<|extra|> two <|extra|>  three", "<|end|>  \n after", "if (a == b) { return 100; }", "\u00a0x\u3000y"]


GPT4O = (r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+(?i:'s|'t|'re|'ve|'m|'ll|'d)?"
         r"|[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+[\p{Ll}\p{Lm}\p{Lo}\p{M}]*(?i:'s|'t|'re|'ve|'m|'ll|'d)?"
         r"|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+")


def byte_level(expressions, *, normalizer=None, ignore_merges=False, digits=False, bos=None, steps=None):
    t = Tokenizer(BPE(ignore_merges=ignore_merges))
    splits = [pre_tokenizers.Split(Regex(e), "isolated") for e in expressions]
    if digits:
        splits = [pre_tokenizers.Digits(individual_digits=True)]
    last = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=not expressions)
    t.pre_tokenizer = pre_tokenizers.Sequence(splits + [last]) if splits else last
    if steps:
        t.pre_tokenizer = pre_tokenizers.Sequence(steps)
    t.normalizer = normalizer
    t.train_from_iterator(CORPUS, BpeTrainer(vocab_size=420, initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
                                            show_progress=False))
    t.add_special_tokens([AddedToken(x, special=True, normalized=False) for x in ("<s>", "</s>")]
                         + [AddedToken("<|end|>", special=True, normalized=False, rstrip=True)])
    t.add_tokens([AddedToken("<|extra|>", special=False, normalized=False)])
    if bos:
        t.post_processor = processors.Sequence([processors.ByteLevel(trim_offsets=False), template(t, bos)])
    return t


def template(t, bos, eos=None):
    single = bos + " $A" + (" " + eos if eos else "")
    return processors.TemplateProcessing(single=single, special_tokens=[(x, t.token_to_id(x)) for x in (bos, eos) if x])


def characters(*, normalizer, pre_tokenizer=None, bos="<s>"):
    """A vocabulary as conversions of SentencePiece have it: special tokens, bytes, pieces, a merge for each cut of a piece."""
    base = Tokenizer(BPE())
    base.normalizer = normalizers.Replace(" ", "\u2581")
    base.train_from_iterator(CORPUS, BpeTrainer(vocab_size=260, show_progress=False))
    learned = json.loads(base.to_str())["model"]
    vocab = {"<unk>": 0, "<s>": 1, "</s>": 2, **{f"<0x{i:02X}>": 3 + i for i in range(256)}}
    pieces = [piece for piece, _ in sorted(learned["vocab"].items(), key=lambda item: item[1])]
    made = [piece for piece in pieces if len(piece) > 1]
    for piece in made + [piece for piece in pieces if len(piece) == 1]:
        vocab.setdefault(piece, len(vocab))
    for extra in ("\u2581\u2581", "\u2581\u2581\u2581"):
        if extra not in vocab:
            vocab[extra] = len(vocab)
            made.append(extra)
    merges = []
    for piece in made:
        cuts = [(piece[:i], piece[i:]) for i in range(1, len(piece))]
        cuts = [cut for cut in cuts if cut[0] in vocab and cut[1] in vocab]
        merges += sorted(cuts, key=lambda cut: (vocab[cut[0]], vocab[cut[1]]))
    t = Tokenizer(BPE(vocab=vocab, merges=merges, byte_fallback=True, fuse_unk=True, unk_token="<unk>"))
    t.normalizer = normalizer
    if pre_tokenizer:
        t.pre_tokenizer = pre_tokenizer
    t.add_special_tokens([AddedToken(x, special=True, normalized=False) for x in ("<unk>", "<s>", "</s>")]
                         + [AddedToken("<|end|>", special=True, normalized=False, rstrip=True)])
    t.add_tokens([AddedToken("<|extra|>", special=False, normalized=False)])
    if bos:
        t.post_processor = template(t, bos)
    return t


def cases():
    replace = normalizers.Replace(" ", "\u2581")
    yield "gpt2", byte_level([])
    yield "smollm", byte_level([], digits=True)
    yield "llama3", byte_level([LLAMA3], ignore_merges=True, bos="<s>")
    yield "qwen2", byte_level([QWEN2], normalizer=normalizers.NFC())
    bare = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    yield "gpt-4o", byte_level([], steps=[pre_tokenizers.Split(Regex(GPT4O), "removed", invert=True), bare])
    yield "falcon", byte_level([], steps=[
        pre_tokenizers.Punctuation("contiguous"), pre_tokenizers.ByteLevel(add_prefix_space=False),
        pre_tokenizers.Digits(individual_digits=False), pre_tokenizers.Split(Regex("[0-9][0-9][0-9]"), "isolated")])
    yield "llama2", characters(normalizer=normalizers.Sequence([normalizers.Prepend("\u2581"), replace]))
    for scheme in ("first", "always", "never"):
        yield "metaspace-" + scheme, characters(
            normalizer=None, pre_tokenizer=pre_tokenizers.Metaspace(prepend_scheme=scheme, split=False))
    yield "gemma", characters(normalizer=replace, pre_tokenizer=pre_tokenizers.Split(" ", "merged_with_previous"))


def main():
    lines = []
    for name, t in cases():
        texts = [{"text": x, "ids": t.encode(x, add_special_tokens=False).ids, "around": t.encode(x).ids} for x in TEXTS]
        size = t.get_vocab_size()
        lines.append(json.dumps(name) + ": " + json.dumps({"tokenizer": json.loads(t.to_str()), "size": size, "texts": texts}))
    out = Path(__file__).with_name("hf_tokenizers.json")
    out.write_text('{"tokenizers": "' + tokenizers.__version__ + '",\n' + ",\n".join(lines) + "\n}\n")


if __name__ == "__main__":
    main()
