import pytest
import torch
from torch import Tensor, nn

from workers.model.torch.linears import PackedLinear, pack_linears
from workers.model.torch.norms import FusedRMSNorm, fuse_norms


class TwoLinears(nn.Module):
    def __init__(self, dtype: torch.dtype) -> None:
        super().__init__()
        self.first = nn.Linear(48, 80, dtype=dtype)
        self.second = nn.Linear(80, 16, bias=False, dtype=dtype)

    def forward(self, hidden: Tensor) -> Tensor:
        return self.second(self.first(hidden).relu())  # type: ignore[no-any-return]  # a module's call is open


class PlainRMSNorm(nn.Module):
    """As Llama writes it."""

    offset = 0.0

    def __init__(self, size: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.linspace(-0.5, 2.0, size))
        self.variance_epsilon = 1e-5

    def forward(self, hidden: Tensor) -> Tensor:
        variance = hidden.pow(2).mean(-1, keepdim=True)
        return (self.offset + self.weight) * (hidden * torch.rsqrt(variance + self.variance_epsilon))


class GemmaLikeRMSNorm(PlainRMSNorm):
    offset = 1.0


class OtherRMSNorm(PlainRMSNorm):
    offset = 0.5


@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float32, 1e-5), (torch.bfloat16, 2e-2)])
@torch.inference_mode()
def test_packed_layers_compute_the_same(dtype: torch.dtype, tolerance: float) -> None:
    model = TwoLinears(dtype)
    inputs = [torch.randn(1, num_tokens, 48, dtype=dtype) for num_tokens in (1, 3, 4, 33)]
    expected = [model(one) for one in inputs]

    if not pack_linears(model):
        pytest.skip("this torch or processor has no packed layers")

    assert isinstance(model.first, PackedLinear)
    for one, plain in zip(inputs, expected, strict=True):
        assert model(one).shape == plain.shape
        torch.testing.assert_close(model(one), plain, rtol=tolerance, atol=tolerance)


def test_layers_that_cannot_be_packed_stay_as_they_are() -> None:
    model = TwoLinears(torch.float64)

    assert pack_linears(model) == 0
    assert type(model.first) is nn.Linear


@torch.inference_mode()
def test_norms_are_fused_only_when_they_give_the_same_numbers() -> None:
    model = nn.Sequential(PlainRMSNorm(24), GemmaLikeRMSNorm(24), OtherRMSNorm(24))
    hidden = torch.randn(5, 24)
    expected = model(hidden)

    assert fuse_norms(model) == 2
    assert [type(norm) for norm in model] == [FusedRMSNorm, FusedRMSNorm, OtherRMSNorm]
    torch.testing.assert_close(model(hidden), expected, rtol=1e-4, atol=1e-5)
