#!/usr/bin/env bash
# tokenizers 0.23.3 beside sentencepiece 0.2.3, whose model it imports: what the `Precompiled` normalizer, which is made to do as
# SentencePiece's table of characters does (nmt_nfkc, its default: T5, XLM-RoBERTa, ALBERT, ...), makes of text in NFD, such as
# file names of macOS.
#   expected  the same text and ids: where rules begin, the one with the longest left side is applied, as SentencePiece does
#   seen      a grapheme of up to 5 bytes becomes, whole, what the rule with the shortest left side says: of a letter with two
#             marks the first rule is for the letter and one mark, so the other mark is gone. The words are then other words. A
#             longer grapheme goes by characters, so that it is not composed at all. Composed text (NFC) is the same in both
# People know it: tokenizers issues 2116 and 2334.
# Needs python3 with venv and the network, works in a folder of its own, and fails if what is seen changes.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install -q --disable-pip-version-check tokenizers==0.23.3 sentencepiece==0.2.3 protobuf==7.36.2
cd "$folder"
venv/bin/python - <<'PYTHON'
import sys
import unicodedata
from importlib.metadata import version

import sentencepiece as spm
from sentencepiece import sentencepiece_model_pb2 as pb
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers

LINES = ["Tiếng Việt có sáu thanh.", "Một cốc cà phê sữa đá ở quán nhỏ.", "Hôm nay trời đẹp, chúng tôi đi bộ quanh hồ.",
         "각 나라의 말과 글", "The small café is open until ten."]
spm.SentencePieceTrainer.train(sentence_iterator=iter(LINES), model_prefix="m", vocab_size=120, hard_vocab_limit=False,
                               character_coverage=1.0, minloglevel=2)
sentencepiece = spm.SentencePieceProcessor(model_file="m.model")
model = pb.ModelProto.FromString(sentencepiece.serialized_model_proto())
assert model.normalizer_spec.name == "nmt_nfkc"

tokenizer = Tokenizer(models.Unigram([(p.piece, p.score) for p in model.pieces], unk_id=model.trainer_spec.unk_id))
tokenizer.normalizer = normalizers.Precompiled(model.normalizer_spec.precompiled_charsmap)
tokenizer.pre_tokenizer = pre_tokenizers.Metaspace()

print("tokenizers", version("tokenizers"), "sentencepiece", version("sentencepiece"))
seen = {}
for text in ("café", "Tiếng Việt", "각"):
    for form in ("NFC", "NFD"):
        given = unicodedata.normalize(form, text)
        ours = tokenizer.normalizer.normalize_str(given), tokenizer.encode(given).ids
        theirs = sentencepiece.normalize(given).removeprefix("▁").replace("▁", " "), sentencepiece.encode(given)
        seen[text, form] = ours[0] == theirs[0], ours[1] == theirs[1], unicodedata.normalize("NFC", ours[0])
        print(f"{text} in {form}: {'the same' if ours == theirs else 'DIFFERENT'}")
        for name, (normalized, ids) in (("tokenizers", ours), ("sentencepiece", theirs)):
            print(f"  {name:13}  {normalized} ({len(normalized)} characters)  {ids}")
expected = {("café", "NFC"): (True, True, "café"), ("café", "NFD"): (True, True, "café"),
            ("Tiếng Việt", "NFC"): (True, True, "Tiếng Việt"), ("Tiếng Việt", "NFD"): (False, False, "Tiêng Viẹt"),
            ("각", "NFC"): (True, True, "각"), ("각", "NFD"): (False, False, "각")}
sys.exit(0 if seen == expected else 1)
PYTHON
