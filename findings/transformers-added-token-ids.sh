#!/usr/bin/env bash
# transformers 5.24.0 over tokenizers 0.23.3: the id of a token that is only in `added_tokens_decoder` of tokenizer_config.json, a
# map from ids to tokens, beside a tokenizer.json that has ids 0 to 7.
#   expected  the id that the file gives it, which is the row of the embedding that the model was trained with; or a refusal, if
#             that id cannot be had
#   seen      the next free id, in the order of the file's ids, and nothing is said: 12 and 10 become 9 and 8. An id that another
#             token has is no error either. Only tokens whose ids follow the last one without a gap get their own
# Not new: transformers 4.57.6 did the same (not tried here).
# Needs python3 with venv and the network, works in a folder of its own, and fails if what is seen changes.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install -q --disable-pip-version-check transformers==5.24.0 tokenizers==0.23.3
cd "$folder"
HF_HUB_OFFLINE=1 venv/bin/python - <<'PYTHON'
import json
import sys
from importlib.metadata import version
from pathlib import Path

from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import AutoTokenizer
from transformers.utils import logging

tokenizer = Tokenizer(models.BPE({c: i for i, c in enumerate(["<unk>", "<s>", "</s>", "▁", "a", "b", "c", "d"])}, [],
                                 unk_token="<unk>"))
tokenizer.pre_tokenizer = pre_tokenizers.Metaspace()
tokenizer.add_special_tokens(["<unk>", "<s>", "</s>"])
assert tokenizer.get_vocab_size() == 8

CASES = {  # what tokenizer_config.json says, and what becomes of it
    "ids without a gap": ({"8": "<call>", "9": "<tool>"}, {"<call>": 8, "<tool>": 9}),
    "ids with a gap": ({"12": "<tool>", "10": "<call>"}, {"<tool>": 9, "<call>": 8}),
    "an id that another token has": ({"6": "<call>"}, {"<call>": 8}),
}
said = []
logging.get_logger().handlers[0].addFilter(lambda record: said.append(record.getMessage()) or True)
print("transformers", version("transformers"), "tokenizers", version("tokenizers"))
fails = 0
for case, (given, expected) in CASES.items():
    folder = Path(case)
    folder.mkdir()
    tokenizer.save(str(folder / "tokenizer.json"))
    token = {"lstrip": False, "rstrip": False, "normalized": False, "single_word": False, "special": True}
    (folder / "tokenizer_config.json").write_text(json.dumps({
        "tokenizer_class": "PreTrainedTokenizerFast", "unk_token": "<unk>", "bos_token": "<s>", "eos_token": "</s>",
        "added_tokens_decoder": {id: {"content": content, **token} for id, content in given.items()}}))
    loaded = AutoTokenizer.from_pretrained(folder)
    ids = {content: loaded.convert_tokens_to_ids(content) for content in given.values()}
    text = "".join(given.values())
    print(f"{case}: the file says {given}, transformers {ids}; {text!r} is {loaded.encode(text, add_special_tokens=False)}")
    fails += ids != expected or loaded.encode(text, add_special_tokens=False) != list(expected.values())
print("warnings:", said)
sys.exit(1 if fails or said else 0)
PYTHON
