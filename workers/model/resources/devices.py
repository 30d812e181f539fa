"""Device, number type and memory budget of a model."""

from typing import Literal

import torch

from storage.errors import SettingInvalid
from workers.model.resources.main_memory import cpu_cache_budget_bytes

DeviceName = Literal["auto", "cpu", "cuda"]
DtypeName = Literal["auto", "float32", "bfloat16"]

_DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16}
# As many as torch takes by itself: one for each core.
NUM_THREADS = torch.get_num_threads()


def device_of(name: DeviceName) -> torch.device:
    """The device asked for; `auto` is a GPU where torch sees one. Raises SettingInvalid for a GPU that is not there."""
    has_gpu = torch.cuda.is_available()
    if name == "cuda" and not has_gpu:
        raise SettingInvalid("device is cuda, and torch sees no GPU: use device cpu or auto, or a CUDA build of torch")
    return torch.device("cuda" if has_gpu and name != "cpu" else "cpu")


def dtype_of(name: DtypeName, device: torch.device) -> torch.dtype:
    """The number type asked for; `auto` is float32 on a CPU and bfloat16 on a GPU."""
    if name == "auto":
        return torch.float32 if device.type == "cpu" else torch.bfloat16
    return _DTYPES[name]


def cache_budget_bytes(device: torch.device) -> int:
    """Memory for keys and values when nobody set it: half of a GPU's free memory, or a part of main memory."""
    if device.type == "cuda":
        return torch.cuda.mem_get_info(device)[0] // 2
    return cpu_cache_budget_bytes()
