"""Log probabilities from the engine into events."""

from math import inf

from storage.broker.event_log import decode_entry, encode_tokens
from storage.contract import (
    MIN_LOGPROB,
    Candidate,
    EntryKind,
    EventLogprobs,
    JobSpec,
    SamplingParams,
    TokenEvent,
    TokenLogprobs,
)
from storage.jobs import records
from tests.fakes import EOS, FakeRunner, prompt, spec
from tests.workers.harness import Bench, FakeSpelling, Ground, assert_whole, running, tokens_of, wait_for_answer
from workers.engine.runner import Ranked
from workers.engine.sequence import SequenceOutput
from workers.generation.logprob_bytes import LogprobTeller, teller_of

ASKED = SamplingParams(max_tokens=9, logprobs=1, prompt_logprobs=0)
SPEC = JobSpec(prompts=((EOS, 5, 6),), sampling=ASKED, num_choices=2)
SPELLING = FakeSpelling()


def _output(*ranked: Ranked, prompt: tuple[Ranked, ...] = ()) -> SequenceOutput:
    ids = tuple(one.token_id for one in ranked)
    return SequenceOutput(sequence_id="a", token_ids=ids, text="", logprobs=ranked, prompt_logprobs=prompt)


def _spelled(told: EventLogprobs) -> list[bytes]:
    return [token.chosen.data for token in told.tokens]


def test_every_candidate_is_told_with_its_bytes() -> None:
    output = _output(Ranked(7, -0.5, ((9, -0.25), (EOS, -3.0))))

    assert LogprobTeller(SPEC).tell(0, output, SPELLING).tokens == (
        TokenLogprobs(Candidate(7, b"w7", -0.5), (Candidate(9, b"w9", -0.25), Candidate(EOS, b"", -3.0))),
    )


def test_what_cannot_be_is_told_as_a_number_that_the_log_can_hold() -> None:
    told = LogprobTeller(SPEC).tell(0, _output(Ranked(7, -inf, ((8, -inf),))), SPELLING)
    event = TokenEvent(choice=0, token_ids=(7,), text="w7", logprobs=told)

    entry = decode_entry(1, 1, EntryKind.TOKENS, encode_tokens([event]))

    assert entry.tokens == (event,)
    assert {one.logprob for one in (told.tokens[0].chosen, *told.tokens[0].top)} == {MIN_LOGPROB}


def test_a_text_begins_with_its_first_token_that_has_text() -> None:
    teller = LogprobTeller(SPEC)

    first = teller.tell(0, _output(Ranked(EOS, 0.0), Ranked(7, 0.0)), SPELLING)
    second = teller.tell(0, _output(Ranked(8, 0.0)), SPELLING)
    of_another_choice = teller.tell(1, _output(Ranked(8, 0.0)), SPELLING)

    assert [_spelled(told) for told in (first, second, of_another_choice)] == [[b"", b"w7"], [b" w8"], [b"w8"]]


def test_a_resumed_text_has_begun() -> None:
    teller = LogprobTeller(SPEC)
    teller.resume({0: [EOS, 7], 1: [EOS]})

    assert _spelled(teller.tell(0, _output(Ranked(8, 0.0)), SPELLING)) == [b" w8"]
    assert _spelled(teller.tell(1, _output(Ranked(8, 0.0)), SPELLING)) == [b"w8"]


def test_a_prompt_is_told_but_its_first_token() -> None:
    output = _output(Ranked(7, 0.0), prompt=(Ranked(5, -1.0), Ranked(6, -2.0)))

    assert LogprobTeller(SPEC).tell(0, output, SPELLING).prompt == (
        TokenLogprobs(Candidate(5, b"w5", -1.0)),
        TokenLogprobs(Candidate(6, b" w6", -2.0)),
    )


def test_a_job_that_asks_for_none_has_no_teller() -> None:
    assert teller_of(spec(5)) is None
    assert teller_of(SPEC) is not None


def _asking(num_tokens: int) -> JobSpec:
    sampling = SamplingParams(max_tokens=2000, seed=11, logprobs=2, prompt_logprobs=1)
    return JobSpec(prompts=(prompt(num_tokens), prompt(num_tokens, salt=5)), sampling=sampling, num_choices=2)


def _told(ground: Ground, job_id: str) -> dict[int, list[EventLogprobs | None]]:
    """What the job's events tell, by choice."""
    result = records.result_of(ground.row(job_id))
    assert_whole(ground.log(job_id), result)
    events: dict[int, list[TokenEvent]] = {}
    for entry in result.entries:
        for event in entry:
            events.setdefault(event.choice, []).append(event)
    return {choice: [event.logprobs for event in events[choice]] for choice in sorted(events)}


def test_a_job_tells_each_of_its_tokens_once(ground: Ground, bench: Bench) -> None:
    job_id = ground.put_job(_asking(4))

    wait_for_answer(bench.submit(job_id))

    told = _told(ground, job_id)
    assert list(told) == [0, 1, 2, 3]
    for events in told.values():
        assert [len(event.tokens) if event is not None else None for event in events] == [1] * 5
        assert [len(event.prompt) if event is not None else None for event in events] == [3, 0, 0, 0, 0]


def test_a_resumed_job_tells_nothing_twice(ground: Ground) -> None:
    with running(ground) as bench:
        wait_for_answer(bench.submit(whole := ground.put_job(_asking(40))))

    job_id = ground.put_job(_asking(40))
    with running(ground, runner=FakeRunner(step_s=0.01)) as bench:
        bench.submit(job_id)
        ground.wait_for_tokens(job_id, 5)
    assert 5 <= len(tokens_of(ground.log(job_id))) < 40
    with running(ground) as bench:
        wait_for_answer(bench.submit(job_id))

    assert _told(ground, job_id) == _told(ground, whole)
