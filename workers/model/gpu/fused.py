"""Fused linear layers: those that read the same input become one large product instead of two or three."""

import torch
from torch import Tensor, nn

# Models whose layers call these one after another, in this order, with one and the same input.
_MODEL_TYPES = frozenset({"llama", "mistral", "qwen2", "qwen3"})
_GROUPS = (("q_proj", "k_proj", "v_proj"), ("gate_proj", "up_proj"))
_TOLERANCE = {torch.float32: 1e-4, torch.bfloat16: 2e-2}


class _First(nn.Module):
    """Replaces the first layer of a group: computes the outputs of all, and keeps those of the others for them."""

    def __init__(self, linears: list[nn.Linear]) -> None:
        super().__init__()
        self._sizes = [linear.out_features for linear in linears]
        self.joined = nn.Linear(
            linears[0].in_features,
            sum(self._sizes),
            bias=linears[0].bias is not None,
            device="meta",
        )
        weights = torch.cat([linear.weight.detach() for linear in linears])
        self.joined.weight = nn.Parameter(weights, requires_grad=False)
        if linears[0].bias is not None:
            biases = torch.cat([linear.bias.detach() for linear in linears])
            self.joined.bias = nn.Parameter(biases, requires_grad=False)
        self.others = [_Other() for _ in linears[1:]]

    def forward(self, hidden: Tensor) -> Tensor:
        """[..., num_inputs] to [..., first layer's outputs]."""
        first, *rest = self.joined(hidden).split(self._sizes, dim=-1)
        for other, output in zip(self.others, rest, strict=True):
            other.output = output
        own: Tensor = first
        return own


class _Other(nn.Module):
    """Replaces another layer of a group: returns what the first one computed for it."""

    def __init__(self) -> None:
        super().__init__()
        self.output: Tensor | None = None

    def forward(self, hidden: Tensor) -> Tensor:
        """[..., num_inputs] to [..., this layer's outputs]."""
        output, self.output = self.output, None
        assert output is not None, "called before the first layer"
        return output


@torch.inference_mode()
def fuse_linears(model: nn.Module, model_type: str) -> int:
    """Replace the layers of each group by one; how many groups were replaced.

    None in models of unknown structure, and no group whose fused product differs from the layers' own.
    """
    if model_type not in _MODEL_TYPES:
        return 0
    return sum(_fuse(parent, names) for parent in list(model.modules()) for names in _GROUPS)


def _fuse(parent: nn.Module, names: tuple[str, ...]) -> bool:
    linears = [getattr(parent, name, None) for name in names]
    plain = [linear for linear in linears if type(linear) is nn.Linear]
    if len(plain) < len(names) or len({_kind(linear) for linear in plain}) > 1:
        return False
    if plain[0].weight.dtype not in _TOLERANCE:
        return False
    first = _First(plain)
    if not _agrees(first, plain):
        return False
    for name, module in zip(names, [first, *first.others], strict=True):
        setattr(parent, name, module)
    return True


def _kind(linear: nn.Linear) -> tuple[int, bool, torch.dtype]:
    return linear.in_features, linear.bias is not None, linear.weight.dtype


def _agrees(first: _First, plain: list[nn.Linear]) -> bool:
    weight = plain[0].weight
    count = 3 * plain[0].in_features
    hidden = torch.linspace(-1.0, 1.0, count, device=weight.device).sin_().view(3, -1).to(weight.dtype)
    found = [module(hidden).float() for module in (first, *first.others)]
    expected = [linear(hidden).float() for linear in plain]
    scale = max(float(one.abs().max()) for one in expected)
    differences = (float((a - b).abs().max()) for a, b in zip(found, expected, strict=True))
    return max(differences) <= _TOLERANCE[weight.dtype] * max(scale, 1e-6)
