"""Random operations on the engine; after each one, the invariants of scheduler and blocks are checked."""

from dataclasses import replace

import msgspec
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from storage.contract import SamplingParams
from tests.engine import invariants
from tests.engine.checked import LIMITS, POISON, TEXT, CheckedRunner, expected_output, ids_of
from tests.fakes import ranked
from workers.engine.engine import Engine
from workers.engine.sequence import SequenceOutput, SequenceRequest

# Steps that all work of one example takes at the very most; more means that it goes round in circles.
MAX_STEPS = 5000
# Few different ids, so that prompts meet.
IDS = st.integers(1, 2)
PROMPTS = st.one_of(
    st.lists(IDS, min_size=1, max_size=6),
    st.integers(1, 30).map(lambda length: ([1, 2, 2, 1, 1] * 8)[:length]),
    st.tuples(st.integers(0, 17), st.lists(IDS, min_size=1, max_size=5)).map(lambda two: [1] * two[0] + two[1]),
)
SAMPLING = st.builds(
    SamplingParams,
    max_tokens=st.integers(0, 17),
    seed=st.integers(0, 3),
    ignore_eos=st.booleans(),
    stop_token_ids=st.sampled_from([(), (1, 2, 3)]),
    logprobs=st.sampled_from([None, 0, 2]),
    prompt_logprobs=st.sampled_from([None, None, None, 1]),
)
MEASURES = st.builds(
    lambda num_blocks, block_size, budget, share: replace(
        LIMITS,
        num_blocks=-(-num_blocks // block_size),
        block_size=block_size,
        max_batch_tokens=budget,
        max_prefill_tokens=share,
    ),
    st.sampled_from([48, 60, 200]),
    st.sampled_from([1, 2, 4, 8]),
    st.sampled_from([4, 7, 30]),
    st.sampled_from([1, 3, 30]),
)


class EngineMachine(RuleBasedStateMachine):
    """Sequences come, go, share, break, overtake and resume in any order."""

    @initialize(limits=MEASURES, num_ahead=st.integers(0, 1), is_calm=st.booleans())
    def begin(self, limits: object, num_ahead: int, is_calm: bool) -> None:
        self.is_calm = is_calm
        self.runner = CheckedRunner(limits, num_ahead)  # type: ignore[arg-type]  # hypothesis tells no type
        self.now = 0.0
        limits = replace(self.runner.limits, aging_after_s=10.0)
        self.engine = Engine(self.runner, TEXT, limits, clock=lambda: self.now)
        self.requests: dict[str, SequenceRequest] = {}
        self.outputs: dict[str, list[SequenceOutput]] = {}
        self.emitted: dict[str, list[int]] = {}
        self.cancelled: set[str] = set()

    @rule(
        prompt=PROMPTS,
        sampling=SAMPLING,
        priority=st.integers(-1, 1),
        salt=st.sampled_from(["", "mine", "yours"]),
        num_emitted=st.sampled_from([0, 0, 1, 5]),
        num_choices=st.integers(1, 4),
        poisoned_at=st.sampled_from([None, None, None, 0, 5, 12]),
    )
    def add(
        self,
        prompt: list[int],
        sampling: SamplingParams,
        priority: int,
        salt: str,
        num_emitted: int,
        num_choices: int,
        poisoned_at: int | None,
    ) -> None:
        if poisoned_at is not None and poisoned_at < len(prompt):
            prompt = [*prompt[:poisoned_at], POISON, *prompt[poisoned_at:]]
        for choice in range(num_choices):
            whole = SequenceRequest(
                sequence_id=f"s{len(self.requests)}",
                prompt=tuple(prompt),
                sampling=msgspec.structs.replace(sampling, seed=sampling.seed + choice),
                priority=priority,
                cache_salt=salt,
            )
            emitted = tuple(expected_output(whole)[0][:num_emitted])
            self.requests[whole.sequence_id] = whole
            self.outputs[whole.sequence_id] = []
            self.emitted[whole.sequence_id] = list(emitted)
            self.engine.add(msgspec.structs.replace(whole, emitted=emitted))

    @rule(num_steps=st.integers(1, 6))
    def step(self, num_steps: int) -> None:
        for _ in range(num_steps):
            for output in self.engine.step():
                got = self.outputs[output.sequence_id]
                assert output.sequence_id not in self.cancelled
                assert not (got and got[-1].is_last)
                got.append(output)
            invariants.check(self.engine)

    @rule(seconds=st.floats(0.1, 20.0))
    def pass_time(self, seconds: float) -> None:
        self.now += seconds

    @precondition(lambda self: self.requests)
    @rule(data=st.data())
    def cancel(self, data: st.DataObject) -> None:
        name = data.draw(st.sampled_from(sorted(self.requests)))
        self.engine.cancel(name)
        if name in self.open:
            self.cancelled.add(name)

    @precondition(lambda self: not self.is_calm)
    @rule(is_late=st.booleans())
    def break_the_next_step(self, is_late: bool) -> None:
        if is_late:
            self.runner.num_failed_outputs = 1
        else:
            self.runner.num_faults = 1

    @precondition(lambda self: not self.is_calm)
    @rule(max_step_tokens=st.integers(1, 4), num_steps=st.integers(1, 3))
    def run_out_of_memory(self, max_step_tokens: int, num_steps: int) -> None:
        self.runner.max_step_tokens = max_step_tokens
        self.runner.num_memory_faults = num_steps

    @precondition(lambda self: self.requests and not self.is_calm)
    @rule(data=st.data(), is_breaking=st.booleans())
    def spoil_a_sequence(self, data: st.DataObject, is_breaking: bool) -> None:
        name = data.draw(st.sampled_from(sorted(self.requests)))
        (self.runner.breaking if is_breaking else self.runner.not_finite).add(name)

    @property
    def open(self) -> set[str]:
        """Requests that have yet to end."""
        return {name for name, got in self.outputs.items() if not (got and got[-1].is_last)} - self.cancelled

    @invariant()
    def the_engine_is_in_order(self) -> None:
        if hasattr(self, "engine"):
            invariants.check(self.engine)
            ready = {output.sequence_id for output in self.engine._ready}
            assert set(self.engine._sequence_by_id) | ready == self.open

    def teardown(self) -> None:
        if not hasattr(self, "engine"):
            return
        for _ in range(MAX_STEPS):
            if not self.engine.has_work:
                break
            self.step(1)
        assert not self.open
        for name in self.requests.keys() - self.cancelled:
            self.check_output(name)
        stats = self.engine.stats()
        assert stats.num_blocks_used == stats.num_running == stats.num_waiting == 0

    def check_output(self, name: str) -> None:
        request, got = self.requests[name], self.outputs[name]
        ids, finish = expected_output(request)
        all_ids = self.emitted[name] + ids_of(got)
        if got[-1].failure is None:
            assert all_ids == ids
            assert got[-1].finish is finish
            # Only a request that its emitted ids had ended already gets past its poison.
            assert POISON not in request.prompt or (self.emitted[name] and not ids_of(got))
        else:
            assert all_ids == ids[: len(all_ids)]
        self.check_failure(request, got[-1])
        self.check_logprobs(request, got)
        self.check_num_cached(request, got)

    def check_failure(self, request: SequenceRequest, last: SequenceOutput) -> None:
        code = None if last.failure is None else last.failure.code
        if code == "numerical_error":
            assert request.sequence_id in self.runner.not_finite or POISON in request.prompt

    def check_logprobs(self, request: SequenceRequest, got: list[SequenceOutput]) -> None:
        tokens = [*request.prompt, *self.emitted[request.sequence_id]]
        for output in got:
            for token_id, reported in zip(
                output.token_ids, output.logprobs, strict=request.sampling.logprobs is not None
            ):
                assert reported == ranked(tokens, token_id, request.sampling.logprobs or 0)
                tokens.append(token_id)
        asked = request.sampling.prompt_logprobs
        if asked is None or self.emitted[request.sequence_id] or got[0].failure is not None:
            assert not any(output.prompt_logprobs for output in got)
            return
        expected = [ranked(list(request.prompt[:i]), request.prompt[i], asked) for i in range(1, len(request.prompt))]
        assert list(got[0].prompt_logprobs) == expected
        assert got[0].num_cached == 0

    def check_num_cached(self, request: SequenceRequest, got: list[SequenceOutput]) -> None:
        assert not any(output.num_cached for output in got[1:])
        if got[0].num_cached:
            # It meets somebody of its own owner who came before.
            others = [one for one in self.requests.values() if one is not request]
            assert (
                any(
                    one.cache_salt == request.cache_salt
                    and [*one.prompt, *expected_output(one)[0]][: got[0].num_cached]
                    == list(request.prompt)[: got[0].num_cached]
                    for one in others
                )
                or self.engine.stats().num_preemptions
                or self.runner.num_resets
            )
            assert got[0].num_cached < len(request.prompt) + len(self.emitted[request.sequence_id])


EngineMachine.TestCase.settings = settings(max_examples=80, stateful_step_count=40, deadline=None)
test_random_operations = EngineMachine.TestCase
