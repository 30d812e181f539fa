"""What every kernel is asked, on a GPU or in Triton's interpreter: `python -m tests.triton.cases KIND` runs one."""

import random
import sys
from dataclasses import replace

import torch

from tests.triton.mixes import Shape, assert_close, random_mix, random_query, random_shape
from tests.triton.reference import seen_by_token, visible_from
from workers.model.architecture.attention_layer import AttentionRule
from workers.model.triton.decode import decode
from workers.model.triton.prefill import attend
from workers.model.triton.store import store
from workers.model.triton.token_masks import apply_masks

NUM_MIXES = 16
# In the interpreter, where a tile takes milliseconds: shorter sequences, of up to three splits, and fewer mixes of
# them. Each mix is seven lengths, and all have the same shape.
_MAX_LEN_INTERPRETED, _NUM_MIXES_INTERPRETED = 300, 4
_PLAIN = Shape(num_kv_heads=2, group=4, head_dim=64, block_size=16, window=None, softcap=None, dtype=torch.float32)


def check_store(seed: int, device: str) -> None:
    """Every token lies in its slot, and nothing else has changed."""
    dice = random.Random(seed)
    torch.manual_seed(seed)
    shape = random_shape(dice)
    num_tokens = dice.choice([0, 1, 5, 17])
    keys, values = torch.randn(2, 4, shape.block_size, shape.num_kv_heads, shape.head_dim).to(device, shape.dtype)
    key = torch.randn(num_tokens, shape.num_kv_heads + 1, shape.head_dim).to(device, shape.dtype)[:, 1:]
    value = torch.randn(shape.num_kv_heads, num_tokens, shape.head_dim).to(device, shape.dtype).transpose(0, 1)
    slots = [dice.choice([slot, slot, slot, -1]) for slot in dice.sample(range(4 * shape.block_size), num_tokens)]
    expected_keys, expected_values = keys.clone(), values.clone()
    for token, slot in enumerate(slots):
        if slot >= 0:
            expected_keys[slot // shape.block_size, slot % shape.block_size] = key[token]
            expected_values[slot // shape.block_size, slot % shape.block_size] = value[token]

    store(key, value, keys, values, torch.tensor(slots, dtype=torch.int32, device=device))

    assert torch.equal(keys, expected_keys)
    assert torch.equal(values, expected_values)


def check_decode(seed: int, device: str) -> None:
    """Each sequence's token sees what the reference sees, padding sees zero, however the positions are split."""
    dice = random.Random(seed)
    torch.manual_seed(seed)
    shape = random_shape(dice)
    lengths = [dice.choice([0, 1, 16, dice.randint(1, 40), dice.randint(1, 300)]) for _ in range(dice.randint(1, 4))]
    mix = random_mix(dice, shape, lengths, device)
    query = random_query(shape, len(lengths), device)

    seen = decode(
        query,
        mix.blocks(lengths, num_more=dice.choice([0, 0, 100, 10000]) // shape.block_size),
        AttentionRule(scale=shape.scale, window=shape.window, softcap=shape.softcap),
    )

    for row, length in enumerate(lengths):
        visible = visible_from(length - 1, shape.window) if length else range(0)
        expected = seen_by_token(query[row], mix.keys, mix.values, mix.tables[row], visible, shape.scale, shape.softcap)
        assert_close(seen[row], expected)


def check_attend(seed: int, device: str) -> None:
    """Every token of every chunk sees what the reference sees, behind prefixes of none to many positions."""
    dice = random.Random(seed)
    torch.manual_seed(seed)
    shape = random_shape(dice)
    chunks = [dice.choice([1, 2, dice.randint(1, 20), dice.randint(1, 60)]) for _ in range(dice.randint(1, 3))]
    lengths = [num_tokens + dice.choice([0, 0, 16, dice.randint(1, 200)]) for num_tokens in chunks]
    begins = [sum(chunks[:index]) for index in range(len(chunks) + 1)]
    mix = random_mix(dice, shape, lengths, device)
    num_padding = dice.choice([0, 3])
    query = random_query(shape, begins[-1] + num_padding, device)

    seen = attend(
        query,
        mix.blocks(lengths),
        torch.tensor(begins, dtype=torch.int32, device=device),
        AttentionRule(scale=shape.scale, window=shape.window, softcap=shape.softcap),
        max_query_len=max(chunks) + dice.choice([0, 30]),
    )

    expected = torch.zeros(seen.shape, device=device)
    for row, (num_tokens, length) in enumerate(zip(chunks, lengths, strict=True)):
        for index in range(num_tokens):
            place = begins[row] + index
            visible = visible_from(length - num_tokens + index, shape.window)
            expected[place] = seen_by_token(
                query[place], mix.keys, mix.values, mix.tables[row], visible, shape.scale, shape.softcap
            )
    assert_close(seen, expected)


def check_neighbours(seed: int, device: str) -> None:
    """A sequence's output has the same bits in batches of 1, 3 and 8, also beside one whose cache is NaN."""
    dice = random.Random(seed)
    torch.manual_seed(seed)
    lengths = [dice.randint(1, _MAX_LEN_INTERPRETED if device == "cpu" else 700) for _ in range(7)]
    mix = random_mix(dice, _PLAIN, [*lengths, 0], device)
    query = random_query(_PLAIN, 8, device)
    # The last sequence's blocks were left NaN.
    blocks = mix.blocks([*lengths, _PLAIN.block_size])

    def of(rows: slice) -> torch.Tensor:
        some = replace(blocks, tables=blocks.tables[rows], lengths=blocks.lengths[rows])
        return decode(query[rows], some, AttentionRule(scale=_PLAIN.scale))

    together = of(slice(8))

    for size in (1, 3):
        for begin in range(0, 7 - size, size):
            assert torch.equal(together[begin : begin + size], of(slice(begin, begin + size)))
    assert together[7].isnan().all()


def check_masks(seed: int, device: str) -> None:
    """Masked rows lose what is not allowed, in rows that lie apart; nothing else is written."""
    dice = random.Random(seed)
    torch.manual_seed(seed)
    vocab_size = dice.choice([1, 31, 32, 33, 4096, 4097, 9001])
    num_rows = dice.randint(1, 5)
    whole = torch.randn(num_rows, vocab_size + 7).to(device)
    rows = torch.tensor(dice.sample(range(num_rows), dice.randint(1, num_rows)), device=device)
    allowed = torch.rand(len(rows), -(-vocab_size // 32) * 32).to(device) < dice.choice([0.0, 0.1, 0.9])
    bits = allowed.view(len(rows), -1, 32).long() << torch.arange(32, device=device)
    masks = bits.sum(-1).to(torch.int32)
    expected = whole.clone()
    for row, own in zip(rows.tolist(), allowed, strict=True):
        expected[row, :vocab_size][~own[:vocab_size]] = -torch.inf

    apply_masks(whole[:, :vocab_size], rows, masks)

    assert torch.equal(whole, expected)


CHECKS = {
    "masks": check_masks,
    "store": check_store,
    "decode": check_decode,
    "attend": check_attend,
    "neighbours": check_neighbours,
}


def main(kind: str, device: str = "cpu") -> None:
    """Run one kind of check over many random batches."""
    for seed in range(_NUM_MIXES_INTERPRETED if (kind, device) == ("neighbours", "cpu") else NUM_MIXES):
        try:
            CHECKS[kind](seed, device)
        except Exception as error:
            error.add_note(f"{kind}, seed {seed}")
            raise


if __name__ == "__main__":
    main(sys.argv[1])
