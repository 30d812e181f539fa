"""What a GGUF file says of its model, in the words of config.json."""

from pathlib import Path

from storage.errors import ModelUnsupported
from workers.model.gguf.header import GgufHeader
from workers.model.gguf.rotary import rope_parameters_of
from workers.model.gguf.supported import MODEL_TYPE_BY_ARCHITECTURE

# The largest Gemmas, known by their layers, scale attention by the width of a head that their shape would give.
# Source: https://github.com/ggml-org/llama.cpp/blob/master/src/llama-model.cpp (`f_attention_scale`)
_LARGE_GEMMA_LAYERS = {"gemma2": 46, "gemma3": 62}
_GEMMA3_LOCAL_BASE = 10000.0


# Entries that have a key of their own below the architecture's prefix.
_KEY_BY_ENTRY = {
    "max_position_embeddings": "context_length",
    "hidden_size": "embedding_length",
    "intermediate_size": "feed_forward_length",
    "num_hidden_layers": "block_count",
    "num_attention_heads": "attention.head_count",
    "rms_norm_eps": "attention.layer_norm_rms_epsilon",
}
_TOKEN_IDS = {
    "bos_token_id": "tokenizer.ggml.bos_token_id",
    "eos_token_id": "tokenizer.ggml.eos_token_id",
    "pad_token_id": "tokenizer.ggml.padding_token_id",
}


def configuration_entries(path: Path, header: GgufHeader) -> dict[str, object]:
    """The configuration of the file's model, every number from the file and none a default of transformers.

    header: found to be supported

    Raises ModelUnsupported for what transformers' model could not do.
    """
    entries: dict[str, object] = {"model_type": MODEL_TYPE_BY_ARCHITECTURE[header.architecture]}
    entries |= {entry: header.of_architecture(key) for entry, key in _KEY_BY_ENTRY.items()}
    entries |= {entry: header.whole_number(key) for entry, key in _TOKEN_IDS.items()}
    entries["num_key_value_heads"] = _optional(header, "attention.head_count_kv") or entries["num_attention_heads"]
    entries["tie_word_embeddings"] = "output.weight" not in header.tensors
    return entries | _shape(path, header) | _parts(header)


def _shape(path: Path, header: GgufHeader) -> dict[str, object]:
    """Sizes of embeddings and heads, and rotary embeddings."""
    hidden_size, num_heads = _whole(header, "embedding_length"), _whole(header, "attention.head_count")
    head_dim = _optional(header, "attention.key_length") or hidden_size // num_heads
    rotary_dim = _optional(header, "rope.dimension_count") or head_dim
    if (_optional(header, "attention.value_length") or head_dim) != head_dim:
        raise ModelUnsupported(f"{path} has keys and values of different widths, which is not supported")
    is_partial = rotary_dim != head_dim
    if is_partial and header.architecture != "phi3":
        raise ModelUnsupported(f"{path} rotates {rotary_dim} of {head_dim} numbers of a head, which is not supported")
    if head_dim * num_heads != hidden_size and header.architecture in ("qwen2", "phi3"):
        raise ModelUnsupported(f"{path} has heads of {head_dim} numbers, which do not divide its {hidden_size}")
    rope = rope_parameters_of(path, header, rotary_dim)
    shape: dict[str, object] = {
        "vocab_size": header.tensors["token_embd.weight"].shape[0],
        "head_dim": head_dim,
        "rope_parameters": rope,
    }
    if header.architecture == "gemma3":
        local = header.of_architecture("rope.freq_base_swa")
        base = float(local) if isinstance(local, int | float) else _GEMMA3_LOCAL_BASE
        shape["rope_parameters"] = {
            "full_attention": rope,
            "sliding_attention": {"rope_type": "default", "rope_theta": base},
        }
    if header.architecture == "phi3":
        shape["rope_parameters"] = rope | {"partial_rotary_factor": rotary_dim / head_dim}
        if "original_max_position_embeddings" in rope:
            shape["original_max_position_embeddings"] = rope["original_max_position_embeddings"]
    return shape


def _parts(header: GgufHeader) -> dict[str, object]:
    """Windows, biases, soft caps and attention scales."""
    architecture = header.architecture
    parts: dict[str, object] = {}
    window = _optional(header, "attention.sliding_window")
    if window and architecture == "llama":
        # llama.cpp has one name for both; only Mistral's has windows.
        parts |= {"model_type": "mistral", "sliding_window": window}
    elif window and architecture in ("phi3", "gemma2", "gemma3"):
        parts |= {"sliding_window": window}
    if "blk.0.attn_q.bias" in header.tensors and architecture in ("llama", "qwen3"):
        parts |= {"attention_bias": True}
    if "blk.0.ffn_up.bias" in header.tensors and architecture == "llama":
        parts |= {"mlp_bias": True}
    if architecture in _LARGE_GEMMA_LAYERS:
        parts |= _gemma(header)
    return parts


def _gemma(header: GgufHeader) -> dict[str, object]:
    hidden_size, num_heads = _whole(header, "embedding_length"), _whole(header, "attention.head_count")
    is_large = _whole(header, "block_count") == _LARGE_GEMMA_LAYERS[header.architecture]
    head_dim = _optional(header, "attention.key_length") or hidden_size // num_heads
    parts: dict[str, object] = {"query_pre_attn_scalar": hidden_size // num_heads if is_large else head_dim}
    pattern = header.of_architecture("attention.sliding_window_pattern")
    if isinstance(pattern, list):
        parts["layer_types"] = ["sliding_attention" if is_local else "full_attention" for is_local in pattern]
    elif isinstance(pattern, int):
        parts["sliding_window_pattern"] = pattern
    for key, name in (
        ("attn_logit_softcapping", "attn_logit_softcapping"),
        ("final_logit_softcapping", "final_logit_softcapping"),
    ):
        value = header.of_architecture(key)
        if isinstance(value, int | float):
            parts[name] = float(value)
    return parts


def _whole(header: GgufHeader, key: str) -> int:
    value = header.of_architecture(key)
    assert isinstance(value, int), "checked by check_supported"
    return value


def _optional(header: GgufHeader, key: str) -> int | None:
    value = header.of_architecture(key)
    return value if isinstance(value, int) else None
