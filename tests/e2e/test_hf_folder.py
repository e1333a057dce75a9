"""A folder as Hugging Face's models come: `run`, `tokenize` and `logits` take it, and say what is wrong with one."""

import json
import struct

import numpy as np
import pytest

from cli import NOT_BUILT, ROOT, refused, runahead

pytestmark = NOT_BUILT

CONFIG = {"model_type": "llama", "architectures": ["LlamaForCausalLM"], "hidden_size": 64, "intermediate_size": 96,
          "num_hidden_layers": 2, "num_attention_heads": 4, "num_key_value_heads": 2, "max_position_embeddings": 1024,
          "rms_norm_eps": 1e-5, "rope_theta": 10000.0, "tie_word_embeddings": True, "hidden_act": "silu", "vocab_size": 0}
LAYER = {"self_attn.q_proj": (64, 64), "self_attn.k_proj": (32, 64), "self_attn.v_proj": (32, 64), "self_attn.o_proj": (64, 64),
         "mlp.gate_proj": (96, 64), "mlp.up_proj": (96, 64), "mlp.down_proj": (64, 96), "input_layernorm": (64,),
         "post_attention_layernorm": (64,)}


def shapes(vocab_size):
    yield "model.embed_tokens.weight", (vocab_size, 64)
    yield "model.norm.weight", (64,)
    for layer in range(CONFIG["num_hidden_layers"]):
        for name, shape in LAYER.items():
            yield f"model.layers.{layer}.{name}.weight", shape


def write_safetensors(path, tensors):
    header, data = {}, b""
    for name, values in tensors:
        raw = values.astype("<f4").tobytes()
        header[name] = {"dtype": "F32", "shape": values.shape, "data_offsets": [len(data), len(data) + len(raw)]}
        data += raw
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    path.write_bytes(struct.pack("<Q", len(text)) + text + data)


@pytest.fixture
def folder(tmp_path):
    """Of random weights, with a tokenizer as Llama 3's."""
    golden = json.loads((ROOT / "tests/golden/hf_tokenizers.json").read_text())["llama3"]
    path = tmp_path / "Tiny-0.1B"
    path.mkdir()
    random = np.random.default_rng(5)
    tensors = [(name, random.normal(0, 0.2, shape) + (len(shape) == 1)) for name, shape in shapes(golden["size"])]
    write_safetensors(path / "model.safetensors", tensors)
    (path / "config.json").write_text(json.dumps(CONFIG | {"vocab_size": golden["size"]}))
    (path / "tokenizer.json").write_text(json.dumps(golden["tokenizer"]))
    (path / "tokenizer_config.json").write_text(json.dumps({"bos_token": "<s>", "eos_token": "</s>"}))
    (path / "chat_template.jinja").write_text("{% for m in messages %}{{ bos_token }}{{ m.content }}<|end|>{% endfor %}")
    (path / "generation_config.json").write_text(json.dumps({"eos_token_id": [3], "temperature": 0.5}))
    return path


def answer_of(path, *arguments):
    done = runahead("run", "-m", str(path), "--max-tokens", "4", "-o", "json", "--compute", "fp32", *arguments)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def test_one_worker_and_a_chain_give_the_same_answer(folder):
    one = answer_of(folder, "-w", "1", "-p", "The quick brown fox " * 40)
    three = answer_of(folder, "-w", "3", "-p", "The quick brown fox " * 40)
    assert one["first_logits_sha256"] == three["first_logits_sha256"]
    assert one["token_ids"] == three["token_ids"]


def test_texts_are_cut_as_the_model_cuts_them(folder):
    for text in json.loads((ROOT / "tests/golden/hf_tokenizers.json").read_text())["llama3"]["texts"][6:9]:
        done = runahead("tokenize", "-m", str(folder), "-o", "json", input=text["text"].encode())
        assert done.returncode == 0, done.stderr
        assert text["ids"] == json.loads(done.stdout)


def test_a_changed_file_is_another_model(folder):
    first = answer_of(folder, "-w", "1", "-p", "a b c")
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | {"rope_theta": 500.0}))
    assert answer_of(folder, "-w", "1", "-p", "a b c")["first_logits_sha256"] != first["first_logits_sha256"]


def test_what_is_not_read_is_one_sentence(folder):
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | {"quantization_config": {"quant_method": "awq"}}))
    assert "quantized by the layout 'awq'" in refused(2, "run", "-m", str(folder), "-p", "hi")
    (folder / "config.json").write_text("{")
    assert "config.json: this is not valid JSON" in refused(3, "run", "-m", str(folder), "-p", "hi")
