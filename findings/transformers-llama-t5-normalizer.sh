#!/usr/bin/env bash
# transformers 5.24.0 over tokenizers 0.23.3: a tokenizer.json with a normalizer (NFKC, then lower case), whose
# tokenizer_config.json names LlamaTokenizerFast or T5TokenizerFast.
#   expected  the ids that tokenizers gives by that file, which describes the tokenizer in full
#   seen      those classes build a tokenizer of their own from the file's vocabulary and merges, without its normalizer, and say
#             nothing, so the ids differ wherever it changes the text. The same file as PreTrainedTokenizerFast gives the ids of
#             tokenizers. All else in the file is as those classes build it: a text that is in normal form is the same in all
# Not tried here: transformers 4.57.6 used the file as it is; of 5.24.0, T5's class keeps a `Precompiled`, Llama's not even that.
# Needs python3 with venv and the network, works in a folder of its own, and fails if what is seen changes.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install -q --disable-pip-version-check transformers==5.24.0 tokenizers==0.23.3
cd "$folder"
HF_HUB_OFFLINE=1 venv/bin/python - <<'PYTHON'
import json
import string
import sys
from importlib.metadata import version
from pathlib import Path

from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, trainers
from transformers import AutoTokenizer

LINES = ["the red fox runs", "the red hen sees the fox", "a fox and a hen in the sun"]
TEXTS = {"in normal form": "the red fox", "with capitals": "The Red Fox"}
ALPHABET = list(string.ascii_letters)


def llama():
    tokenizer = Tokenizer(models.BPE(unk_token="<unk>", fuse_unk=True, byte_fallback=True))
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="first", split=False)
    return tokenizer, trainers.BpeTrainer(vocab_size=90, special_tokens=["<unk>", "<s>", "</s>"], initial_alphabet=ALPHABET,
                                          show_progress=False), {"bos_token": "<s>"}


def t5():
    tokenizer = Tokenizer(models.Unigram())
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence([pre_tokenizers.WhitespaceSplit(), pre_tokenizers.Metaspace()])
    return tokenizer, trainers.UnigramTrainer(vocab_size=90, special_tokens=["<pad>", "</s>", "<unk>"], unk_token="<unk>",
                                              initial_alphabet=ALPHABET, show_progress=False), {"extra_ids": 0}


print("transformers", version("transformers"), "tokenizers", version("tokenizers"))
seen = []
for own_class, make in (("LlamaTokenizerFast", llama), ("T5TokenizerFast", t5)):
    tokenizer, trainer, config = make()
    tokenizer.normalizer = normalizers.Sequence([normalizers.NFKC(), normalizers.Lowercase()])
    tokenizer.train_from_iterator(LINES, trainer)
    tokenizer.save("tokenizer.json")
    for name in (own_class, "PreTrainedTokenizerFast"):
        folder = Path(f"{own_class}-{name}")
        folder.mkdir()
        (folder / "tokenizer.json").write_text(Path("tokenizer.json").read_text())
        (folder / "tokenizer_config.json").write_text(
            json.dumps({"tokenizer_class": name, "unk_token": "<unk>", "eos_token": "</s>", **config}))
        loaded = AutoTokenizer.from_pretrained(folder)
        print(f"{name}, its normalizer: {loaded.backend_tokenizer.normalizer}")
        for what, text in TEXTS.items():
            ids, by_file = loaded.encode(text, add_special_tokens=False), tokenizer.encode(text, add_special_tokens=False).ids
            print(f"  {what}: {text!r} is {ids}, by tokenizers {by_file}")
            seen.append((name, what, ids == by_file))
expected = [(name, what, name == "PreTrainedTokenizerFast" or what == "in normal form")
            for own_class in ("LlamaTokenizerFast", "T5TokenizerFast") for name in (own_class, "PreTrainedTokenizerFast")
            for what in TEXTS]
sys.exit(0 if seen == expected else 1)
PYTHON
