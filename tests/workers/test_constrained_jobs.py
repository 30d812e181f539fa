"""Jobs with a grammar on their way through a worker."""

from msgspec import structs

from storage.contract import EntryKind, JobSpec, JobStatus, OutputFormat
from storage.jobs import records
from tests.fakes import EOS, LIMITS, FakePart, FakeRunner, foretold, spec
from tests.text import tokenizers
from tests.workers.harness import Backend, assert_whole, running, text_of, tokens_of, wait_for_answer
from workers.constraint.mask_buffer import MaskBuffer
from workers.engine.runner import Chunk


class LowestAllowed(FakeRunner):
    """Samples the lowest id that a mask allows, and the end where that is allowed."""

    def __init__(self, step_s: float = 0.0) -> None:
        super().__init__(step_s)
        self._allowed: dict[str, int] = {}

    def launch(self, chunks: list[Chunk]) -> None:
        buffer = MaskBuffer(LIMITS.vocab_size)
        for chunk in chunks:
            if chunk.mask is not None and chunk.num_logits:
                buffer.fill([chunk.mask])
                number = int.from_bytes(buffer.words(1).tobytes(), "little")
                self._allowed[chunk.sequence_id] = (number & -number).bit_length() - 1
        super().launch(chunks)

    def next_token(self, part: FakePart, ids: list[int]) -> int | None:
        allowed = self._allowed.pop(part.chunk.sequence_id, None)
        return super().next_token(part, ids) if allowed is None else allowed


def letters(text: str) -> list[int]:
    ids: list[int] = tokenizers.byte_level().encode(text, add_special_tokens=False).ids
    return ids


def with_grammar(grammar: str, num_choices: int = 1) -> JobSpec:
    return structs.replace(spec(9, num_choices=num_choices), output=OutputFormat(grammar=grammar))


def ids_of(backend: Backend, job_id: str, choice: int = 0) -> list[int]:
    events = [event for entry in tokens_of(backend.log(job_id)) for event in entry.tokens if event.choice == choice]
    return [token_id for event in events for token_id in event.token_ids]


def test_every_choice_of_a_constrained_job_says_what_the_grammar_allows(backend: Backend) -> None:
    with running(backend, runner=LowestAllowed()) as bench:
        free = backend.put_job(spec(30))
        job_id = backend.put_job(with_grammar('start: "hi" /[b-d]/ "!"', num_choices=3))
        tickets = [bench.submit(free), bench.submit(job_id)]

        assert [wait_for_answer(ticket) for ticket in tickets] == ["acknowledged"] * 2

    row = backend.row(job_id)
    assert row.status is JobStatus.COMPLETED
    assert_whole(backend.log(job_id), records.result_of(row))
    for choice in range(3):
        assert ids_of(backend, job_id, choice) == [*letters("hib!"), EOS]
    assert text_of(backend.log(free)) == foretold(30)


def test_another_worker_continues_inside_the_grammar(backend: Backend) -> None:
    job_id = backend.put_job(with_grammar("start: /[b-d]{400}/"))
    with running(backend, runner=LowestAllowed(0.005)) as bench:
        bench.submit(job_id)
        backend.wait_for_tokens(job_id, 5)
    num_before = len(ids_of(backend, job_id))
    assert 0 < num_before < 400

    with running(backend, runner=LowestAllowed()) as bench:
        assert wait_for_answer(bench.submit(job_id)) == "acknowledged"

    *ids, last = ids_of(backend, job_id)
    assert set(tokenizers.byte_level().decode(ids)) <= set("bcd")
    assert (len(tokenizers.byte_level().decode(ids)), last) == (400, EOS)
    assert [entry.attempt for entry in backend.log(job_id) if entry.kind is EntryKind.START] == [1, 2]
    assert backend.row(job_id).status is JobStatus.COMPLETED


def test_a_grammar_that_does_not_compile_fails_its_job_alone(backend: Backend) -> None:
    with running(backend, runner=LowestAllowed()) as bench:
        free = backend.put_job(spec(30))
        job_id = backend.put_job(with_grammar("start: nothing_of_this_name", num_choices=2))
        tickets = [bench.submit(free), bench.submit(job_id)]

        assert [wait_for_answer(ticket) for ticket in tickets] == ["acknowledged"] * 2

    row = backend.row(job_id)
    assert row.status is JobStatus.FAILED
    assert row.failure is not None
    assert row.failure["code"] == "grammar_dead_end"
    assert backend.row(free).status is JobStatus.COMPLETED
