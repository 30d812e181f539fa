"""What a step's arrays hold, and in which buckets decode steps run."""

from array import array

import torch

from storage.contract import SamplingParams
from workers.engine.runner import Chunk
from workers.model.gpu.graphs import bucket_of, buckets_of
from workers.model.gpu.step_tables import StepTables, pack, shape_of

CPU = torch.device("cpu")


def chunk(name: str, blocks: list[int], start: int, end: int, *, is_pending: bool = False) -> Chunk:
    return Chunk(
        sequence_id=name,
        blocks=array("i", blocks),
        tokens=list(range(100, 100 + end - is_pending)),
        start=start,
        end=end,
        num_prompt=1,
        sampling=SamplingParams(max_tokens=1),
        logits_from=end - 1,
        is_pending=is_pending,
    )


def tables_of(chunks: list[Chunk], bucket: int | None, rows: dict[str, int], width: int = 4) -> StepTables:
    shape = shape_of(chunks, width, bucket)
    tables = StepTables.new(shape, CPU)
    tables.send(pack(chunks, shape, rows, block_size=4, is_pinned=False))
    return tables


def test_buckets_are_powers_of_two_and_the_most_that_run() -> None:
    assert buckets_of(1) == [1]
    assert buckets_of(6) == [1, 2, 4, 6]
    assert buckets_of(64) == [1, 2, 4, 8, 16, 32, 64]
    assert [bucket_of(count, buckets_of(6)) for count in range(1, 7)] == [1, 2, 4, 4, 6, 6]


def test_rows_of_no_sequence_store_nothing_and_read_one_position() -> None:
    tables = tables_of([chunk("a", [7, 2], 5, 6)], bucket=4, rows={})

    assert tables.slots.tolist() == [2 * 4 + 1, -1, -1, -1]
    assert tables.lengths.tolist() == [6, 1, 1, 1]
    assert tables.token_ids.tolist()[0] == 105
    assert tables.positions.tolist()[0] == 5
    assert tables.tables.tolist() == [[7, 2, 0, 0], [0] * 4, [0] * 4, [0] * 4]


def test_a_pending_token_is_read_where_the_launch_before_put_it() -> None:
    chunks = [chunk("b", [1], 2, 3, is_pending=True), chunk("a", [3], 3, 4, is_pending=True), chunk("c", [4], 1, 2)]

    tables = tables_of(chunks, bucket=4, rows={"a": 0, "b": 5})

    assert tables.sources.tolist() == [5, 0, -1, -1]
    assert tables.slots.tolist() == [6, 15, 17, -1]


def test_a_mixed_step_has_a_row_for_each_sequence_and_spans_behind() -> None:
    chunks = [chunk("a", [5], 3, 4), chunk("b", [6, 1, 9], 2, 9), chunk("c", [2], 0, 1), chunk("d", [8], 0, 3)]

    tables = tables_of(chunks, bucket=None, rows={})

    assert (tables.num_decode, tables.num_spans) == (1, 3)
    assert tables.begins.tolist() == [0, 7, 8, 11]
    assert tables.lengths.tolist() == [4, 9, 1, 3]
    assert tables.positions.tolist() == [3, *range(2, 9), 0, *range(3)]
    assert tables.slots.tolist() == [23, 26, 27, 4, 5, 6, 7, 36, 8, 32, 33, 34]


def test_a_buffer_that_is_filled_again_keeps_nothing_of_the_step_before() -> None:
    shape = shape_of([], 4, bucket=2)
    tables = StepTables.new(shape, CPU)
    place = tables.buffer.data_ptr()
    for chunks in ([chunk("a", [7, 2], 5, 6), chunk("b", [1, 3], 6, 7)], [chunk("b", [1, 3], 7, 8)]):
        tables.send(pack(chunks, shape, {}, block_size=4, is_pinned=False))

    assert tables.buffer.data_ptr() == place
    assert tables.lengths.tolist() == [8, 1]
    assert tables.slots.tolist() == [15, -1]
    assert tables.tables.tolist() == [[1, 3, 0, 0], [0] * 4]


def test_rows_that_are_only_for_a_capture_store_nothing_and_stay_in_one_block() -> None:
    tables = tables_of([chunk("a", [7, 2], 5, 6), chunk("b", [1, 3], 6, 7)], bucket=2, rows={})

    tables.pretend(1)

    assert tables.slots.tolist() == tables.sources.tolist() == [-1, -1]
    assert tables.token_ids.tolist() == tables.positions.tolist() == [1, 1]
    assert tables.lengths.tolist() == [2, 2]
    assert not tables.tables.any()
