"""Random operations on the engine; after each one, the invariants of scheduler and rows are checked."""

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from storage.contract import SamplingParams
from tests.engine.checked import LIMITS, TEXT, CheckedRunner, expected_output, ids_of
from workers.engine.engine import Engine
from workers.engine.sequence import SequenceOutput, SequenceRequest

IDS = st.integers(1, LIMITS.vocab_size - 1)


class EngineMachine(RuleBasedStateMachine):
    """Sequences come, go, break and resume in any order."""

    def __init__(self) -> None:
        super().__init__()
        self.runner = CheckedRunner()
        self.engine = Engine(self.runner, TEXT, LIMITS)
        self.requests: dict[str, SequenceRequest] = {}
        self.outputs: dict[str, list[SequenceOutput]] = {}
        self.cancelled: set[str] = set()

    @rule(
        prompt=st.lists(IDS, min_size=1, max_size=20),
        max_tokens=st.integers(1, 12),
        seed=st.integers(0, 3),
        priority=st.integers(-1, 1),
        num_emitted=st.integers(0, 4),
    )
    def add(self, prompt: list[int], max_tokens: int, seed: int, priority: int, num_emitted: int) -> None:
        request = SequenceRequest(
            sequence_id=f"s{len(self.requests)}",
            prompt=tuple(prompt),
            sampling=SamplingParams(max_tokens=max_tokens, seed=seed),
            priority=priority,
        )
        emitted = tuple(expected_output(request)[0][:num_emitted])
        self.requests[request.sequence_id] = request
        self.outputs[request.sequence_id] = [
            SequenceOutput(sequence_id=request.sequence_id, token_ids=emitted, text=TEXT._decode(list(emitted)))
        ]
        self.engine.add(
            SequenceRequest(
                sequence_id=request.sequence_id,
                prompt=request.prompt,
                sampling=request.sampling,
                emitted=emitted,
                priority=priority,
            )
        )

    @rule()
    def step(self) -> None:
        for output in self.engine.step():
            assert output.sequence_id not in self.cancelled
            assert not self.outputs[output.sequence_id][-1].is_last
            self.outputs[output.sequence_id].append(output)

    @precondition(lambda self: self.requests)
    @rule(data=st.data())
    def cancel(self, data: st.DataObject) -> None:
        name = data.draw(st.sampled_from(sorted(self.requests)))
        self.engine.cancel(name)
        if not self.outputs[name][-1].is_last:
            self.cancelled.add(name)

    @rule()
    def break_the_next_step(self) -> None:
        self.runner.num_faults = 1

    @precondition(lambda self: self.requests)
    @rule(data=st.data(), is_breaking=st.booleans())
    def spoil_a_sequence(self, data: st.DataObject, is_breaking: bool) -> None:
        name = data.draw(st.sampled_from(sorted(self.requests)))
        (self.runner.breaking if is_breaking else self.runner.not_finite).add(name)

    @invariant()
    def rows_are_held_without_a_gap_by_those_that_run(self) -> None:
        rows = list(self.engine._scheduler.rows)
        assert [sequence.row for sequence in rows] == list(range(len(rows)))
        assert not any(self.runner.rows[len(rows) :])
        for sequence in rows:
            assert self.runner.rows[sequence.row or 0] == sequence.tokens[: sequence.num_computed]

    @invariant()
    def everyone_is_running_or_waiting_or_has_ended(self) -> None:
        open_ = {name for name, got in self.outputs.items() if not got[-1].is_last} - self.cancelled
        ready = {output.sequence_id for output in self.engine._ready}
        assert set(self.engine._sequence_by_id) | ready == open_
        assert self.engine.num_running + self.engine.num_waiting == len(self.engine._sequence_by_id)
        assert {suspect.sequence_id for suspect in self.engine._scheduler.suspects} <= open_

    def teardown(self) -> None:
        while self.engine.has_work:
            self.step()
        for name, request in self.requests.items():
            if name not in self.cancelled:
                self.check_output(name, request)

    def check_output(self, name: str, request: SequenceRequest) -> None:
        got, (ids, finish) = self.outputs[name], expected_output(request)
        assert got[-1].is_last
        if got[-1].failure is None:
            assert ids_of(got) == ids
            assert got[-1].finish is finish
        else:
            assert ids_of(got) == ids[: len(ids_of(got))]
            assert name in self.runner.breaking | self.runner.not_finite or got[-1].failure.code == "engine_fault"


EngineMachine.TestCase.settings = settings(max_examples=60, stateful_step_count=50, deadline=None)
test_random_operations = EngineMachine.TestCase
