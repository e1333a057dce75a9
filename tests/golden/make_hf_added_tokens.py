"""Writes hf_added_tokens.json: what transformers makes of added tokens that tokenizer_config.json says otherwise than
tokenizer.json, or alone: the ids of texts, or that it adds a token with another id than the file gives it.

    python -m venv venv && venv/bin/pip install transformers==5.24.0 tokenizers==0.23.3 && venv/bin/python make_hf_added_tokens.py
"""
import json
import tempfile
from pathlib import Path

import transformers
from transformers import AutoTokenizer

HERE = Path(__file__).parent
BASES = json.loads((HERE / "hf_tokenizers.json").read_text())
TEXTS = ["a<|new|>  b <|other|> c", "<|extra|>  x<|end|>  y", "the theory, the", "<|pad|><|x|> <|new|>",
         "a <|end|> <|new|>\n", "<unk>z"]


def token(content, **flags):
    return {"content": content, "lstrip": False, "normalized": False, "rstrip": False, "single_word": False,
            "special": True, **flags}


def cases():
    for base in ("gpt2", "qwen2", "unigram-nfkc", "metaspace-first"):
        n = BASES[base]["size"]
        ids = {one["content"]: one["id"] for one in BASES[base]["tokenizer"]["added_tokens"]}
        end, extra = str(ids["<|end|>"]), str(ids["<|extra|>"])
        yield base, "nothing", {"added_tokens_decoder": {}}
        yield base, "same", {"added_tokens_decoder": {extra: token("<|extra|>", special=False)}}
        yield base, "new", {"added_tokens_decoder": {
            str(n): token("<|new|>"), str(n + 1): token("<|other|>", special=False, rstrip=True)}}
        yield base, "keys as texts are not in order", {"added_tokens_decoder": {
            str(n + 1): token("<|other|>"), str(n): token("<|new|>")}}
        yield base, "flags", {"added_tokens_decoder": {
            end: token("<|end|>", rstrip=False), extra: token("<|extra|>", rstrip=True)}}
        yield base, "no flags", {"added_tokens_decoder": {str(n): {"content": "<|new|>"}}}
        yield base, "named", {"pad_token": "<|pad|>", "additional_special_tokens": ["<|x|>", "<|extra|>"]}
        yield base, "named and listed", {"added_tokens_decoder": {str(n): token("<|new|>")}, "pad_token": "<|pad|>",
                                         "extra_special_tokens": ["<|x|>"]}
        yield base, "named, and listed as a word", {"pad_token": "<|new|>", "added_tokens_decoder": {
            str(n): token("<|new|>", special=False), extra: token("<|extra|>")}}
        yield base, "another id", {"added_tokens_decoder": {str(n + 10): token("<|new|>")}}
        yield base, "an id that another has", {"added_tokens_decoder": {extra: token("<|new|>")}}
    vocab = BASES["gpt2"]["tokenizer"]["model"]["vocab"]
    yield "gpt2", "a word", {"added_tokens_decoder": {str(vocab["the"]): token("the", special=False)}}
    yield "gpt2", "a word of another id", {"added_tokens_decoder": {"17": token("the", special=False)}}


def main():
    lines = []
    for base, name, changes in cases():
        config = {"bos_token": "<s>", "eos_token": "</s>", **changes}
        with tempfile.TemporaryDirectory() as folder:
            (Path(folder) / "tokenizer.json").write_text(json.dumps(BASES[base]["tokenizer"]))
            (Path(folder) / "tokenizer_config.json").write_text(
                json.dumps({"tokenizer_class": "PreTrainedTokenizerFast", **config}))
            t = AutoTokenizer.from_pretrained(folder)
            given = {one["content"]: int(key) for key, one in config.get("added_tokens_decoder", {}).items()}
            ids = {text: t.convert_tokens_to_ids(text) for text in given}
            special = {one.content: one.special for one in t.added_tokens_decoder.values()}
            texts = [{"text": x, "ids": t.encode(x, add_special_tokens=False)} for x in TEXTS]
        lines.append(json.dumps({"tokenizer": base, "name": name, "config": config, "keeps_ids": ids == given,
                                 "special": special, "texts": texts}))
    (HERE / "hf_added_tokens.json").write_text(
        json.dumps({"transformers": transformers.__version__})[:-1] + ', "cases": [\n' + ",\n".join(lines) + "\n]}\n")


if __name__ == "__main__":
    main()
