"""What must be true of an engine between any two calls."""

from collections import Counter

from workers.engine.blocks import BlockManager, BlockTable
from workers.engine.engine import Engine
from workers.engine.sequence import Sequence


def check(engine: Engine) -> None:
    """Assert every invariant of scheduler and blocks."""
    assert not getattr(engine._runner, "broken", [])
    scheduler = engine._scheduler
    running, waiting = scheduler._running, scheduler._waiting.sequences()
    check_blocks(scheduler.blocks, [one.table for one in (*running, *engine._leaving)])
    assert len(running) <= engine.limits.max_running
    assert {*running, *waiting} == set(engine._sequence_by_id.values())
    assert len(running) + len(waiting) == len(engine._sequence_by_id)
    assert set(scheduler.isolated) | scheduler.cautious | scheduler._waiting._aged <= {*running, *waiting}
    assert len(scheduler._waiting._aged) <= scheduler._waiting._max_aged
    assert all(order == one.order for order, one in scheduler._waiting._heap)
    assert not {*engine._leaving} & {*running, *waiting}
    assert len(engine._under_way) <= engine._runner.num_ahead
    for one in running:
        assert one.capacity == len(one.table.blocks) * engine.limits.block_size
        assert one.num_computed <= one.capacity <= engine.limits.num_blocks * engine.limits.block_size
        assert one.num_computed <= len(one.tokens)
    for one in waiting:
        assert one.capacity == one.num_computed == len(one.table.blocks) == 0
    check_sharing([*running, *engine._leaving], engine.limits.block_size)


def check_blocks(blocks: BlockManager, tables: list[BlockTable]) -> None:
    """Assert that every block is in one place and that references are exact."""
    refs = Counter(block for table in tables for block in table.blocks)
    places = [*blocks._free, *blocks._cached, *refs]
    assert sorted(places) == list(range(blocks.num_blocks))
    assert [refs[block] for block in range(blocks.num_blocks)] == blocks._num_refs
    assert {digest: block for block, digest in blocks._hash_by_block.items()} == blocks._block_by_hash
    assert set(blocks._cached) <= set(blocks._hash_by_block) <= set(blocks._cached) | set(refs)
    assert blocks._unvalidated <= set(refs)
    for block, writer in blocks._writer_by_block.items():
        assert block in blocks._unvalidated
        assert writer is None or (block in writer.blocks and writer in tables)


def check_sharing(sequences: list[Sequence], block_size: int) -> None:
    """Assert that who holds the same block has the same salt and the same ids up to the block's end."""
    prefix_by_block: dict[int, tuple[str, list[int]]] = {}
    for one in sequences:
        for index, block in enumerate(one.table.blocks):
            prefix = one.cache_salt, one.tokens[: (index + 1) * block_size]
            assert prefix_by_block.setdefault(block, prefix) == prefix
