"""What llama.cpp makes of names and tokens in a GGUF file: llama_vocab.json, the answers of the real library.

    make_llama_vocab.py LIBRARY > llama_vocab.json

LIBRARY is a shared object that exports llama.h's C functions: `pip download --no-deps xllamacpp==2026.10.11549`, unzip, and
take xllamacpp/xllamacpp.abi3.so. Needs PyPI `gguf` 0.19.0 and `numpy`. Every file here is made of a vocabulary alone, opened as
vocab_only.
"""
import ctypes
import json
import os
import sys
import tempfile
from pathlib import Path

import gguf

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "e2e"))
from llama_cpp import ModelParams
from tokenizer_oracle import STAND_INS

CONTROL, USER_DEFINED, NORMAL = 3, 4, 1
ATTRIBUTE_CONTROL = 1 << 3

# llama.cpp's table of names whose expressions are among ours; the C++ test walks over all of these.
PRE_TOKENIZERS = """
    default gpt-2 phi-2 jina-es jina-de gigachat jina-v2-es jina-v2-de a.x-4.0 mellum modern-bert jina-v1-en jina-v2-code
    roberta-bpe mpt olmo jais trillion granite-docling exaone4 llama3 llama-v3 llama-bpe falcon3 falcon-h1 pixtral midm-2.0
    lfm2 jina-v5-nano dbrx smaug-bpe glm4 glm5 chatglm-bpe qwen2 deepseek-r1-qwen kormo f2llmv2 stablelm2 hunyuan solar-open
    megrez grok-2 smollm starcoder refact command-r codeshell exaone minerva-7b mellum2 falcon jais-2 minicpm5 qwen35 seed-coder
    bailingmoe bailingmoe2 llada-moe ufakzeka laguna exaone-moe tekken gpt-4o llama4 kanana2 talkie minimax-m2 kimi-k2
    deepseek-llm deepseek-coder deepseek-v3 hunyuan-dense joyai-llm hy_v4 spark2_5 bloom poro-chat gpt3-finnish viking
    superbpe""".split()
# Pairs of these are tokens and all merge, so that a cut between two pieces shows in the ids.
ALPHABET = "aZé12 \n\r\t'sS.!$</一か\u00c0\u0301\u0928\u00b2\u2026"
TEXTS = ["aaZa 1212121 's'S 'sa", "a\r\n\r\n  a \t\n1", "...!!!  a!\n\n a$<$.a", "é1é a  1", "  \n a", "Za'Sa12!\n", "ab",
         " Qx Qx", "a/\n//\r\n1", "一か一1か aか", "1212121212 12", "ZaS'sa'S Za", "$$!a<1/ /a", "Sa S一S"]
# Capitals outside ASCII and marks, which the library takes for small letters and for none of a word in the names of PARTING.
WIDE_TEXTS = ["Z\u00c0a\u00c0Z \u00e9\u00c0", "a\u0301 \u0301a\u0928\u0301 \u0928", "1\u00b21\u00b2\u00b2 \u00b2a",
              "\u2026\u2026a \u2026\n!\u2026 \u00c0.", "\u4e00\u0301\u304b\u0928\u00c0 \u4e00", "$\u304b<\r\n<\tZ\u304b\u00e9S"]
PARTING = "tekken gpt-4o llama4 kanana2 talkie minimax-m2".split()

# A control token's usual texts, and what else might pass for one.
MARKERS = """
    <|eot_id|> <|im_end|> <|end|> <|return|> <|call|> <|flush|> <|calls|> <end_of_turn> <|endoftext|> </s> <|eom_id|> <EOT>
    _<EOT> [EOT] [EOS] <|end_of_text|> <end_of_utterance> <eos> <turn|> <|tool_response> <｜end▁of▁sentence｜> [e~[
    <|ifm|im_end|> <|plamo:file_separator|> <|plamo:fim_prefix|> <|plamo:fim_suffix|> <|plamo:fim_middle|> <|plamo:eos|>
    <|fim_prefix|> <fim-prefix> <fim_prefix> <｜fim▁begin｜> <PRE> ▁<PRE> <|code_prefix|> <|prefix|>
    <|fim_suffix|> <fim-suffix> <fim_suffix> <｜fim▁hole｜> <SUF> ▁<SUF> <|code_suffix|> <|suffix|>
    <|fim_middle|> <fim-middle> <fim_middle> <｜fim▁end｜> <MID> ▁<MID> <|code_middle|> <|middle|>
    <|fim_pad|> <fim-pad> <fim_pad> <PAD> [PAD] <|fim_repo|> <|repo_name|> <fim-repo> <REPO> <reponame> <|file_sep|>
    <|channel|> <|message|> <|start|> <|constrain|> <|im_start|> <s> <|user|> <unk> <|eot|> <|EOT|>""".split()
FIM_KEYS = ["fim_pre", "fim_suf", "fim_mid", "fim_pad", "fim_rep", "fim_sep"]


class Llama:
    def __init__(self, library):
        self.lib = ctypes.CDLL(library)
        self.lib.llama_model_default_params.restype = ModelParams
        self.lib.llama_model_load_from_file.argtypes = [ctypes.c_char_p, ModelParams]
        self.log = []
        self.callback = ctypes.CFUNCTYPE(None, ctypes.c_int, ctypes.c_char_p, ctypes.c_void_p)(
            lambda level, text, data: self.log.append(text))
        self.lib.llama_log_set(self.callback, None)
        for name in ("llama_model_load_from_file", "llama_model_get_vocab"):
            getattr(self.lib, name).restype = ctypes.c_void_p

    def vocab(self, path):
        params = self.lib.llama_model_default_params()
        params.vocab_only = True
        model = self.lib.llama_model_load_from_file(path.encode(), params)
        if not model:
            raise ValueError(b"".join(self.log[-6:]).decode())
        return ctypes.c_void_p(self.lib.llama_model_get_vocab(ctypes.c_void_p(model)))

    def encode(self, vocab, text, add_special, parse_special):
        raw, out = text.encode(), (ctypes.c_int32 * 4096)()
        count = self.lib.llama_tokenize(vocab, raw, len(raw), out, len(out), add_special, parse_special)
        return list(out[:count])

    def is_end(self, vocab, token):
        return bool(self.lib.llama_vocab_is_eog(vocab, token) & 1)

    def is_control(self, vocab, token):
        return bool(self.lib.llama_vocab_get_attr(vocab, token) & ATTRIBUTE_CONTROL)


def vocabulary():
    """Bytes, then every pair of the alphabet with its merge, then two words without merges, then begin and end."""
    stand = lambda text: "".join(STAND_INS[b] for b in text.encode())
    tokens, merges = [STAND_INS[b] for b in range(256)], []
    symbols = [stand(c) for c in ALPHABET]
    for symbol in symbols:  # first the bytes of a character
        for length in range(2, len(symbol) + 1):
            merges.append(symbol[:length - 1] + " " + symbol[length - 1])
            tokens.append(symbol[:length])
    for left in symbols:
        for right in symbols:
            tokens.append(left + right)
            merges.append(left + " " + right)
    tokens += [stand("Qx"), stand(" Qx")]
    types = [NORMAL] * len(tokens) + [CONTROL] * 3
    return tokens + ["<begin>", "<finish>", "<sep>"], types, merges


def write(path, tokens, types, merges, pre, keys):
    writer = gguf.GGUFWriter(path, "llama")
    writer.add_string("tokenizer.ggml.model", "gpt2")
    writer.add_string("tokenizer.ggml.pre", pre)
    writer.add_token_list(tokens)
    writer.add_token_types(types)
    writer.add_token_merges(merges)
    for key, value in keys.items():
        add = writer.add_bool if isinstance(value, bool) else writer.add_uint32
        add("tokenizer.ggml." + key, value)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.close()


def texts_of(name):
    return TEXTS if name in PARTING else TEXTS + WIDE_TEXTS


def pre_tokenizers(llama, path):
    tokens, types, merges = vocabulary()
    ends = {"bos_token_id": len(tokens) - 3, "eos_token_id": len(tokens) - 2, "seperator_token_id": len(tokens) - 1}
    names = {}
    for name in PRE_TOKENIZERS:
        write(path, tokens, types, merges, name, ends)
        vocab = llama.vocab(path)
        names[name] = {"add_bos": bool(llama.lib.llama_vocab_get_add_bos(vocab) & 1),
                       "ids": [llama.encode(vocab, text, True, True) for text in texts_of(name)]}
    flags = []
    for bos in (None, False, True):
        for eos in (None, False, True):
            keys = {key: value for key, value in (("add_bos_token", bos), ("add_eos_token", eos)) if value is not None}
            write(path, tokens, types, merges, "qwen2", {**ends, **keys})
            flags.append({"keys": keys, "ids": llama.encode(llama.vocab(path), "ab", True, True)})
    return {"tokens": tokens, "types": types, "merges": merges, "keys": ends, "texts": TEXTS + WIDE_TEXTS, "names": names,
            "flags": flags}


def marked(llama, path, words, keys=None):
    """A vocabulary of bytes and `words`, pairs of a text and its type; keys name words by their place."""
    tokens = [STAND_INS[b] for b in range(256)] + [text for text, _ in words]
    types = [NORMAL] * 256 + [kind for _, kind in words]
    ids = {key: 256 + place for key, place in (keys or {}).items()}
    write(path, tokens, types, ["a b"], "gpt-2", {"bos_token_id": 0, "eos_token_id": 1, **ids})
    vocab = llama.vocab(path)
    return {"words": words, "keys": ids, "control": [llama.is_control(vocab, 256 + i) for i in range(len(words))],
            "end": [llama.is_end(vocab, 256 + i) for i in range(len(words))]}


def markers(llama, path):
    cases = [marked(llama, path, [(text, kind)]) for text in MARKERS for kind in (NORMAL, USER_DEFINED, CONTROL)]
    end = "<|end|>"
    for others in (["<|return|>", "<|call|>"], ["<|calls|>", "<|flush|>"], ["<|return|>"], ["<|call|>", "<|flush|>"]):
        cases.append(marked(llama, path, [(text, CONTROL) for text in [*others, end]]))
    cases.append(marked(llama, path, [("</s>", CONTROL), ("<|tool_response>", CONTROL)]))
    cases.append(marked(llama, path, [("<stop>", NORMAL), ("<im_done>", NORMAL)], {"eot_token_id": 0, "eom_token_id": 1}))
    cases.append(marked(llama, path, [("<|eot_id|>", NORMAL), ("<own>", CONTROL)], {"eot_token_id": 1}))
    for key in FIM_KEYS:  # a key of its own, beside a text that would have been found
        texts = {"fim_pre": "<PRE>", "fim_suf": "<SUF>", "fim_mid": "<MID>", "fim_pad": "<PAD>", "fim_rep": "<REPO>",
                 "fim_sep": "<|file_sep|>"}
        cases.append(marked(llama, path, [(texts[key], NORMAL), ("<own>", NORMAL)], {key + "_token_id": 1}))
    for key in ("prefix", "suffix", "middle"):
        text = {"prefix": "<PRE>", "suffix": "<SUF>", "middle": "<MID>"}[key]
        cases.append(marked(llama, path, [(text, NORMAL), ("<own>", NORMAL)], {key + "_token_id": 1}))
    cases.append(marked(llama, path, [("<PAD>", NORMAL)], {"padding_token_id": 0}))
    cases.append(marked(llama, path, [("<own>", NORMAL)], {"eot_token_id": 100}))  # outside the vocabulary
    return cases


def main():
    llama = Llama(os.path.abspath(sys.argv[1]))
    with tempfile.TemporaryDirectory() as folder:
        path = os.path.join(folder, "vocab.gguf")
        result = {"made_with": "llama.cpp in PyPI xllamacpp 2026.10.11549", **pre_tokenizers(llama, path),
                  "markers": markers(llama, path)}
    json.dump(result, sys.stdout, ensure_ascii=True, separators=(",", ":"))
    print()


if __name__ == "__main__":
    main()
