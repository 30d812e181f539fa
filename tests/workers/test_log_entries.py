"""Which entries a log lacks, and the usage of what it holds."""

from msgspec import structs

from storage.broker.event_log import Tail
from storage.contract import EntryKind, JobSpec, OutputFormat, SamplingParams, ThinkingLimits, TokenEvent
from workers.publishing.log_entries import missing_rows, usage_of

ENTRIES = tuple((TokenEvent(choice=0, token_ids=(n,), text=f"{n}"),) for n in range(1, 5))


def _ids(tail: Tail | None) -> list[tuple[int, int, int]]:
    rows = missing_rows("cmpl-1", 2, ENTRIES, tail)
    return [(attempt, seq, kind) for _, attempt, seq, kind, _ in rows]


START = (2, 0, EntryKind.START)


def _tokens(*seqs: int) -> list[tuple[int, int, int]]:
    return [(2, seq, EntryKind.TOKENS) for seq in seqs]


def test_a_log_that_is_gone_lacks_everything() -> None:
    assert _ids(None) == [START, *_tokens(1, 2, 3, 4)]


def test_a_log_that_lost_its_tail_lacks_the_tail() -> None:
    assert _ids(Tail((2, 3), 3)) == _tokens(4)
    assert _ids(Tail((2, 4), 4)) == []


def test_a_log_that_lost_the_start_of_an_attempt_gets_it_again() -> None:
    assert _ids(Tail((1, 2), 2)) == [START, *_tokens(3, 4)]


def test_after_a_start_comes_what_the_log_lacks() -> None:
    assert _ids(Tail((2, 0), 2)) == _tokens(3, 4)
    assert _ids(Tail((2, 0), 0)) == _tokens(1, 2, 3, 4)
    assert _ids(Tail((1, 0), 2)) == [START, *_tokens(3, 4)]


def test_a_log_of_a_higher_attempt_is_left_alone() -> None:
    assert _ids(Tail((3, 0), 0)) == []


def test_usage_counts_the_tokens_of_thoughts_of_every_choice() -> None:
    thinking = ThinkingLimits(opening="<think>", closing="</think>", closing_ids=(9,), is_open=True)
    asked = JobSpec(
        prompts=((1, 2),),
        num_choices=2,
        sampling=SamplingParams(max_tokens=9),
        output=OutputFormat(thinking=thinking),
    )
    texts = ("a", "b</think>", "c")
    entries = tuple(
        tuple(TokenEvent(choice=choice, token_ids=(n, n), text=text) for choice in range(2))
        for n, text in enumerate(texts)
    )

    usage = usage_of(asked, entries)

    assert (usage.prompt_tokens, usage.completion_tokens, usage.reasoning_tokens) == (2, 12, 8)
    assert usage_of(structs.replace(asked, output=None), entries).reasoning_tokens == 0
