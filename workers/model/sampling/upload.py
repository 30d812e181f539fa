"""Asynchronous upload of small tables of numbers to the device."""

from array import array
from collections.abc import Sequence

import torch
from torch import Tensor


def upload(
    values: Sequence[int] | Sequence[float] | Sequence[Sequence[float]], dtype: torch.dtype, device: torch.device
) -> Tensor:
    """A tensor on the device, of the values' own shape."""
    return send(torch.tensor(values, dtype=dtype), device)


def send(tensor: Tensor, device: torch.device) -> Tensor:
    """The tensor on the device; work that was launched before it goes on meanwhile."""
    if device.type != "cuda":
        return tensor.to(device)
    return tensor.pin_memory().to(device, non_blocking=True)


def joined(parts: "Sequence[array[int]]", dtype: torch.dtype, device: torch.device) -> Tensor:
    """The arrays concatenated, [num_all]; the arrays may grow afterwards."""
    views = [torch.frombuffer(part, dtype=dtype) for part in parts if part]
    return send(torch.cat(views) if views else torch.empty(0, dtype=dtype), device)
