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
from tests.workers.harness import Backend, Bench, FakeTokenBytes, assert_whole, running, tokens_of, wait_for_answer
from workers.engine.runner import Ranked
from workers.engine.sequence import SequenceOutput
from workers.generation.pipeline.logprob_bytes import LogprobFormatter, formatter_of

ASKED = SamplingParams(max_tokens=9, logprobs=1, prompt_logprobs=0)
SPEC = JobSpec(prompts=((EOS, 5, 6),), sampling=ASKED, num_choices=2)
# A prompt that ends with a special token, as a chat's: the text begins anew.
TURN_SPEC = JobSpec(prompts=((EOS, 5, 6, EOS),), sampling=ASKED, num_choices=2)
TOKEN_BYTES = FakeTokenBytes()


def _output(*ranked: Ranked, prompt: tuple[Ranked, ...] = ()) -> SequenceOutput:
    ids = tuple(one.token_id for one in ranked)
    return SequenceOutput(sequence_id="a", token_ids=ids, text="", logprobs=ranked, prompt_logprobs=prompt)


def _with_bytes(reported: EventLogprobs) -> list[bytes]:
    return [token.chosen.data for token in reported.tokens]


def test_every_candidate_is_formatted_with_its_bytes() -> None:
    output = _output(Ranked(7, -0.5, ((9, -0.25), (EOS, -3.0))))

    assert LogprobFormatter(TURN_SPEC).format(0, output, TOKEN_BYTES).tokens == (
        TokenLogprobs(Candidate(7, b"w7", -0.5), (Candidate(9, b"w9", -0.25), Candidate(EOS, b"", -3.0))),
    )


def test_what_cannot_be_is_formatted_as_a_number_that_the_log_can_hold() -> None:
    reported = LogprobFormatter(SPEC).format(0, _output(Ranked(7, -inf, ((8, -inf),))), TOKEN_BYTES)
    event = TokenEvent(choice=0, token_ids=(7,), text="w7", logprobs=reported)

    entry = decode_entry(1, 1, EntryKind.TOKENS, encode_tokens([event]))

    assert entry.tokens == (event,)
    assert {one.logprob for one in (reported.tokens[0].chosen, *reported.tokens[0].top)} == {MIN_LOGPROB}


def test_a_text_begins_with_its_first_token_that_has_text() -> None:
    formatter = LogprobFormatter(TURN_SPEC)

    first = formatter.format(0, _output(Ranked(EOS, 0.0), Ranked(7, 0.0)), TOKEN_BYTES)
    second = formatter.format(0, _output(Ranked(8, 0.0)), TOKEN_BYTES)
    of_another_choice = formatter.format(1, _output(Ranked(8, 0.0)), TOKEN_BYTES)

    assert [_with_bytes(reported) for reported in (first, second, of_another_choice)] == [
        [b"", b"w7"],
        [b" w8"],
        [b"w8"],
    ]


def test_a_text_goes_on_from_a_prompt_that_ends_with_text() -> None:
    output = _output(Ranked(7, 0.0))

    assert _with_bytes(LogprobFormatter(SPEC).format(0, output, TOKEN_BYTES)) == [b" w7"]


def test_a_resumed_text_has_begun() -> None:
    formatter = LogprobFormatter(TURN_SPEC)
    formatter.resume({0: [EOS, 7], 1: [EOS]})

    assert _with_bytes(formatter.format(0, _output(Ranked(8, 0.0)), TOKEN_BYTES)) == [b" w8"]
    assert _with_bytes(formatter.format(1, _output(Ranked(8, 0.0)), TOKEN_BYTES)) == [b"w8"]


def test_a_prompt_is_formatted_but_its_first_token() -> None:
    output = _output(Ranked(7, 0.0), prompt=(Ranked(5, -1.0), Ranked(6, -2.0)))

    assert LogprobFormatter(SPEC).format(0, output, TOKEN_BYTES).prompt == (
        TokenLogprobs(Candidate(5, b"w5", -1.0)),
        TokenLogprobs(Candidate(6, b" w6", -2.0)),
    )


def test_a_job_that_asks_for_none_has_no_formatter() -> None:
    assert formatter_of(spec(5)) is None
    assert formatter_of(SPEC) is not None


def _asking(num_tokens: int) -> JobSpec:
    sampling = SamplingParams(max_tokens=2000, seed=11, logprobs=2, prompt_logprobs=1)
    return JobSpec(prompts=(prompt(num_tokens), prompt(num_tokens, salt=5)), sampling=sampling, num_choices=2)


def _reported(backend: Backend, job_id: str) -> dict[int, list[EventLogprobs | None]]:
    """What the job's events tell, by choice."""
    result = records.result_of(backend.row(job_id))
    assert_whole(backend.log(job_id), result)
    events: dict[int, list[TokenEvent]] = {}
    for entry in result.entries:
        for event in entry:
            events.setdefault(event.choice, []).append(event)
    return {choice: [event.logprobs for event in events[choice]] for choice in sorted(events)}


def test_a_job_tells_each_of_its_tokens_once(backend: Backend, bench: Bench) -> None:
    job_id = backend.put_job(_asking(4))

    wait_for_answer(bench.submit(job_id))

    reported = _reported(backend, job_id)
    assert list(reported) == [0, 1, 2, 3]
    for events in reported.values():
        assert [len(event.tokens) if event is not None else None for event in events] == [1] * 5
        assert [len(event.prompt) if event is not None else None for event in events] == [3, 0, 0, 0, 0]


def test_a_resumed_job_tells_nothing_twice(backend: Backend) -> None:
    with running(backend) as bench:
        wait_for_answer(bench.submit(whole := backend.put_job(_asking(40))))

    job_id = backend.put_job(_asking(40))
    with running(backend, runner=FakeRunner(step_s=0.01)) as bench:
        bench.submit(job_id)
        backend.wait_for_tokens(job_id, 5)
    assert 5 <= len(tokens_of(backend.log(job_id))) < 40
    with running(backend) as bench:
        wait_for_answer(bench.submit(job_id))

    assert _reported(backend, job_id) == _reported(backend, whole)
