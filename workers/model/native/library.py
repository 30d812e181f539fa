"""The compiled library's functions and structs as ctypes sees them; kernels/interface.h is the original."""

import ctypes
from ctypes import POINTER, c_char_p, c_float, c_int32, c_int64, c_void_p
from pathlib import Path

# Outputs of a packed weight tile: `TILE_OUTPUTS` of kernels/weight_tile.h.
TILE_OUTPUTS = 32
SILU = 0
GELU_TANH = 1


class Shape(ctypes.Structure):
    """The shape of a model."""

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
    """The weights of one layer; null where it has no such part."""

    _fields_ = [
        *((name, c_void_p) for name in ("query", "key", "value", "output", "gate", "up", "down")),
        *((name, c_void_p) for name in ("query_bias", "key_bias", "value_bias", "output_bias")),
        *((name, c_void_p) for name in ("input_norm", "attention_norm", "feedforward_norm", "feedforward_out_norm")),
        *((name, c_void_p) for name in ("query_norm", "key_norm")),
        ("window", c_int32),
        ("rotary_table", c_int32),
    ]


class OuterWeights(ctypes.Structure):
    """Weights before the first layer and after the last: embedding, head, final norm, rotary tables."""

    _fields_ = [
        ("embedding", c_void_p),
        ("head", c_void_p),
        ("final_norm", c_void_p),
        ("cosines", c_void_p * 2),
        ("sines", c_void_p * 2),
    ]


# Fills in a layer of the array before it is packed.
NextLayer = ctypes.CFUNCTYPE(c_int32, c_int32)


class Limits(ctypes.Structure):
    """The sizes that a decoder allocates memory for, and who gives it the layers."""

    _fields_ = [
        ("num_threads", c_int32),
        ("num_spins", c_int32),
        ("max_batch_tokens", c_int32),
        ("num_blocks", c_int32),
        ("max_logit_rows", c_int32),
        ("next_layer", NextLayer),
    ]


class Batch(ctypes.Structure):
    """The batch of one step."""

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
    """The functions, typed. Each releases Python's lock while it runs.

    instruction_set: what the kernels compute with
    """

    def __init__(self, path: Path) -> None:
        library = ctypes.CDLL(str(path))
        self.create = library.tokenpost_create
        self.create.argtypes = [POINTER(Shape), POINTER(Layer), POINTER(OuterWeights), POINTER(Limits)]
        self.create.restype = c_void_p
        self.last_error = library.tokenpost_last_error
        self.last_error.restype = c_char_p
        library.tokenpost_instruction_set.restype = c_char_p
        self.instruction_set: str = library.tokenpost_instruction_set().decode()
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
        self.sample = library.tokenpost_sample
        self.sample.argtypes = [
            *(c_void_p, c_void_p, c_int64, c_int32, c_int32, c_char_p),
            *(c_void_p, c_void_p, c_void_p, c_int32),
        ]
        self.sample.restype = None
        self.logprobs = library.tokenpost_logprobs
        self.logprobs.argtypes = [c_void_p, c_void_p, c_int64, c_int32, c_int32, c_void_p, c_int32, c_void_p]
        self.logprobs.restype = None
