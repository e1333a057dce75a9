"""Writes hf_tokenizers.json: tiny tokenizer.json files of the kinds that model/weights/hf_tokenizer.cc takes, and the ids that
Hugging Face's own library gives for texts, with the tokens around them and without.

    python -m venv venv && venv/bin/pip install tokenizers==0.23.3 sentencepiece==0.2.3 && venv/bin/python make_hf_tokenizers.py
"""
import io
import json
import tempfile
from pathlib import Path

import sentencepiece
import tokenizers
from tokenizers import AddedToken, Regex, Tokenizer, decoders, normalizers, pre_tokenizers, processors
from tokenizers.models import BPE, Unigram
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


# What normalisers change, and what only some of them do.
UNIGRAM_TEXTS = [
    "\ufb01n \uff21\uff21 \u2460", "e\u0301e\u0301\u0301 a\u0301b", "a\r\nb\r\n", "\r\n", "xyzxyxx xy\u0301", "  a   b  ", "a ",
    "\u3000\u3000a\u3000 ", "zero\u200bwidth \u200d\ufeffx\u00ad", "\u0001\u0007a\u007fb\u0085c", "\u1100\u1161\u11a8 \uac01",
    "\u0915\u094d\u0937 \u0e33", "\U0001F468\u200d\U0001F469 \U0001F1E9\U0001F1EA", "\u2581\u2581a \u2581", "<unk> x<unk>",
    "\u00bd \u00b2 \u212b", "qqq\u4e16qq", "a\u0345\u0301\u0345", "<s> </s> b", "\u00a0",
    "e\u0301\u0323 <0x4 x41>", "\u00fe\u00f0 \u00fe", "\t a\u2003b\u2028"]


def sentencepiece_model(**options):
    """Of SentencePiece's trainer: that of `tokenizers` learns other scores in each run."""
    model = io.BytesIO()
    sentencepiece.SentencePieceTrainer.train(sentence_iterator=iter(CORPUS), model_writer=model, vocab_size=150, num_threads=1,
                                             hard_vocab_limit=False, minloglevel=2, **options)
    return model.getvalue()


def charsmap():
    """SentencePiece's compiled form of a few rules, among them ones that overlap and one whose left side is two characters."""
    pairs = [("\uff21", "A"), ("\ufb01", "fi"), ("e\u0301", "\u00e9"), ("\t", " "), ("\r", " "), ("\n", " "), ("\u3000", " "),
             ("\u00ad", ""), ("xyz", "X"), ("xy", "Y"), ("\u200b", " "), ("\u00bd", "1\u20442"), ("a\u0301", "\u00e1"),
             ("\u0001", ""), ("e\u0301\u0323", "Y")]
    row = lambda text: " ".join(f"{ord(c):X}" for c in text)
    with tempfile.TemporaryDirectory() as folder:
        rules = Path(folder) / "rules.tsv"
        rules.write_text("".join(f"{row(left)}\t{row(right)}\n" for left, right in pairs))
        proto = sentencepiece_model(normalization_rule_tsv=str(rules))
    return field_of(field_of(proto, 3), 2)  # normalizer_spec, precompiled_charsmap


def field_of(message, number):
    """Of a protobuf message: the bytes of the last field of this number."""
    def varint():
        nonlocal at
        value = shift = 0
        while True:
            byte = message[at]
            at, value, shift = at + 1, value | (byte & 0x7F) << shift, shift + 7
            if byte < 0x80:
                return value
    at, found = 0, b""
    while at < len(message):
        key = varint()
        size = varint() if key & 7 in (0, 2) else 4 if key & 7 == 5 else 8
        if key & 7 == 2 and key >> 3 == number:
            found = message[at:at + size]
        at += size if key & 7 != 0 else 0
    return found


def unigram(*, normalizer, pre_tokenizer, byte_fallback=False, bos=None, eos=None):
    """Learned pieces behind special tokens, and bytes as a conversion of SentencePiece has them."""
    vocab = [("<unk>", 0.0), ("<s>", 0.0), ("</s>", 0.0)]
    if byte_fallback:
        vocab += [(f"<0x{i:02X}>", 0.0) for i in range(256)]
    model = sentencepiece.SentencePieceProcessor(model_proto=sentencepiece_model(normalization_rule_name="identity"))
    # Scores that only 64 bits hold.
    learned = [(model.id_to_piece(i), round(model.get_score(i) * 1.1, 12)) for i in range(3, model.vocab_size())]
    have = {piece for piece, _ in vocab + learned}
    # Across words, of spaces alone, of two equal sums, a long one, one dearer than most: cuts that a rule decides.
    extra = [("\u2581the\u2581dog", -3.5), ("\u2581\u2581", -4.25), ("ab", -6.0), ("aba", -9.0), ("X", -7.5), ("Y", -7.5),
             ("\u00e9", -7.0), ("aaaaaaaa", -2.0), ("\u00fe\u00f0", -21.0)]
    learned += [(piece, score) for piece, score in extra if piece not in have]
    t = Tokenizer(Unigram(vocab=vocab + learned, unk_id=0, byte_fallback=byte_fallback))
    t.normalizer = normalizer
    if pre_tokenizer:
        t.pre_tokenizer = pre_tokenizer
    t.decoder = decoders.Metaspace()
    t.add_special_tokens([AddedToken(x, special=True, normalized=False) for x in ("<unk>", "<s>", "</s>")]
                         + [AddedToken("<|end|>", special=True, normalized=False, rstrip=True)])
    # Looked for in the normalised text, where that makes no difference: it does where a step changes the ends of a text.
    changes_ends = any(step in str(normalizer) for step in ("Prepend", "Strip", "\\A"))
    t.add_tokens([AddedToken("<|extra|>", special=False, normalized=not changes_ends)])
    if bos or eos:
        single = (bos + " " if bos else "") + "$A" + (" " + eos if eos else "")
        t.post_processor = processors.TemplateProcessing(
            single=single, special_tokens=[(x, t.token_to_id(x)) for x in (bos, eos) if x])
    return t


def unigrams():
    rules, space = normalizers.Precompiled(charsmap()), "\u2581"
    metaspace = pre_tokenizers.Metaspace
    # As transformers converts T5's and its kin's, as it did before, as the library's own trainer makes them.
    yield "unigram-t5", unigram(
        normalizer=normalizers.Sequence([rules, normalizers.Strip(left=False), normalizers.Replace(Regex(" {2,}"), space)]),
        pre_tokenizer=metaspace(), eos="</s>")
    yield "unigram-words", unigram(normalizer=rules, byte_fallback=True, pre_tokenizer=pre_tokenizers.Sequence(
        [pre_tokenizers.WhitespaceSplit(), metaspace()]))
    yield "unigram-nfkc", unigram(normalizer=normalizers.Sequence(
        [normalizers.Nmt(), normalizers.NFKC(), normalizers.Replace(Regex(" {2,}"), " ")]), pre_tokenizer=metaspace())
    # Llama's kind, with and without its old habit; what transformers 5 makes of any other file of SentencePiece's.
    yield "unigram-llama", unigram(normalizer=normalizers.Sequence(
        [normalizers.Prepend(space), normalizers.Replace(" ", space)]), pre_tokenizer=None, byte_fallback=True, bos="<s>")
    for scheme in ("first", "never"):
        yield "unigram-" + scheme, unigram(normalizer=normalizers.NFC(), byte_fallback=True, bos="<s>",
                                           pre_tokenizer=metaspace(prepend_scheme=scheme, split=False))
    yield "unigram-spm", unigram(normalizer=normalizers.Sequence(
        [rules, normalizers.Replace(Regex(r"\A +| +\z"), ""), normalizers.Replace(Regex(" {2,}"), " "),
         normalizers.Replace(" ", space), normalizers.Replace(Regex(r"\A" + space), space + space)]),
        pre_tokenizer=pre_tokenizers.Sequence([metaspace(split=False)]), byte_fallback=True)


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
    for name, t in [*cases(), *unigrams()]:
        texts = [{"text": x, "ids": t.encode(x, add_special_tokens=False).ids, "around": t.encode(x).ids}
                 for x in TEXTS + UNIGRAM_TEXTS * name.startswith("unigram")]
        size = t.get_vocab_size()
        lines.append(json.dumps(name) + ": " + json.dumps({"tokenizer": json.loads(t.to_str()), "size": size, "texts": texts}))
    out = Path(__file__).with_name("hf_tokenizers.json")
    out.write_text('{"tokenizers": "' + tokenizers.__version__ + '",\n' + ",\n".join(lines) + "\n}\n")


if __name__ == "__main__":
    main()
