"""What a configuration alone says: whether the platform can run the model, and whether by the native kernels.

Entries are those of config.json, so that a model can be described without loading torch.
"""

from collections.abc import Mapping

# Decoders whose layers are built as the kernels compute them. Whatever this table promises too much, the validation at
# load finds out: its logits are compared with those of the unchanged model.
NATIVE_MODEL_TYPES = frozenset({"llama", "mistral", "qwen2", "qwen3", "smollm3", "phi3", "gemma2", "gemma3_text"})
NATIVE_ACTIVATIONS = frozenset({"silu", "gelu_pytorch_tanh"})
NATIVE_DTYPES = frozenset({"float32", "bfloat16"})
MAX_NATIVE_HEAD_DIM = 256
# The others depend on how long a sequence is.
_STATIC_ROPE = frozenset({"default", "linear", "llama3", "yarn"})
# Ends of the names of classes that make text; others make embeddings or classes.
_TEXT_HEADS = ("ForCausalLM", "LMHeadModel", "ForConditionalGeneration")
_LAYER_TYPES = frozenset({"full_attention", "sliding_attention"})


def config_obstacle(config: Mapping[str, object]) -> str | None:
    """Why a model of this configuration cannot run at all; None where the configuration rules nothing out."""
    text = text_config(config)
    if config.get("quantization_config") is not None:
        return "Quantised weights are not supported: use the model's plain weights"
    if config.get("is_encoder_decoder"):
        return "Encoder-decoder models are not supported"
    named = config.get("architectures")
    if isinstance(named, list) and named and not any(str(name).endswith(_TEXT_HEADS) for name in named):
        return (
            f"The model has no language-model head ({', '.join(map(str, named))}), and its folder does not say how "
            "embeddings are made of it: modules.json of sentence-transformers is missing"
        )
    if text.get("alibi") or text.get("use_bidirectional_attention"):
        return "Attention with ALiBi, or one that looks ahead, is not supported"
    listed = text.get("layer_types")
    foreign = set(listed if isinstance(listed, list | tuple) else ()) - _LAYER_TYPES
    if foreign:
        return f"Layers of type {', '.join(sorted(map(str, foreign)))} are not supported"
    return None


def native_obstacle(config: Mapping[str, object], dtype: str) -> str | None:
    """Why torch computes a model of this configuration rather than the native kernels; None where these do."""
    activation = config.get("hidden_act") or config.get("hidden_activation")
    head_dim = head_dim_of(config)
    if config.get("model_type") not in NATIVE_MODEL_TYPES:
        return f"the native kernels do not know the architecture {config.get('model_type')}"
    if dtype not in NATIVE_DTYPES:
        return f"the native kernels do not compute in {dtype}"
    if activation is not None and activation not in NATIVE_ACTIVATIONS:
        return f"the native kernels do not know the activation {activation}"
    foreign = sorted(str(rope) for rope in _rope_types(config) if rope not in _STATIC_ROPE)
    if foreign:
        return f"the native kernels do not know rotary embeddings of type {', '.join(foreign)}"
    if head_dim is not None and head_dim > MAX_NATIVE_HEAD_DIM:
        return f"the native kernels compute heads of {MAX_NATIVE_HEAD_DIM} numbers at most, this model has {head_dim}"
    return "the native kernels know no biases of feed-forward layers" if config.get("mlp_bias") else None


def text_config(config: Mapping[str, object]) -> Mapping[str, object]:
    """The part of the configuration that is the language model's."""
    text = config.get("text_config")
    return text if isinstance(text, Mapping) else config


def head_dim_of(config: Mapping[str, object]) -> int | None:
    """The width of a head; None where the configuration does not tell."""
    head_dim = config.get("head_dim")
    if isinstance(head_dim, int):
        return head_dim
    hidden_size, num_heads = config.get("hidden_size"), config.get("num_attention_heads")
    return hidden_size // num_heads if isinstance(hidden_size, int) and isinstance(num_heads, int) else None


def _rope_types(config: Mapping[str, object]) -> list[object]:
    """Types of rotary embeddings, of each layer type where these differ."""
    rope = config.get("rope_parameters") or config.get("rope_scaling") or {}
    assert isinstance(rope, Mapping)
    if "rope_type" in rope or "type" in rope:
        return [rope.get("rope_type") or rope.get("type")]
    return [one.get("rope_type", "default") for one in rope.values() if isinstance(one, Mapping)]
