"""Checks of whether this backend can run a model; a model that would give wrong results is refused at load."""

import inspect

from torch import nn
from transformers import PreTrainedConfig, PreTrainedModel

from storage.errors import ModelFilesMissing, ModelUnsupported
from workers.model.architecture.attention_layer import AttentionLayer
from workers.model.architecture.families import config_obstacle

# Rotary embeddings that change for every token once a sequence is longer than this: kept keys would not fit.
_LENGTH_DEPENDENT_ROPE = frozenset({"dynamic", "longrope"})


def check_config(config: PreTrainedConfig) -> None:
    """Raises ModelUnsupported for what the configuration alone rules out."""
    obstacle = config_obstacle(config.to_dict())
    if obstacle is not None:
        raise ModelUnsupported(obstacle)


def check_loaded(model: PreTrainedModel, loading_info: dict[str, object]) -> None:
    """Raises ModelFilesMissing for incomplete weights, ModelUnsupported for layers with a state of their own."""
    absent = [key for name in ("missing_keys", "mismatched_keys") for key in _listed(loading_info.get(name))]
    if absent:
        raise ModelFilesMissing(f"{len(absent)} weights are missing or of another shape, the first is {absent[0]}")
    is_stateful = bool(getattr(model, "_is_stateful", False))
    if is_stateful or any(isinstance(module, nn.Conv1d) for module in model.modules()):
        raise ModelUnsupported("Recurrent and convolutional layers are not supported")
    if not {"position_ids", "logits_to_keep"} <= set(inspect.signature(model.forward).parameters):
        raise ModelUnsupported("The model takes no position_ids, or cannot be asked for some logits only")


def check_windows(config: PreTrainedConfig, layers: list[AttentionLayer]) -> None:
    """Raises ModelUnsupported when layers have a sliding window that they keep to themselves."""
    text = config.get_text_config()
    layer_types = getattr(text, "layer_types", None)
    if layer_types:
        expected = sum(layer_type == "sliding_attention" for layer_type in layer_types)
    else:
        has_window = getattr(text, "sliding_window", None) and getattr(text, "use_sliding_window", True)
        expected = 1 if has_window else 0
    if sum(layer.window is not None for layer in layers) < expected:
        raise ModelUnsupported("The model's sliding window is made by a mask of its own, which is not supported")


def context_length_of(config: PreTrainedConfig) -> int:
    """Tokens that a sequence may have, prompt and output."""
    text = config.get_text_config()
    length = getattr(text, "max_position_embeddings", None) or getattr(text, "n_positions", None)
    if not isinstance(length, int):
        raise ModelUnsupported("The model's configuration does not tell its context length")
    rope = getattr(text, "rope_parameters", None) or {}
    original = rope.get("original_max_position_embeddings")
    if rope.get("rope_type") in _LENGTH_DEPENDENT_ROPE and isinstance(original, int):
        return min(length, original)
    return length


def _listed(value: object) -> list[str]:
    return sorted(str(key) for key in value) if isinstance(value, list | set | tuple) else []
