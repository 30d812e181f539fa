"""The ways of transformers that `bench.engine` compares; each gives output tokens a second, prompts included."""

import time
from typing import Any

import torch
from transformers import ContinuousBatchingConfig, GenerationConfig, PreTrainedModel

from bench.engine_alone import Job

_NO_EOS: dict[str, Any] = {"do_sample": False, "eos_token_id": -1, "pad_token_id": 0}  # Any: fields of many types


def rate_one_by_one(model: PreTrainedModel, jobs: list[Job]) -> float:
    """`generate`, one prompt after another."""
    started = time.perf_counter()
    for job in jobs:
        _generate(model, [job])
    return sum(job.max_tokens for job in jobs) / (time.perf_counter() - started)


def rate_static(model: PreTrainedModel, jobs: list[Job]) -> float:
    """One `generate` with all; it runs as long as the longest, of which only the tokens asked for count."""
    started = time.perf_counter()
    _generate(model, jobs)
    return sum(job.max_tokens for job in jobs) / (time.perf_counter() - started)


def _generate(model: PreTrainedModel, jobs: list[Job]) -> None:
    ids = torch.tensor([job.prompt for job in jobs])
    longest = max(job.max_tokens for job in jobs)
    config = GenerationConfig(**_NO_EOS, max_new_tokens=longest, min_new_tokens=longest)
    with torch.inference_mode():
        model.generate(ids, attention_mask=torch.ones_like(ids), generation_config=config)


def rate_batch(model: PreTrainedModel, jobs: list[Job]) -> float:
    """transformers' continuous batching."""
    blocks = sum((len(job.prompt) + job.max_tokens) // 64 + 1 for job in jobs) + 16
    batching = ContinuousBatchingConfig(num_blocks=blocks, page_size=64, max_batch_tokens=2048)
    config = GenerationConfig(**_NO_EOS, max_new_tokens=max(job.max_tokens for job in jobs), use_cache=False)
    manager = model.init_continuous_batching(generation_config=config, continuous_batching_config=batching)
    manager.start()
    started, num_tokens, num_ended = time.perf_counter(), 0, 0
    for job in jobs:
        manager.add_request(list(job.prompt), max_new_tokens=job.max_tokens)
    while num_ended < len(jobs):
        result = manager.get_result(timeout=1)
        if result is not None and result.is_finished():
            num_ended += 1
            num_tokens += len(result.generated_tokens)
    took_s = time.perf_counter() - started
    manager.stop(block=True)
    model.set_attn_implementation("sdpa")
    return num_tokens / took_s
