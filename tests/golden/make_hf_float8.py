"""Writes hf_float8.json: what transformers says of tiny models whose matrices are F8_E4M3 with scales, in the layouts that
model/weights/hf_quantization.cc takes, and what torch says that each of the 256 codes is.

Matrices are decoded here by the layouts' formula: value times scale in 32-bit floats, rounded to BF16; those whose blocks divide
them by transformers' own Fp8Dequantize, too. Codes and scales are made of the tensors' names, as in make_hf_models.py.

    python -m venv venv && venv/bin/pip install transformers==5.24.0 torch==2.9.1 numpy && venv/bin/python make_hf_float8.py
"""
import json
import logging
import tempfile
from pathlib import Path

import make_hf_models as models
import numpy as np
import torch
import transformers
from safetensors.torch import save_file
from transformers import AutoConfig, AutoModelForCausalLM
from transformers.integrations.finegrained_fp8 import Fp8Dequantize

MOE = {"num_local_experts": 4, "num_experts_per_tok": 2, "moe_intermediate_size": 40, "head_dim": 32, "norm_topk_prob": True}


def fp8(block=None):
    return {"quant_method": "fp8", "activation_scheme": "dynamic" if block else "static", "modules_to_not_convert": ["lm_head"],
            **({"fmt": "e4m3", "weight_block_size": block} if block else {"ignored_layers": ["lm_head"]})}


def compressed(strategy, block=None):
    weights = {"num_bits": 8, "type": "float", "strategy": strategy, "symmetric": True, "dynamic": False, "group_size": None,
               "block_structure": block, "actorder": None, "observer": "minmax", "observer_kwargs": {}}
    activations = {"num_bits": 8, "type": "float", "strategy": "token", "symmetric": True, "dynamic": True}
    return {"quant_method": "compressed-tensors", "format": "float-quantized", "quantization_status": "compressed",
            "ignore": ["lm_head"], "kv_cache_scheme": None, "global_compression_ratio": None, "sparsity_config": {},
            "config_groups": {"group_0": {"targets": ["Linear"], "weights": weights, "input_activations": activations,
                                          "output_activations": None}}}


# name: (model_type, what differs, quantization_config, ending of the scales' names, their type, block)
CASES = {
    "blocks": ("qwen3", {"head_dim": 32}, fp8([32, 48]), "_scale_inv", "F32", [32, 48]),
    "blocks-that-divide": ("llama", {}, fp8([16, 32]), "_scale_inv", "F32", [16, 32]),
    "experts": ("qwen3_moe", MOE, fp8([128, 128]), "_scale_inv", "F32", [128, 128]),
    "tensor": ("llama", {}, fp8(), "_scale", "F32", "tensor"),
    "compressed-tensor": ("mistral", {"sliding_window": 16}, compressed("tensor"), "_scale", "BF16", "tensor"),
    "compressed-channel": ("phi3", {}, compressed("channel"), "_scale", "BF16", "channel"),
    "compressed-block": ("qwen2", {}, compressed("block", [64, 32]), "_scale", "F32", [64, 32]),
}
TYPES = {"F32": torch.float32, "BF16": torch.bfloat16}


def numbers(name, count):
    seed = 0xcbf29ce484222325
    for byte in name.encode():
        seed = (seed ^ byte) * 0x100000001b3 % 2**64
    with np.errstate(over="ignore"):
        z = np.uint64(seed) + np.arange(1, count + 1, dtype=np.uint64) * np.uint64(0x9e3779b97f4a7c15)
        z = (z ^ z >> np.uint64(30)) * np.uint64(0xbf58476d1ce4e5b9)
        z = (z ^ z >> np.uint64(27)) * np.uint64(0x94d049bb133111eb)
        return z ^ z >> np.uint64(31)


def codes_of(name, shape):
    codes = (numbers(name, int(np.prod(shape))) >> np.uint64(56)).astype(np.uint8)
    codes = np.where(codes & 0x7F == 0x7F, codes ^ 1, codes)
    return torch.from_numpy(codes.reshape(shape)).view(torch.float8_e4m3fn)


def scales_of(name, shape, cols, dtype):
    uniform = (numbers(name, int(np.prod(shape))) >> np.uint64(11)).astype(np.float64) * 2.0**-52 - 1
    values = ((0.75 + 0.25 * uniform) / (150 * np.sqrt(float(cols)))).astype(np.float32)
    return torch.from_numpy(values.reshape(shape)).to(TYPES[dtype])


def decoded(codes, scales, block, check):
    rows, cols = codes.shape
    height, width = (rows, cols) if block == "tensor" else (1, cols) if block == "channel" else block
    grid = scales.float().reshape(-(-rows // height), -(-cols // width))
    out = (codes.float() * grid.repeat_interleave(height, 0)[:rows].repeat_interleave(width, 1)[:, :cols]).to(torch.bfloat16)
    if check and rows % grid.shape[0] == 0 and cols % grid.shape[1] == 0 and grid.shape[0] * height == rows:
        theirs = Fp8Dequantize(None)._dequantize_one(codes, grid, output_dtype=torch.bfloat16)
        assert torch.equal(theirs, out)
    return out


def run(model_type, changes, quantization, ending, scale_type, block):
    config = AutoConfig.for_model(model_type, **{**models.SMALL, **changes})
    config.architectures = [config.__class__.__name__.replace("Config", "ForCausalLM")]
    model = AutoModelForCausalLM.from_config(config, attn_implementation="eager").eval().float()
    text = json.loads(config.to_json_string(use_diff=True)) | {"quantization_config": quantization}
    tensors, weights = {}, {}
    for name, shape in models.files_shapes(model).items():
        if not name.endswith("_proj.weight"):
            tensors[name] = {"type": "BF16", "shape": shape}
            weights[name] = torch.from_numpy(models.weights_of(name, shape, False)).to(torch.bfloat16)
            continue
        rows, cols = shape
        grid = [1] if block == "tensor" else [rows, 1] if block == "channel" else [-(-rows // block[0]), -(-cols // block[1])]
        tensors[name] = {"type": "F8_E4M3", "shape": shape}
        tensors[name + ending] = {"type": scale_type, "shape": grid, "cols": cols}
        if block == "tensor" and "fp8" in quantization["quant_method"]:
            tensors[name.removesuffix("weight") + "input_scale"] = {"type": "F32", "shape": [1]}
        scales = scales_of(name + ending, grid, cols, scale_type)
        weights[name] = decoded(codes_of(name, shape), scales, block, model_type == "llama")
    model = filled(model, weights)
    prompt = [(7 * i * i + 3 * i + 5) % models.VOCAB for i in range(models.PROMPT_TOKENS)]
    with torch.no_grad():
        logits = model(torch.tensor([prompt]), use_cache=False).logits[0, -1]
    return {"config": text, "prompt": prompt, "tensors": tensors, "logits": [float(f"{value:.7g}") for value in logits.tolist()]}


def filled(model, weights):
    with tempfile.TemporaryDirectory() as folder:
        model.config.save_pretrained(folder)
        save_file(weights, Path(folder) / "model.safetensors", metadata={"format": "pt"})
        return AutoModelForCausalLM.from_pretrained(folder, attn_implementation="eager", dtype=torch.float32).eval()


def main():
    logging.disable(logging.WARNING)
    every = torch.arange(256, dtype=torch.int32).to(torch.uint8).view(torch.float8_e4m3fn).float().tolist()
    lines = [json.dumps("codes") + ": " + json.dumps([None if value != value else value for value in every])]
    for name, case in CASES.items():
        lines.append(json.dumps(name) + ": " + json.dumps(run(*case)))
        print(name)
    out = Path(__file__).with_name("hf_float8.json")
    out.write_text("{" + json.dumps("transformers") + ": " + json.dumps(transformers.__version__) + ",\n"
                   + ",\n".join(lines) + "\n}\n")


if __name__ == "__main__":
    main()
