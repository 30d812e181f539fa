import random

import torch

from workers.model.cache import LayerShape, RowCache, bytes_per_token

SHAPES = [LayerShape(num_kv_heads=2, head_dim=4), LayerShape(num_kv_heads=1, head_dim=8)]


def test_rows_move_and_what_nobody_owns_is_zero() -> None:
    cache = RowCache(SHAPES, num_rows=5, max_len=9, dtype=torch.float32, device=torch.device("cpu"))
    numbers = random.Random(0)
    owners: list[tuple[int, int]] = []
    for name in range(1, 400):
        if len(owners) < 5 and numbers.random() < 0.6:
            length = numbers.randrange(10)
            cache.grow(len(owners), length)
            for layer in cache.layers:
                layer.keys[len(owners), :length] = name
                layer.values[len(owners), :length] = -name
            owners.append((name, length))
        elif owners:
            row = numbers.randrange(len(owners))
            cache.release(row, len(owners) - 1)
            owners[row] = owners[-1]
            owners.pop()
        check(cache, owners)

    cache.reset()
    check(cache, [])


def check(cache: RowCache, owners: list[tuple[int, int]]) -> None:
    for layer in cache.layers:
        expected = torch.zeros_like(layer.keys)
        for row, (name, length) in enumerate(owners):
            expected[row, :length] = name
        assert torch.equal(layer.keys, expected)
        assert torch.equal(layer.values, -expected)


def test_a_token_takes_keys_and_values_of_every_layer() -> None:
    assert bytes_per_token(SHAPES, torch.bfloat16) == 2 * (8 + 8) * 2
