"""The compiled library's functions and structs as ctypes sees them; kernels/model.h is the original."""

import ctypes
from ctypes import POINTER, c_char_p, c_float, c_int32, c_int64, c_void_p
from pathlib import Path

# Outputs that lie side by side: `PANEL` of kernels/matmul.h.
PANEL = 32
SILU = 0
GELU_TANH = 1


class Shape(ctypes.Structure):
    """A model's measures."""

    _fields_ = [
        ("num_layers", c_int32),
        ("hidden_size", c_int32),
        ("intermediate_size", c_int32),
        ("num_heads", c_int32),
        ("num_kv_heads", c_int32),
        ("head_dim", c_int32),
        ("rotary_dim", c_int32),
        ("vocab_size", c_int32),
        ("max_len", c_int32),
        ("activation", c_int32),
        ("is_bf16", c_int32),
        ("norm_epsilon", c_float),
        ("attention_scale", c_float),
        ("embedding_scale", c_float),
        ("attention_softcap", c_float),
        ("logit_softcap", c_float),
    ]


class Layer(ctypes.Structure):
    """One layer's weights; null pointers are parts that it lacks."""

    _fields_ = [
        *((name, c_void_p) for name in ("query", "key", "value", "output", "gate", "up", "down")),
        *((name, c_void_p) for name in ("query_bias", "key_bias", "value_bias", "output_bias")),
        *((name, c_void_p) for name in ("input_norm", "attention_norm", "feedforward_norm", "feedforward_out_norm")),
        *((name, c_void_p) for name in ("query_norm", "key_norm")),
        ("window", c_int32),
        ("rotary_table", c_int32),
    ]


class Ends(ctypes.Structure):
    """What comes before the first layer and after the last."""

    _fields_ = [
        ("embedding", c_void_p),
        ("head", c_void_p),
        ("final_norm", c_void_p),
        ("cosines", c_void_p * 2),
        ("sines", c_void_p * 2),
    ]


class Limits(ctypes.Structure):
    """What a decoder is made for."""

    _fields_ = [
        ("num_threads", c_int32),
        ("num_spins", c_int32),
        ("max_batch_tokens", c_int32),
        ("num_blocks", c_int32),
        ("max_logit_rows", c_int32),
    ]


class Batch(ctypes.Structure):
    """One step."""

    _fields_ = [
        ("num_tokens", c_int32),
        ("num_sequences", c_int32),
        ("token_ids", c_void_p),
        ("positions", c_void_p),
        ("begins", c_void_p),
        ("ends", c_void_p),
        ("tables", c_void_p),
    ]


class Library:
    """The functions, typed. Each releases Python's lock while it runs."""

    def __init__(self, path: Path) -> None:
        library = ctypes.CDLL(str(path))
        self.make = library.tokenpost_make
        self.make.argtypes = [POINTER(Shape), POINTER(Layer), POINTER(Ends), POINTER(Limits)]
        self.make.restype = c_void_p
        self.complaint = library.tokenpost_complaint
        self.complaint.restype = c_char_p
        self.free = library.tokenpost_free
        self.free.argtypes = [c_void_p]
        self.step = library.tokenpost_step
        self.step.argtypes = [c_void_p, POINTER(Batch)]
        self.head = library.tokenpost_head
        self.head.argtypes = [c_void_p, c_int32, c_void_p, c_void_p, c_void_p]
        self.logits = library.tokenpost_logits
        self.logits.argtypes = [c_void_p]
        self.logits.restype = c_void_p
        self.logit_stride = library.tokenpost_logit_stride
        self.logit_stride.argtypes = [c_void_p]
        self.memory = library.tokenpost_memory
        self.memory.argtypes = [c_void_p, POINTER(c_int64), POINTER(c_int64)]
        self.clear = library.tokenpost_clear
        self.clear.argtypes = [c_void_p, c_int32, c_void_p]
        self.reset = library.tokenpost_reset
        self.reset.argtypes = [c_void_p]
        self.draw = library.tokenpost_draw
        self.draw.argtypes = [
            *(c_void_p, c_void_p, c_int64, c_int32, c_int32, c_char_p),
            *(c_void_p, c_void_p, c_void_p, c_int32),
        ]
        self.draw.restype = None
        self.rank = library.tokenpost_rank
        self.rank.argtypes = [c_void_p, c_void_p, c_int64, c_int32, c_int32, c_void_p, c_int32, c_void_p]
        self.rank.restype = None
