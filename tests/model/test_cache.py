import torch

from workers.model.architecture.attention_layer import LayerShape
from workers.model.torch.cache import BlockCache, bytes_per_token

SHAPES = [LayerShape(num_kv_heads=2, head_dim=4), LayerShape(num_kv_heads=1, head_dim=8)]


def test_blocks_are_read_by_slot_and_cleared_one_by_one() -> None:
    cache = BlockCache(SHAPES, num_blocks=3, block_size=4, dtype=torch.float32, device=torch.device("cpu"))
    for layer in cache.layers:
        for slot in range(12):
            layer.flat_keys[slot] = slot + 1
            layer.flat_values[slot] = -slot - 1

    cache.clear([1])

    for layer in cache.layers:
        keys, values = layer.read(torch.tensor([[0, 3], [8, 5]]))
        assert keys.shape == (2, 2, *layer.keys.shape[2:])
        assert keys[..., 0, 0].tolist() == [[1, 4], [9, 0]]
        assert torch.equal(values, -keys)
    cache.reset()
    assert not any(layer.keys.any() or layer.values.any() for layer in cache.layers)


def test_a_token_takes_keys_and_values_of_every_layer() -> None:
    assert bytes_per_token(SHAPES, torch.bfloat16) == 2 * (8 + 8) * 2
