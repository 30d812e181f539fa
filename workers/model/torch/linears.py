"""Packed linear layers: oneDNN lays out their weights once, where F.linear does it at every call."""

import structlog
import torch
from torch import Tensor, nn
from torch.nn import functional

# Below this many tokens in float32 the plain matrix-vector product is faster than oneDNN's.
MIN_PACKED_TOKENS = 4
# Weights are laid out for about this many tokens; any number works.
_EXPECTED_TOKENS = 32
_TOLERANCE = {torch.float32: 1e-4, torch.bfloat16: 2e-2}

log = structlog.get_logger()


class PackedLinear(nn.Module):
    """A linear layer for inference on a CPU."""

    def __init__(self, linear: nn.Linear) -> None:
        super().__init__()
        self._num_outputs = linear.out_features
        self._bias = linear.bias
        is_float32 = linear.weight.dtype == torch.float32
        self._plain_weight = linear.weight if is_float32 else None
        reorder = torch.ops.mkldnn._reorder_linear_weight
        self._packed_weight = reorder(linear.weight.detach().contiguous(), _EXPECTED_TOKENS)

    @property
    def weight(self) -> Tensor:
        """The original weight, for models that read its type or device."""
        return self._packed_weight if self._plain_weight is None else self._plain_weight

    def forward(self, hidden: Tensor) -> Tensor:
        """As `nn.Linear`: [..., num_inputs] to [..., num_outputs]."""
        flat = hidden.reshape(-1, hidden.shape[-1])
        if self._plain_weight is not None and flat.shape[0] < MIN_PACKED_TOKENS:
            return functional.linear(hidden, self._plain_weight, self._bias)
        output: Tensor = torch.ops.mkldnn._linear_pointwise(flat, self._packed_weight, self._bias, "none", [], "")
        return output.view(*hidden.shape[:-1], self._num_outputs)


def pack_linears(model: nn.Module) -> int:
    """Replace the model's linear layers by packed ones; how many were replaced.

    Zero if this build of torch or this processor lacks the operators, or if they give other results.
    """
    linears = [
        (parent, name, child)
        for parent in model.modules()
        for name, child in parent.named_children()
        if type(child) is nn.Linear and child.weight.dtype in _TOLERANCE
    ]
    by_shape = {(linear.weight.shape, linear.weight.dtype, linear.bias is None): linear for _, _, linear in linears}
    if not by_shape or not all(_is_sound(linear) for linear in by_shape.values()):
        return 0
    for parent, name, linear in linears:
        setattr(parent, name, PackedLinear(linear))
    return len(linears)


def _is_sound(linear: nn.Linear) -> bool:
    """Whether a packed copy exists and agrees with the original."""
    if not torch.backends.mkldnn.is_available():  # type: ignore[no-untyped-call]  # torch left it bare
        return False
    try:
        packed = PackedLinear(linear)
        with torch.inference_mode():
            return all(_agrees(linear, packed, num_tokens) for num_tokens in (1, MIN_PACKED_TOKENS, 67))
    except (RuntimeError, AttributeError) as error:
        log.warning("packed_linears_unavailable", error=str(error))
        return False


def _agrees(linear: nn.Linear, packed: PackedLinear, num_tokens: int) -> bool:
    count = num_tokens * linear.in_features
    hidden = torch.linspace(-1.0, 1.0, count).sin_().view(num_tokens, -1).to(linear.weight.dtype)
    expected, found = linear(hidden).float(), packed(hidden).float()
    error = (expected - found).abs().max() / expected.abs().max().clamp_min(1e-6)
    is_sound = bool(error <= _TOLERANCE[linear.weight.dtype])
    if not is_sound:
        log.warning("packed_linears_disagree", error=float(error))
    return is_sound
