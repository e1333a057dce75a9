"""Writes hf_models.json: what transformers says of tiny models of each model_type that model/weights/hf_config.cc takes.

Each case is a config.json, the names and shapes of the model's tensors, and the logits behind its prompt. The weights are no part
of it: weight i of a tensor is made from its name (weights_of, and tests/support/hf_folder_builder.h), so that the test
writes the same files again. Computed in 32-bit floats with eager attention.

    python -m venv venv && venv/bin/pip install transformers==5.24.0 torch==2.9.1 numpy && venv/bin/python make_hf_models.py
"""
import json
import logging
import tempfile
from pathlib import Path

import numpy as np
import torch
import transformers
from safetensors import safe_open
from safetensors.torch import save_file
from transformers import AutoConfig, AutoModelForCausalLM

VOCAB = 61
PROMPT_TOKENS = 48  # beyond every window
SMALL = {"vocab_size": VOCAB, "hidden_size": 64, "intermediate_size": 96, "num_hidden_layers": 2, "num_attention_heads": 4,
         "num_key_value_heads": 2, "max_position_embeddings": 128, "bos_token_id": None, "eos_token_id": None,
         "pad_token_id": None}
LLAMA3 = {"rope_type": "llama3", "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0,
          "original_max_position_embeddings": 32}
YARN = {"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 32}
# name: (model_type, what differs from SMALL, type of the weights)
CASES = {
    "llama": ("llama", {}, "F32"),
    "llama-bf16": ("llama", {"tie_word_embeddings": True}, "BF16"),
    "llama-f16": ("llama", {"attention_bias": True}, "F16"),
    "llama31": ("llama", {"rope_parameters": {"rope_theta": 500000.0, **LLAMA3}}, "F32"),
    "llama-linear": ("llama", {"rope_parameters": {"rope_theta": 10000.0, "rope_type": "linear", "factor": 2.5}}, "F32"),
    "llama-head-dim": ("llama", {"head_dim": 24}, "F32"),
    "mistral": ("mistral", {"sliding_window": 16}, "F32"),
    "mixtral": ("mixtral", {"num_local_experts": 4, "num_experts_per_tok": 2}, "F32"),
    "mixtral-window": ("mixtral", {"num_local_experts": 3, "num_experts_per_tok": 1, "sliding_window": 16}, "BF16"),
    "qwen2": ("qwen2", {}, "F32"),
    "qwen2-yarn": ("qwen2", {"rope_parameters": {"rope_theta": 1000000.0, **YARN}}, "F32"),
    "qwen3": ("qwen3", {"head_dim": 32, "tie_word_embeddings": True}, "F32"),
    "qwen3-moe": ("qwen3_moe", {"num_local_experts": 12, "num_experts_per_tok": 3, "moe_intermediate_size": 40, "head_dim": 32,
                                "norm_topk_prob": True}, "F32"),
    "gemma": ("gemma", {"head_dim": 32}, "F32"),
    "gemma2": ("gemma2", {"head_dim": 32, "query_pre_attn_scalar": 32, "sliding_window": 16, "num_hidden_layers": 3,
                          "attn_logit_softcapping": 2.0, "final_logit_softcapping": 3.0}, "F32"),
    "gemma2-no-caps": ("gemma2", {"head_dim": 32, "query_pre_attn_scalar": 32, "sliding_window": 16,
                                  "attn_logit_softcapping": None, "final_logit_softcapping": None}, "F32"),
    "gemma3": ("gemma3_text", {"head_dim": 32, "query_pre_attn_scalar": 32, "sliding_window": 16, "num_hidden_layers": 7,
                               "rope_parameters": {
                                   "full_attention": {"rope_theta": 1000000.0, "rope_type": "linear", "factor": 8.0},
                                   "sliding_attention": {"rope_theta": 10000.0, "rope_type": "default"}}}, "F32"),
    "falcon-7b": ("falcon", {"multi_query": True, "new_decoder_architecture": False, "parallel_attn": True, "alibi": False},
                  "F32"),
    "falcon-40b": ("falcon", {"num_kv_heads": 2, "new_decoder_architecture": True, "alibi": False}, "F32"),
    "falcon-11b": ("falcon", {"num_kv_heads": 2, "new_decoder_architecture": True, "num_ln_in_parallel_attn": 1,
                              "alibi": False, "ffn_hidden_size": 160}, "F32"),
    "phi3": ("phi3", {}, "F32"),
    "phi3-window": ("phi3", {"sliding_window": 48}, "F32"),
    "phi4-mini": ("phi3", {"original_max_position_embeddings": 16, "rope_parameters": {
        "rope_theta": 10000.0, "rope_type": "longrope", "partial_rotary_factor": 0.75,
        "original_max_position_embeddings": 16,
        "short_factor": [1.0, 1.1, 1.2, 1.3, 1.4, 1.5], "long_factor": [1.0, 1.5, 2.0, 3.0, 5.0, 9.0]}}, "F32"),
    "smollm3": ("smollm3", {"num_hidden_layers": 5}, "F32"),
    "granite": ("granite", {"embedding_multiplier": 6.0, "residual_multiplier": 0.4, "attention_multiplier": 0.11,
                            "logits_scaling": 3.0}, "F32"),
    "olmo2": ("olmo2", {}, "F32"),
    "olmo3": ("olmo3", {"num_hidden_layers": 5, "sliding_window": 16, "rope_parameters": {
        "full_attention": {"rope_theta": 500000.0, "attention_factor": 1.2, **YARN},
        "sliding_attention": {"rope_theta": 500000.0, "rope_type": "default"}}}, "F32"),
    "stablelm": ("stablelm", {"use_qkv_bias": True}, "F32"),
    "stablelm-12b": ("stablelm", {"qk_layernorm": True, "use_parallel_residual": True, "hidden_size": 128}, "F32"),
    "starcoder2": ("starcoder2", {}, "F32"),
    "starcoder2-window": ("starcoder2", {"sliding_window": 16}, "F32"),
}


def weights_of(name, shape, gains_from_zero):
    """A uniform number for each weight: splitmix64 of its index and FNV-1a of the name."""
    seed = 0xcbf29ce484222325
    for byte in name.encode():
        seed = (seed ^ byte) * 0x100000001b3 % 2**64
    with np.errstate(over="ignore"):
        z = np.uint64(seed) + np.arange(1, int(np.prod(shape)) + 1, dtype=np.uint64) * np.uint64(0x9e3779b97f4a7c15)
        z = (z ^ z >> np.uint64(30)) * np.uint64(0xbf58476d1ce4e5b9)
        z = (z ^ z >> np.uint64(27)) * np.uint64(0x94d049bb133111eb)
        z = z ^ z >> np.uint64(31)
    uniform = (z >> np.uint64(11)).astype(np.float64) * 2.0**-52 - 1
    if len(shape) > 1:
        values = uniform * np.sqrt(3 / shape[1])
    elif name.endswith("bias"):
        values = uniform * 0.3
    else:
        values = uniform * 0.4 + (0 if gains_from_zero else 1)
    return values.astype(np.float32).reshape(shape)


def files_shapes(model):
    """Of the tensors as they are written, which are not always those in memory: experts lie one by one in a file."""
    with tempfile.TemporaryDirectory() as folder:
        model.save_pretrained(folder)
        with safe_open(Path(folder) / "model.safetensors", "pt") as file:
            shapes = {name: list(file.get_slice(name).get_shape()) for name in file.keys()}
    # In the order of the model, so that a new version's order of writing changes nothing.
    order = {name: i for i, name in enumerate(model.state_dict())}
    return {name: shapes[name] for name in sorted(shapes, key=lambda name: (order.get(name, len(order)), name))}


def filled(model, shapes, dtype):
    """The model as transformers reads it from a folder of these weights."""
    rounded = {"F32": torch.float32, "F16": torch.float16, "BF16": torch.bfloat16}[dtype]
    zero = model.config.model_type.startswith("gemma")
    with tempfile.TemporaryDirectory() as folder:
        model.config.save_pretrained(folder)
        save_file({name: torch.from_numpy(weights_of(name, shape, zero)).to(rounded) for name, shape in shapes.items()},
                  Path(folder) / "model.safetensors", metadata={"format": "pt"})
        model, report = AutoModelForCausalLM.from_pretrained(folder, attn_implementation="eager", dtype=torch.float32,
                                                             output_loading_info=True)
    assert not any(report[kind] for kind in ("missing_keys", "unexpected_keys", "mismatched_keys")), report
    return model.eval()


def run(model_type, changes, dtype):
    values = {**SMALL, **changes}
    if model_type == "falcon":
        del values["intermediate_size"], values["num_key_value_heads"]
    config = AutoConfig.for_model(model_type, **values)
    config.architectures = [config.__class__.__name__.replace("Text", "").replace("Config", "ForCausalLM")]
    model = AutoModelForCausalLM.from_config(config, attn_implementation="eager").eval().float()
    text = json.loads(config.to_json_string(use_diff=True))
    shapes = files_shapes(model)
    model = filled(model, shapes, dtype)
    with torch.no_grad():
        prompt = [(7 * i * i + 3 * i + 5) % VOCAB for i in range(PROMPT_TOKENS)]
        logits = model(torch.tensor([prompt]), use_cache=False).logits[0, -1]
    return {"config": text, "type": dtype, "prompt": prompt, "tensors": shapes,
            "logits": [float(f"{value:.7g}") for value in logits.tolist()]}


def main():
    logging.disable(logging.WARNING)
    torch.manual_seed(0)
    lines = []
    for name, case in CASES.items():
        lines.append(json.dumps(name) + ": " + json.dumps(run(*case)))
        print(name)
    out = Path(__file__).with_name("hf_models.json")
    out.write_text("{" + json.dumps("transformers") + ": " + json.dumps(transformers.__version__) + ",\n"
                   + ",\n".join(lines) + "\n}\n")


if __name__ == "__main__":
    main()
