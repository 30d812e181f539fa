import math

import torch
from torch import Tensor

from workers.engine.sampling_seed import position_key
from workers.model.sampling.noise import exponential_noise


def noise(num_seeds: int, num_tokens: int) -> Tensor:
    keys = torch.tensor([position_key(seed, 7) for seed in range(num_seeds)], dtype=torch.int32)
    return exponential_noise(keys, torch.arange(num_tokens)[None])


def test_noise_is_exponential_and_never_zero() -> None:
    values = noise(500, 2000)
    ordered = (-(-values.flatten().double()).expm1()).sort().values
    distance = (ordered - torch.linspace(0, 1, len(ordered), dtype=torch.float64)).abs().max()

    assert values.min() > 0
    assert values.isfinite().all()
    # Kolmogorov and Smirnov's bound at 1e-6.
    assert distance < 2.7 / math.sqrt(len(ordered))


def test_noise_of_neighbouring_seeds_positions_and_tokens_is_independent() -> None:
    values = noise(1000, 1000)
    uniform = -(-values).expm1()
    for other in (uniform.roll(1, 0), uniform.roll(1, 1)):
        assert abs(float(torch.corrcoef(torch.stack([uniform.flatten(), other.flatten()]))[0, 1])) < 0.005


def test_the_largest_hash_does_not_give_zero_noise() -> None:
    keys = torch.zeros(1, 2, dtype=torch.int32)
    values = torch.cat([exponential_noise(keys + i, torch.arange(2**20)[None]).flatten() for i in range(12)])

    assert values.min() > 0
