"""The real llama.cpp, asked through its C functions: PyPI's xllamacpp is one shared object that exports them all.

The structures are those of llama.h as of build 11549, as far as they are written here; `Engine` checks that the library's
defaults stand where they should.
"""
import ctypes
import importlib.util
from pathlib import Path

import numpy as np

F32, F16 = 0, 1  # ggml's types


class ModelParams(ctypes.Structure):
    _fields_ = [("devices", ctypes.c_void_p), ("overrides", ctypes.c_void_p), ("gpu_layers", ctypes.c_int32),
                ("split_mode", ctypes.c_int32), ("load_mode", ctypes.c_int32), ("lazy_mode", ctypes.c_int32),
                ("main_gpu", ctypes.c_int32), ("tensor_split", ctypes.c_void_p), ("progress", ctypes.c_void_p),
                ("progress_data", ctypes.c_void_p), ("kv_overrides", ctypes.c_void_p), ("vocab_only", ctypes.c_bool),
                ("others", ctypes.c_bool * 31)]


class ContextParams(ctypes.Structure):
    _fields_ = [("n_ctx", ctypes.c_uint32), ("n_batch", ctypes.c_uint32), ("n_ubatch", ctypes.c_uint32),
                ("n_seq_max", ctypes.c_uint32), ("n_rs_seq", ctypes.c_uint32), ("n_outputs_max", ctypes.c_uint32),
                ("n_outputs_max_per_seq", ctypes.c_uint32), ("n_threads", ctypes.c_int32), ("n_threads_batch", ctypes.c_int32),
                ("ctx_type", ctypes.c_int32), ("rope_scaling_type", ctypes.c_int32), ("pooling_type", ctypes.c_int32),
                ("attention_type", ctypes.c_int32), ("flash_attn_type", ctypes.c_int32), ("rope_freq_base", ctypes.c_float),
                ("rope_freq_scale", ctypes.c_float), ("yarn", ctypes.c_float * 4), ("yarn_orig_ctx", ctypes.c_uint32),
                ("defrag_thold", ctypes.c_float), ("cb_eval", ctypes.c_void_p), ("cb_eval_user_data", ctypes.c_void_p),
                ("type_k", ctypes.c_int32), ("type_v", ctypes.c_int32), ("others", ctypes.c_uint8 * 192)]


class Batch(ctypes.Structure):
    _fields_ = [("n_tokens", ctypes.c_int32), ("others", ctypes.c_void_p * 6)]


def library():
    spec = importlib.util.find_spec("xllamacpp")
    return ctypes.CDLL(str(next(Path(spec.submodule_search_locations[0]).glob("*.so"))))


class Engine:
    """One model file with 32-bit K/V, no flash attention, two threads."""

    def __init__(self, path, context=1024):
        self.lib = lib = library()
        lib.llama_model_default_params.restype = ModelParams
        lib.llama_context_default_params.restype = ContextParams
        lib.llama_model_load_from_file.argtypes = [ctypes.c_char_p, ModelParams]
        lib.llama_init_from_model.argtypes = [ctypes.c_void_p, ContextParams]
        lib.llama_batch_get_one.restype = Batch
        lib.llama_decode.argtypes = [ctypes.c_void_p, Batch]
        lib.llama_get_logits_ith.restype = ctypes.POINTER(ctypes.c_float)
        for name in ("llama_model_load_from_file", "llama_init_from_model", "llama_model_get_vocab"):
            getattr(lib, name).restype = ctypes.c_void_p
        self.log = []
        self.callback = ctypes.CFUNCTYPE(None, ctypes.c_int, ctypes.c_char_p, ctypes.c_void_p)(
            lambda level, text, data: self.log.append(text))
        lib.llama_log_set(self.callback, None)
        self.model = ctypes.c_void_p(lib.llama_model_load_from_file(str(path).encode(), lib.llama_model_default_params()))
        if not self.model:
            raise ValueError(b"".join(self.log[-6:]).decode())
        params = lib.llama_context_default_params()
        assert (params.type_k, params.type_v, params.n_seq_max) == (F16, F16, 1), "another llama.h than the one written here"
        params.n_ctx, params.n_batch, params.n_ubatch = context, context, context
        params.n_threads = params.n_threads_batch = 2
        params.type_k = params.type_v = F32
        params.flash_attn_type = 0
        self.context = ctypes.c_void_p(lib.llama_init_from_model(self.model, params))
        if not self.context:
            raise ValueError(b"".join(self.log[-6:]).decode())
        self.vocab_size = lib.llama_vocab_n_tokens(ctypes.c_void_p(lib.llama_model_get_vocab(self.model)))

    def logits(self, tokens):
        """Behind these tokens, which come behind those of earlier calls."""
        ids = (ctypes.c_int32 * len(tokens))(*tokens)
        failed = self.lib.llama_decode(self.context, self.lib.llama_batch_get_one(ids, len(tokens)))
        assert failed == 0, b"".join(self.log[-6:]).decode()
        return np.ctypeslib.as_array(self.lib.llama_get_logits_ith(self.context, -1), (self.vocab_size,)).astype(np.float64)

    def close(self):
        self.lib.llama_free(self.context)
        self.lib.llama_model_free(self.model)


def log_probabilities(logits):
    shifted = logits - logits.max()
    return shifted - np.log(np.exp(shifted).sum())
