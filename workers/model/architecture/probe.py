"""Probes a model's attention layers: lets them compute one token, instead of reading configurations."""

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from transformers import AttentionInterface, PreTrainedModel

from storage.errors import ModelUnsupported
from workers.model.architecture.attention_layer import AttentionLayer, LayerShape

_IMPLEMENTATION = "tokenpost_probe"
_ATTRIBUTE = "tokenpost_seen"

# Arguments of attention layers that say nothing about what is computed here.
_IGNORED = frozenset(
    {
        "cache_position",
        "dropout",
        "output_attentions",
        "output_hidden_states",
        "output_router_logits",
        "position_embeddings",
        "position_ids",
        "return_dict",
        "use_cache",
    }
)
_UNDERSTOOD = frozenset({"sliding_window", "softcap"})


@dataclass(frozen=True, slots=True, kw_only=True)
class _Seen:
    num_calls: int
    key_shape: tuple[int, ...]
    value_shape: tuple[int, ...]
    arguments: Mapping[str, object]


def attention_layers(model: PreTrainedModel) -> list[AttentionLayer]:
    """Every attention layer of the model, in order. The model is left with the probing attention.

    Raises ModelUnsupported for layers that rows of keys and values cannot serve.
    """
    model.set_attn_implementation(_IMPLEMENTATION)
    device = next(model.parameters()).device
    one = torch.zeros(1, 1, dtype=torch.long, device=device)
    try:
        with torch.inference_mode():
            model(input_ids=one, position_ids=one, use_cache=False)
    except Exception as error:
        raise ModelUnsupported(f"The model could not compute one token without its own cache: {error}") from error
    layers = [_layer(module) for module in model.modules() if hasattr(module, _ATTRIBUTE)]
    expected = model.config.get_text_config().num_hidden_layers
    if len(layers) != expected:
        raise ModelUnsupported(
            f"{len(layers)} of {expected} layers attend in the standard way; recurrent layers and attention of "
            "a model's own making are not supported"
        )
    return layers


def _probe(
    module: nn.Module, query: Tensor, key: Tensor, value: Tensor, attention_mask: Tensor | None, **arguments: object
) -> tuple[Tensor, None]:
    """Attention of one token to itself, which is its value; the arguments are recorded on the module."""
    before: _Seen | None = getattr(module, _ATTRIBUTE, None)
    seen = _Seen(
        num_calls=1 if before is None else before.num_calls + 1,
        key_shape=tuple(key.shape),
        value_shape=tuple(value.shape),
        arguments=arguments,
    )
    setattr(module, _ATTRIBUTE, seen)
    return value.repeat_interleave(query.shape[1] // value.shape[1], dim=1).transpose(1, 2), None


def _layer(module: nn.Module) -> AttentionLayer:
    seen: _Seen = getattr(module, _ATTRIBUTE)
    delattr(module, _ATTRIBUTE)
    _check(module, seen)
    window, softcap = seen.arguments.get("sliding_window"), seen.arguments.get("softcap")
    return AttentionLayer(
        module=module,
        shape=LayerShape(num_kv_heads=seen.key_shape[1], head_dim=seen.key_shape[3]),
        window=window if isinstance(window, int) else None,
        softcap=softcap if isinstance(softcap, float | int) else None,
    )


def _check(module: nn.Module, seen: _Seen) -> None:
    if seen.num_calls != 1:
        raise ModelUnsupported("Layers that share one attention module are not supported")
    if seen.key_shape != seen.value_shape:
        raise ModelUnsupported(
            f"Keys of shape {seen.key_shape[1:]} and values of shape {seen.value_shape[1:]} (multi-head latent "
            "attention, for one) are not supported"
        )
    if getattr(module, "is_causal", True) is False or seen.arguments.get("is_causal") is False:
        raise ModelUnsupported("Attention that looks ahead is not supported")
    unknown = {
        name
        for name, value in seen.arguments.items()
        if value is not None and name not in _IGNORED | _UNDERSTOOD | {"scaling", "is_causal"}
    }
    if unknown:
        raise ModelUnsupported(f"Attention with {', '.join(sorted(unknown))} is not supported")


AttentionInterface.register(_IMPLEMENTATION, _probe)
