"""Tiny models written as GGUF files, as llama.cpp's converter writes real ones."""

import json
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import gguf
import numpy as np
import torch
from gguf.constants import GGMLQuantizationType, TokenType
from numpy.typing import NDArray
from transformers import AutoModelForCausalLM, PreTrainedConfig, PreTrainedModel, PreTrainedTokenizerFast

from tests.model.tiny import make_tiny

ARCHITECTURE_BY_MODEL_TYPE = {"gemma3_text": "gemma3", "mistral": "llama"}
Change = Callable[[gguf.GGUFWriter], None]
# Where blocks of these formats have their scales, and scales that make weights of about 0.1.
_SCALE_BYTES = {GGMLQuantizationType.Q4_K: {0: 4e-4, 2: 3e-3}, GGMLQuantizationType.Q6_K: {208: 1e-4}}


def write_gguf(
    folder: Path,
    path: Path,
    *,
    quantization: GGMLQuantizationType = GGMLQuantizationType.F32,
    pre: str | None = "gpt-2",
    change: Change | None = None,
) -> Path:
    """The model of a folder as a GGUF file.

    quantization: of the matrices of layers
    pre:          name of the pre-tokenizer
    change:       called before the file is written, to add what a test wants
    """
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
    architecture = ARCHITECTURE_BY_MODEL_TYPE.get(model.config.model_type, model.config.model_type)
    writer = gguf.GGUFWriter(path, architecture)
    write_configuration(writer, model.config)
    _write_tokenizer(writer, folder, model.config.vocab_size, pre)
    write_tensors(writer, model, architecture, quantization)
    if change is not None:
        change(writer)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


def make_gguf(folder: Path, model_type: str = "llama", *, change: Change | None = None, **config: object) -> Path:
    """A tiny model of the architecture as `model.gguf`, beside the folder of the original, `original`."""
    # GGUF has no name for a head of Gemma 2.
    known = {"tie_word_embeddings": model_type.startswith("gemma")} | config
    return write_gguf(make_tiny(folder / "original", model_type, **known), folder / "model.gguf", change=change)


def write_configuration(writer: gguf.GGUFWriter, config: PreTrainedConfig) -> None:
    """Sizes, and what only some architectures have."""
    rope = config.rope_parameters.get("full_attention", config.rope_parameters)
    writer.add_name("A tiny model")
    writer.add_license("apache-2.0")
    writer.add_context_length(config.max_position_embeddings)
    writer.add_embedding_length(config.hidden_size)
    writer.add_block_count(config.num_hidden_layers)
    writer.add_feed_forward_length(config.intermediate_size)
    writer.add_head_count(config.num_attention_heads)
    writer.add_head_count_kv(config.num_key_value_heads)
    writer.add_layer_norm_rms_eps(config.rms_norm_eps)
    head_dim = getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
    if head_dim * config.num_attention_heads != config.hidden_size or config.model_type.startswith(("gemma", "qwen3")):
        writer.add_key_length(head_dim)
        writer.add_value_length(head_dim)
    if config.model_type in ("llama", "mistral", "phi3"):
        writer.add_rope_dimension_count(int(head_dim * rope.get("partial_rotary_factor", 1.0)))
    writer.add_rope_freq_base(rope["rope_theta"])
    if rope["rope_type"] in ("linear", "yarn"):
        writer.add_rope_scaling_type(gguf.RopeScalingType(rope["rope_type"]))
        writer.add_rope_scaling_factor(rope["factor"])
        if rope["rope_type"] == "yarn":
            writer.add_rope_scaling_orig_ctx_len(rope["original_max_position_embeddings"])
    if rope["rope_type"] == "llama3":
        inverse = 1.0 / rope["rope_theta"] ** (np.arange(0, head_dim, 2) / head_dim)
        wavelengths = 2 * np.pi / inverse
        low, high, length = rope["low_freq_factor"], rope["high_freq_factor"], rope["original_max_position_embeddings"]
        smooth = np.clip((length / wavelengths - low) / (high - low), 0.0, 1.0)
        factors = 1.0 / ((1.0 - smooth) / rope["factor"] + smooth)
        writer.add_tensor("rope_freqs.weight", factors.astype(np.float32))
    if config.model_type in ("mistral", "phi3", "gemma2", "gemma3_text") and config.sliding_window:
        writer.add_sliding_window(config.sliding_window)
    if config.model_type == "gemma2":
        writer.add_attn_logit_softcapping(config.attn_logit_softcapping)
        writer.add_final_logit_softcapping(config.final_logit_softcapping)


def write_tensors(
    writer: gguf.GGUFWriter, model: PreTrainedModel, architecture: str, quantization: GGMLQuantizationType
) -> None:
    """Weights under llama.cpp's names: rows of llama's heads interleaved, Gemma's norms counted from one."""
    kind = next(kind for kind, name in gguf.MODEL_ARCH_NAMES.items() if name == architecture)
    names = gguf.get_tensor_name_map(kind, model.config.num_hidden_layers)
    for name, parameter in model.named_parameters():
        values = parameter.detach().numpy()
        written = names.get_name(name, try_suffixes=(".weight", ".bias"))
        assert written is not None, name
        if architecture == "llama" and name.endswith(("q_proj.weight", "k_proj.weight", "q_proj.bias", "k_proj.bias")):
            config = model.config
            heads = config.num_attention_heads if "q_proj" in name else config.num_key_value_heads
            values = values.reshape(heads, 2, values.shape[0] // heads // 2, *values.shape[1:])
            values = values.swapaxes(1, 2).reshape(parameter.shape)
        if architecture.startswith("gemma") and name.endswith("norm.weight"):
            values = values + 1.0
        is_matrix = values.ndim == 2 and written.startswith("blk.")
        used = quantization if is_matrix else GGMLQuantizationType.F32
        writer.add_tensor(written, _stored(np.ascontiguousarray(values), used, written), raw_dtype=used)


def _stored(values: NDArray[np.float32], used: GGMLQuantizationType, name: str) -> NDArray[Any]:
    """The numbers as the file has them; of formats that `gguf` does not write, other numbers of about that size."""
    if used not in _SCALE_BYTES:
        return gguf.quantize(values, used)
    block_size, block_bytes = gguf.GGML_QUANT_SIZES[used]
    blocks = np.random.default_rng(zlib.crc32(name.encode())).integers(
        0, 256, (values.size // block_size, block_bytes), dtype=np.uint8
    )
    for place, scale in _SCALE_BYTES[used].items():
        blocks[:, place : place + 2] = np.array([scale], np.float16).view(np.uint8)
    return blocks.reshape(values.shape[0], -1)


def _write_tokenizer(writer: gguf.GGUFWriter, folder: Path, num_ids: int, pre: str | None) -> None:
    tokenizer = PreTrainedTokenizerFast.from_pretrained(folder)
    content = json.loads(tokenizer.backend_tokenizer.to_str())
    write_vocabulary(writer, content, num_ids)
    writer.add_tokenizer_model("gpt2")
    if pre is not None:
        writer.add_tokenizer_pre(pre)
    writer.add_token_merges([" ".join(merge) for merge in content["model"]["merges"]])
    for name, token in (("bos", tokenizer.bos_token_id), ("eos", tokenizer.eos_token_id), ("unk", 0)):
        getattr(writer, f"add_{name}_token_id")(token)
    writer.add_chat_template(tokenizer.chat_template)


def write_vocabulary(writer: gguf.GGUFWriter, content: dict, num_ids: int) -> None:  # type: ignore[type-arg]  # JSON
    """Tokens of a tokenizer.json and their types; ids of the model that have none are unused."""
    token_by_id = {token_id: token for token, token_id in content["model"]["vocab"].items()}
    added = {token["id"]: token for token in content["added_tokens"]}
    tokens, kinds = [], []
    for token_id in range(num_ids):
        if token_id in added:
            tokens.append(added[token_id]["content"])
            kinds.append(TokenType.CONTROL if added[token_id]["special"] else TokenType.USER_DEFINED)
        else:
            tokens.append(token_by_id.get(token_id, f"[PAD{token_id}]"))
            kinds.append(TokenType.NORMAL if token_id in token_by_id else TokenType.UNUSED)
    writer.add_token_list(tokens)
    writer.add_token_types(kinds)
