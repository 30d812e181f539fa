"""How large the KV cache becomes: from the wishes of whoever starts a worker, the model, and the memory there is."""

import torch

from workers.engine.memory import BLOCK_SIZE, CachePlan, plan_cache, usual_num_positions
from workers.model.resources import devices
from workers.model.resources.memory_options import LoadLimits


def cache_plan(
    context_length: int, device: torch.device, limits: LoadLimits, token_bytes: int, free_bytes: int | None = None
) -> CachePlan:
    """The plan of the cache; raises SettingInvalid when the budget does not hold one sequence.

    token_bytes: of keys and values of one token, over all layers
    free_bytes:  what is free for the cache; None looks it up
    """
    budget = limits.kv_budget_bytes
    if budget is None:
        longest = min(context_length, limits.max_len)
        wanted = usual_num_positions(longest, limits.max_running) * token_bytes
        available = devices.cache_budget_bytes(device) if free_bytes is None else free_bytes
        budget = available if device.type == "cuda" else min(wanted, available)
    return plan_cache(
        context_length=context_length,
        bytes_per_block=token_bytes * BLOCK_SIZE,
        max_running=limits.max_running,
        max_len=limits.max_len,
        budget_bytes=budget,
    )
