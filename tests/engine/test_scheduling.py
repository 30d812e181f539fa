"""Who computes when: budget, places, blocks, priorities, and what is launched before the last tokens are known."""

from dataclasses import replace

import pytest

from tests.engine import invariants
from tests.engine.checked import LIMITS, TEXT, CheckedRunner, expected_output, ids_of, request, run, said
from workers.engine.engine import Engine
from workers.engine.sequence import SequenceRequest
from workers.engine.step_limits import EngineLimits

# Two sequences of the longest kind fit.
TIGHT = replace(LIMITS, num_blocks=24)


def engine_of(limits: EngineLimits = LIMITS, num_ahead: int = 0) -> tuple[Engine, CheckedRunner]:
    runner = CheckedRunner(limits, num_ahead)
    return Engine(runner, TEXT, limits), runner


def steps(engine: Engine, count: int) -> list[list[str]]:
    """Who had an output in each of so many steps."""
    return [[output.sequence_id for output in engine.step()] for _ in range(count)]


def named(*names: str, **changes: object) -> list[SequenceRequest]:
    """Requests with prompts of their own."""
    return [
        request(name, prompt=(2 + index, *(1,) * 6), ignore_eos=True, **changes)  # type: ignore[arg-type]  # by name
        for index, name in enumerate(names)
    ]


def test_a_long_prompt_is_computed_in_chunks_and_does_not_stop_running_sequences() -> None:
    engine, _ = engine_of()
    engine.add(request("running", seed=1, max_tokens=20))
    engine.step()
    engine.add(request("long", num_prompt=30, prompt=(2,) * 30))

    assert steps(engine, 5) == [["running"]] * 4 + [["running", "long"]]


def test_prompts_get_a_share_of_a_step_while_others_decode_and_all_of_it_otherwise() -> None:
    engine, runner = engine_of(replace(LIMITS, max_batch_tokens=20, max_prefill_tokens=3))
    engine.add(request("first", prompt=(2,) * 25, max_tokens=8, ignore_eos=True))
    steps(engine, 2)
    engine.add(request("second", prompt=(3,) * 10, max_tokens=1))
    steps(engine, 5)

    assert runner.sizes == [20, 5, 4, 4, 4, 2, 1]


def test_many_prompts_are_not_held_back_for_one_stream() -> None:
    engine, runner = engine_of(replace(LIMITS, max_batch_tokens=20, max_prefill_tokens=3))
    engine.add(request("stream", prompt=(2,) * 4, max_tokens=20, ignore_eos=True))
    engine.step()
    for first in (3, 4, 5):
        engine.add(request(f"num_others{first}", prompt=(first,) * 18, max_tokens=1))

    engine.step()

    # Two more than one wait beside one that streams: two thirds of the step are theirs.
    assert runner.sizes == [4, 1 + 20 * 2 // 3]


def test_background_prompts_hold_up_no_stream_and_no_prompt_of_a_caller() -> None:
    engine, runner = engine_of(replace(LIMITS, max_batch_tokens=40, max_prefill_tokens=12, num_blocks=200))
    engine.add(request("stream", prompt=(2,) * 4, max_tokens=20, ignore_eos=True))
    engine.step()
    for first in (3, 4, 5):
        engine.add(request(f"background-{first}", prompt=(first,) * 18, max_tokens=9, ignore_eos=True, priority=10))
    # A token of the stream, and a quarter of what a prompt may take beside it.
    steps(engine, 2)
    assert runner.sizes[-2:] == [4, 4]

    engine.add(request("caller", prompt=(6,) * 10, max_tokens=1))
    [outputs] = steps(engine, 1)

    assert outputs == ["stream", "caller"]
    assert runner.sizes[-1] <= 1 + 10 + 3


def test_background_prompts_have_whole_steps_while_no_caller_waits() -> None:
    engine, runner = engine_of(replace(LIMITS, max_batch_tokens=40, max_prefill_tokens=12, num_blocks=200))
    for first in (3, 4):
        engine.add(request(f"background-{first}", prompt=(first,) * 18, max_tokens=2, ignore_eos=True, priority=10))
    engine.step()

    assert runner.sizes == [36]


def test_a_lower_priority_number_leaves_the_waiting_line_first() -> None:
    engine, runner = engine_of()
    for name, priority in (("late", 5), ("normal", 0), ("first", -1), ("second", 0)):
        engine.add(request(name, prompt=(5 + priority,) * 7, priority=priority))

    steps(engine, 4)

    entered = list(dict.fromkeys(name for batch in runner.batches for name in batch))
    assert entered == ["first", "normal", "second", "late"]


@pytest.mark.parametrize("num_ahead", [0, 1])
def test_one_with_a_better_priority_takes_the_place_of_the_last_with_a_worse(num_ahead: int) -> None:
    engine, _ = engine_of(num_ahead=num_ahead)
    batch = named("b0", "b1", "b2", "b3", priority=10, max_tokens=20)
    for one in batch:
        engine.add(one)
    steps(engine, 8)
    (urgent,) = named("urgent", max_tokens=4)
    engine.add(urgent)

    names = steps(engine, 3 + num_ahead)

    assert "urgent" in names[-1]
    assert "b3" not in names[-1]
    assert engine.stats().num_preemptions == 1
    rest = run(engine)
    ids = {one.sequence_id: expected_output(one)[0] for one in (*batch, urgent)}
    assert all(ids_of(got) == ids[name][-len(ids_of(got)) :] for name, got in rest.items())
    assert {name for name, got in rest.items() if got[-1].is_last} == set(ids)


def test_equal_priorities_do_not_push_each_other_out() -> None:
    engine, _ = engine_of()
    for one in named("a", "b", "c", "d", "e", max_tokens=20):
        engine.add(one)

    steps(engine, 12)

    assert (engine.num_running, engine.num_waiting) == (4, 1)
    assert engine.stats().num_preemptions == 0


@pytest.mark.parametrize("num_ahead", [0, 1])
def test_when_blocks_run_out_the_last_is_preempted_and_prefills_again(num_ahead: int) -> None:
    engine, _ = engine_of(TIGHT, num_ahead)
    requests = named("a", "b", "c", "d", max_tokens=41)

    outputs = run(engine, *requests)

    assert {name: ids_of(got) for name, got in outputs.items()} == {
        one.sequence_id: expected_output(one)[0] for one in requests
    }
    assert engine.stats().num_preemptions >= 2


def test_the_first_in_order_goes_on_in_every_step_however_short_blocks_are() -> None:
    engine, _ = engine_of(TIGHT)
    for one in named("a", "b", "c", "d", max_tokens=40):
        engine.add(one)
    steps(engine, 1)

    assert all("a" in names for names in steps(engine, 39))


@pytest.mark.parametrize("num_ahead", [0, 1])
def test_choices_of_one_prompt_compute_it_once(num_ahead: int) -> None:
    engine, runner = engine_of(replace(LIMITS, max_batch_tokens=30, max_prefill_tokens=30), num_ahead)
    choices = [request(f"c{i}", prompt=tuple(range(1, 14)), seed=i, max_tokens=2, ignore_eos=True) for i in range(4)]

    outputs = run(engine, *choices)

    assert runner.sizes[0] == 13 + 3
    assert [got[0].num_cached for got in outputs.values()] == [0, 12, 12, 12]
    stats = engine.stats()
    assert (stats.num_prompt_tokens, stats.num_cached_tokens, stats.num_output_tokens) == (52, 36, 8)


def test_one_that_overtakes_whoever_computes_its_prefix_waits_for_it() -> None:
    engine, _ = engine_of()
    engine.add(request("slow", prompt=tuple(range(1, 22)), priority=1))
    steps(engine, 1)
    engine.add(request("urgent", prompt=(*range(1, 18), 30)))

    outputs = run(engine)

    assert outputs["urgent"][0].num_cached == 16
    assert outputs["slow"][0].num_cached == 0
    assert engine.stats().num_cached_tokens == 16


def test_another_owner_finds_nothing() -> None:
    engine, _ = engine_of()
    prompt = tuple(range(1, 14))
    outputs = run(engine, *(request(salt, prompt=prompt, cache_salt=salt) for salt in ("mine", "yours")))
    again = run(engine, request("again", prompt=prompt, cache_salt="mine"))

    assert [outputs["mine"][0].num_cached, outputs["yours"][0].num_cached] == [0, 0]
    assert again["again"][0].num_cached == 12


def test_the_next_turn_of_a_chat_finds_prompt_and_output() -> None:
    engine, _ = engine_of()
    first = request("first", prompt=(1, 2, 3, 4, 5), max_tokens=9, ignore_eos=True)
    answer = ids_of(run(engine, first)["first"])

    second = run(engine, request("second", prompt=(*first.prompt, *answer, 7)))

    # The last token of an answer is not computed, so the block that it would have filled is not there.
    assert second["second"][0].num_cached == 12


@pytest.mark.parametrize("num_ahead", [0, 1])
def test_log_probabilities_of_a_prompt_are_recomputed_and_reported_once(num_ahead: int) -> None:
    engine, runner = engine_of(num_ahead=num_ahead)
    prompt = tuple(range(1, 18))
    run(engine, request("before", prompt=prompt))
    asking = request("asking", prompt=prompt, prompt_logprobs=2, logprobs=1, max_tokens=3, ignore_eos=True)

    got = run(engine, asking)["asking"]

    assert [len(output.prompt_logprobs) for output in got] == [16, 0, 0]
    assert [len(output.logprobs) for output in got] == [1, 1, 1]
    assert got[0].num_cached == 0
    assert [ranked.token_id for ranked in got[0].prompt_logprobs] == list(prompt[1:])
    assert runner.asked[-1] is None


def test_a_prompt_can_be_read_without_an_answer() -> None:
    engine, _ = engine_of()
    (got,) = run(engine, request("s", prompt=tuple(range(1, 14)), max_tokens=0, prompt_logprobs=0))["s"]

    assert (got.token_ids, got.text, got.finish) == ((), "", "length")
    assert len(got.prompt_logprobs) == 12
    assert engine.stats().num_output_tokens == 0


def test_one_step_ahead_the_next_launch_is_made_before_the_last_is_collected() -> None:
    engine, runner = engine_of(num_ahead=1)
    engine.add(request("s", max_tokens=4, ignore_eos=True))

    launched = [(len(engine.step()), len(runner.batches)) for _ in range(4)]

    # The fourth token is the last, so that nothing is launched beyond it.
    assert launched == [(1, 2), (1, 3), (1, 4), (1, 4)]
    assert not engine.has_work


def test_one_step_ahead_a_superfluous_token_is_dropped_and_its_blocks_are_given_back_after_it() -> None:
    engine, runner = engine_of(num_ahead=1)
    whole = request("s", max_tokens=20, ignore_eos=True)
    ids = expected_output(whole)[0]
    stopping = request("s", max_tokens=20, ignore_eos=True, stop_token_ids=(ids[3],))
    engine.add(stopping)

    names = steps(engine, 4)
    held = engine.stats().num_blocks_used
    last = engine.step()

    assert names == [["s"]] * 4
    assert held > 0
    assert last == []
    assert engine.stats().num_blocks_used == 0
    assert len(runner.batches) == 5
    assert not engine.has_work


@pytest.mark.parametrize("num_ahead", [0, 1])
@pytest.mark.parametrize("num_blocks", [12, 17, 48])
@pytest.mark.parametrize("block_size", [1, 2, 4])
def test_how_much_fits_and_how_it_is_cut_makes_no_difference(num_ahead: int, num_blocks: int, block_size: int) -> None:
    limits = replace(LIMITS, block_size=block_size, num_blocks=num_blocks * 4 // block_size)
    engine, _ = engine_of(limits, num_ahead)
    requests = [
        request(f"s{i}", prompt=(1, 2, 1, 2, 1, 2, 1, 2, 1)[: 3 + i % 7], seed=i % 3, max_tokens=10 + i)
        for i in range(20)
    ]

    outputs = run(engine, *requests)

    roomy, _ = engine_of(replace(LIMITS, num_blocks=1000))
    assert said(outputs) == said({one.sequence_id: run(roomy, one)[one.sequence_id] for one in requests})
    invariants.check(engine)
    stats = engine.stats()
    assert stats.num_blocks_used == stats.num_running == stats.num_waiting == stats.num_step_faults == 0
    assert stats.num_blocks == limits.num_blocks
