#!/usr/bin/env python3
"""Writes quant_blocks.bin: random blocks of every weight format and what PyPI `gguf` 0.19.0 makes of them.

File, little-endian: u32 number of formats; for each: u32 GGUF type number, u32 bytes of blocks, u32 number of weights,
the blocks, the weights as float32.  Run: python3 tests/golden/make_quant_blocks.py  (needs: pip install gguf==0.19.0)
"""
import struct
from pathlib import Path

import numpy as np
from gguf import GGML_QUANT_SIZES, GGMLQuantizationType, quants

SEED = 20240508  # the day of arXiv 2405.05329
WEIGHTS = 2048   # of each format: 64 blocks of 32, or 8 superblocks of 256
# Byte offsets of the half-precision scales in a block: they get finite values, since NaN has many bit patterns.
HALVES = {"F16": [0], "Q4_0": [0], "Q4_1": [0, 2], "Q5_0": [0], "Q5_1": [0, 2], "Q8_0": [0], "IQ4_NL": [0],
          "Q2_K": [80, 82], "Q3_K": [108], "Q4_K": [0, 2], "Q5_K": [0, 2], "Q6_K": [208], "IQ4_XS": [0]}
TYPES = ["F32", "F16", "BF16", *list(HALVES)[1:], "MXFP4"]


def random_blocks(rng, name, count, size):
    blocks = rng.integers(0, 256, (count, size), dtype=np.uint8)
    if name == "F32":
        return rng.standard_normal(count).astype("<f4").view(np.uint8).reshape(count, 4)
    if name == "BF16":
        halves = np.ascontiguousarray(rng.standard_normal(count).astype("<f4").view("<u2")[1::2])
        return halves.view(np.uint8).reshape(count, 2)
    if name == "MXFP4":  # its scale is a byte, a power of two; from 253 on the weights leave float32
        blocks[:, 0] = rng.integers(0, 253, count)
        blocks[:2, 0] = 0, 1
        return blocks
    for offset in HALVES[name]:
        scale = (rng.standard_normal(count) * 10.0 ** rng.integers(-7, 4, count)).astype("<f2")  # subnormals included
        scale[0] = -0.0
        blocks[:, offset:offset + 2] = scale.view(np.uint8).reshape(count, 2)
    return blocks


def main():
    rng = np.random.default_rng(SEED)
    with open(Path(__file__).parent / "quant_blocks.bin", "wb") as out:
        out.write(struct.pack("<I", len(TYPES)))
        for name in TYPES:
            qtype = GGMLQuantizationType[name]
            block_len, block_bytes = GGML_QUANT_SIZES[qtype]
            blocks = random_blocks(rng, name, WEIGHTS // block_len, block_bytes)
            weights = quants.dequantize(blocks, qtype).astype("<f4").reshape(-1)
            assert weights.size == WEIGHTS and np.isfinite(weights).all(), name
            out.write(struct.pack("<III", qtype.value, blocks.size, weights.size))
            out.write(blocks.tobytes())
            out.write(weights.tobytes())


main()
