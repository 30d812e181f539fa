"""Text of outputs with a format: markers, spans in which stop strings do not count, and tokens of thoughts."""

import itertools

import pytest

from storage.contract import MARKER_SIGN, JobSpec, OutputFormat, SamplingParams, ThinkingLimits, TokenEvent
from storage.spans import SpanScanner, ThoughtMeter, reasoning_tokens
from workers.text.stream import TextFactory, TextStream

# Ids are letters from "A" on; these two have names instead, and one letter is the sign itself.
THINK, END, SIGN_LETTER = 61, 62, 63
NAMES = {THINK: "<think>", END: "</think>"}
THINKING = ThinkingLimits(opening=f"{MARKER_SIGN}<think>", closing=f"{MARKER_SIGN}</think>", closing_ids=(END,))
FACTORY = TextFactory(
    decode=lambda ids: "".join(MARKER_SIGN if one == SIGN_LETTER else chr(64 + one) for one in ids if one not in NAMES),
    spoken=[*range(1, 61), SIGN_LETTER],
    token_of=NAMES.get,
)
SPANS = (("<<", ">>"), ("[", "]"))


def ids(text: str) -> list[int]:
    return [ord(letter) - 64 for letter in text]


def stream(output: OutputFormat, *stop: str, min_tokens: int = 0) -> TextStream:
    return FACTORY.open(stop, min_tokens, (), output)


def said(made: TextStream, token_ids: list[int]) -> str:
    text = ""
    for token_id in token_ids:
        text += made.push(token_id)
        if made.is_stopped:
            return text
    return text + made.close()


def test_markers_have_their_sign_and_other_texts_have_none() -> None:
    output = OutputFormat(marker_ids=(THINK, END), thinking=THINKING)

    text = said(stream(output), [*ids("AB"), THINK, SIGN_LETTER, *ids("C"), END, *ids("D")])

    assert text == f"AB{MARKER_SIGN}<think>\ufffdC{MARKER_SIGN}</think>D"


def test_a_special_token_that_is_no_marker_has_no_text() -> None:
    assert said(stream(OutputFormat(marker_ids=(END,))), [*ids("A"), THINK, *ids("B")]) == "AB"


def test_stop_strings_count_outside_of_spans_and_thoughts_alone() -> None:
    output = OutputFormat(marker_ids=(THINK, END), thinking=THINKING, spans=(("[", "]"),))

    assert said(stream(output, "XY"), [THINK, *ids("XY"), END, *ids("A[XY]BXYC")]) == (
        f"{MARKER_SIGN}<think>XY{MARKER_SIGN}</think>A[XY]B"
    )
    # Neither one that a span interrupts, nor one that ends in it.
    assert said(stream(output, "XY", "X[Y"), ids("X[Y]Y")) == "X[Y]Y"
    assert said(stream(output, "XY", min_tokens=3), ids("AXYBXYC")) == "AXYB"


def test_an_output_may_begin_inside_a_thought() -> None:
    thinking = ThinkingLimits(opening="[", closing="]", closing_ids=(29,), is_open=True)

    made = stream(OutputFormat(thinking=thinking), "XY")

    assert said(made, ids("AXYB]XXY")) == "AXYB]X"
    assert made.thoughts is not None
    assert made.thoughts.num_tokens == 5


@pytest.mark.parametrize("text", ["A<<B>>C", "A<B<<C>D>>>E", "[[A]]B]", "<<", "A<", "<<A>", "A[B<<C]D<<E>>F"])
def test_how_text_is_cut_makes_no_difference_to_its_spans(text: str) -> None:
    def parts(*pieces: str) -> list[tuple[str, bool]]:
        scanner = SpanScanner(SPANS)
        found = [part for piece in pieces for part in scanner.push(piece)] + scanner.close()
        joined: list[tuple[str, bool]] = []
        for is_inside, group in itertools.groupby(found, key=lambda part: part[1]):
            joined.append(("".join(part for part, _ in group), is_inside))
        return joined

    whole = parts(text)

    assert "".join(part for part, _ in whole) == text
    for first, second in itertools.combinations_with_replacement(range(len(text) + 1), 2):
        assert parts(text[:first], text[first:second], text[second:]) == whole
    assert parts(*text) == whole


@pytest.mark.parametrize(
    ("pieces", "is_open", "num_tokens"),
    [
        (["A", "B"], False, 0),
        (["<", "<", "A", "B", ">>", "C"], False, 5),
        (["A", "<", "B", "<", "<", "C", "D>>E", "F"], False, 4),
        (["A", "", "B", ">>", "C"], True, 4),
        (["A", "B"], True, 2),
        (["<<A>>", "B", "<<", "C"], False, 3),
        (["A", "<"], False, 0),
    ],
)
def test_tokens_of_thoughts_are_counted_with_their_markers(pieces: list[str], is_open: bool, num_tokens: int) -> None:
    thinking = ThinkingLimits(opening="<<", closing=">>", closing_ids=(1,), is_open=is_open)
    meter = ThoughtMeter(thinking)
    for piece in pieces:
        meter.push(piece, 1)
    events = tuple((TokenEvent(choice=1, token_ids=(1,), text=piece),) for piece in pieces)
    spec = JobSpec(prompts=((1,),), sampling=SamplingParams(max_tokens=9), output=OutputFormat(thinking=thinking))

    assert meter.num_tokens == num_tokens
    assert reasoning_tokens(spec, events) == num_tokens


def test_the_length_of_a_thought_is_that_between_its_markers() -> None:
    meter = ThoughtMeter(ThinkingLimits(opening="<<", closing=">>", closing_ids=(1,)))
    lengths = []
    for piece in ["A", "<<", "B", "C", ">", ">", "D", "<<", "E"]:
        meter.push(piece, 1)
        lengths.append(meter.num_in_thought)

    assert lengths == [0, 0, 1, 2, 3, 0, 0, 0, 1]
