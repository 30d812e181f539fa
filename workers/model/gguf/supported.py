"""Which GGUF files are converted; every other one is refused with the reason."""

import re
from pathlib import Path

from gguf.constants import GGMLQuantizationType

from storage.errors import ModelUnsupported
from workers.model.gguf.header import GgufHeader
from workers.model.gguf.split_patterns import RULE_BY_NAME

# Architectures whose conversion tests compare with the original model, and their names in transformers.
MODEL_TYPE_BY_ARCHITECTURE = {
    "llama": "llama",
    "qwen2": "qwen2",
    "qwen3": "qwen3",
    "gemma2": "gemma2",
    "gemma3": "gemma3_text",
    "phi3": "phi3",
}
# Kinds of tokenizers, as `tokenizer.ggml.model` has them.
BYTE_LEVEL = "gpt2"
SENTENCE_PIECE = "llama"
# Keys below the architecture's prefix that the conversion takes into account, or that change nothing.
_KNOWN_KEYS = frozenset(
    {
        "attention.head_count",
        "attention.head_count_kv",
        "attention.key_length",
        "attention.layer_norm_rms_epsilon",
        "attention.sliding_window",
        "attention.sliding_window_pattern",
        "attention.value_length",
        "attn_logit_softcapping",
        "block_count",
        "context_length",
        "embedding_length",
        "feed_forward_length",
        "final_logit_softcapping",
        "rope.dimension_count",
        "rope.freq_base",
        "rope.freq_base_swa",
        "rope.scaling.attn_factor",
        "rope.scaling.factor",
        "rope.scaling.finetuned",
        "rope.scaling.original_context_length",
        "rope.scaling.type",
        "rope.scaling.yarn_attn_factor",
        "rope.scaling.yarn_beta_fast",
        "rope.scaling.yarn_beta_slow",
        "vocab_size",
    }
)
# Of every layer alike: a list would mean that layers differ.
_NUMBERS = (
    "attention.head_count",
    "attention.layer_norm_rms_epsilon",
    "block_count",
    "context_length",
    "embedding_length",
    "feed_forward_length",
)
# Written by files with experts, and without meaning where there are none.
_EXPERT_KEYS = ("expert_count", "expert_used_count")
# Tensors that are read into the configuration.
ROPE_TENSORS = frozenset({"rope_freqs.weight", "rope_factors_long.weight", "rope_factors_short.weight"})
_PART = re.compile(r"(?P<stem>.*)-(?P<number>\d{5})-of-(?P<count>\d{5})\.gguf")
_KINDS = {"adapter": "an adapter", "mmproj": "a vision projector", "imatrix": "an importance matrix"}
# Formats that hold numbers of no weight.
_NO_WEIGHTS = frozenset(
    {
        GGMLQuantizationType.I8,
        GGMLQuantizationType.I16,
        GGMLQuantizationType.I32,
        GGMLQuantizationType.I64,
        GGMLQuantizationType.F64,
        GGMLQuantizationType.Q8_1,
        GGMLQuantizationType.Q8_K,
    }
)


def check_supported(path: Path, header: GgufHeader) -> None:
    """Raises ModelUnsupported for a file that would be converted wrongly, or not at all."""
    _check_parts(path, header)
    kind = header.text("general.type") or "model"
    if kind != "model" or header.architecture == "clip":
        raise ModelUnsupported(f"{path} is {_KINDS.get(kind, 'a vision projector')}: give the file of the model itself")
    if header.architecture not in MODEL_TYPE_BY_ARCHITECTURE:
        raise ModelUnsupported(
            f"{path} is of the architecture {header.architecture or 'none'}, which is not converted: GGUF files of "
            f"{', '.join(MODEL_TYPE_BY_ARCHITECTURE)} are; use the model's safetensors folder"
        )
    _check_keys(path, header)
    _check_tokenizer(path, header)
    foreign = sorted({tensor.quantization.name for tensor in header.tensors.values()} & {t.name for t in _NO_WEIGHTS})
    if foreign:
        raise ModelUnsupported(f"{path} stores weights as {', '.join(foreign)}, which cannot be converted")
    if "token_embd.weight" not in header.tensors:
        raise ModelUnsupported(f"{path} holds no weights of a model (token_embd.weight is absent)")


def _check_tokenizer(path: Path, header: GgufHeader) -> None:
    kind, name = header.text("tokenizer.ggml.model"), header.text("tokenizer.ggml.pre")
    if kind not in (BYTE_LEVEL, SENTENCE_PIECE):
        raise ModelUnsupported(f"{path} has a tokenizer of a kind that is not supported: {kind}")
    if kind == BYTE_LEVEL and name in (None, "default"):
        raise ModelUnsupported(
            f"{path} does not say how its tokenizer splits text (tokenizer.ggml.pre): use a newer conversion of the "
            "model"
        )
    if kind == BYTE_LEVEL and name not in RULE_BY_NAME:
        raise ModelUnsupported(f"{path} has a tokenizer that splits text in a way that is not known: {name}")


def _check_parts(path: Path, header: GgufHeader) -> None:
    count = header.whole_number("split.count") or 1
    named = _PART.fullmatch(path.name)
    if count <= 1 and named is None:
        return
    count = max(count, int(named["count"]) if named else 1)
    stem = named["stem"] if named else path.stem
    parts = ", ".join(f"{stem}-{number:05}-of-{count:05}.gguf" for number in range(1, min(count, 4) + 1))
    raise ModelUnsupported(
        f"{path} is one of {count} parts: join {parts}{', ...' if count > 4 else ''} into one file "
        "(llama-gguf-split --merge FIRST OUT)"
    )


def _check_keys(path: Path, header: GgufHeader) -> None:
    prefix = f"{header.architecture}."
    if header.of_architecture("expert_count"):
        raise ModelUnsupported(f"{path} is a mixture of experts, whose GGUF files are not converted")
    keys = {key.removeprefix(prefix) for key in header.metadata if key.startswith(prefix)}
    unknown = keys - _KNOWN_KEYS - set(_EXPERT_KEYS)
    if unknown:
        raise ModelUnsupported(
            f"{path} asks for what is not known to the conversion: {', '.join(sorted(prefix + key for key in unknown))}"
        )
    if isinstance(header.of_architecture("attention.head_count_kv"), list):
        raise ModelUnsupported(f"{path} has layers that differ in their heads, which is not supported")
    for key in _NUMBERS:
        if not isinstance(header.of_architecture(key), int | float):
            raise ModelUnsupported(f"{path} gives no single number for {prefix}{key}")
