from hypothesis import given
from hypothesis import strategies as st

from tests.text import tokenizers
from workers.text.stop import StopFilter
from workers.text.stream import factory_of

SHORT = st.text("ab\n", min_size=1, max_size=4)


def expected(text: str, stop: list[str], num_deaf: int = 0) -> tuple[str, bool]:
    """The slow and obvious way: grow the text character by character until it ends with a stop string.

    num_deaf: characters that end no stop string
    """
    for end in range(num_deaf + 1 if num_deaf else 0, len(text) + 1):
        found = [string for string in stop if text[:end].endswith(string)]
        if found:
            return text[: end - max(map(len, found))], True
    return text, False


@given(st.lists(st.text("ab\nc", max_size=5), max_size=12), st.lists(SHORT, max_size=4))
def test_text_ends_before_the_stop_string_that_is_complete_first(pieces: list[str], stop: list[str]) -> None:
    stop_filter = StopFilter(tuple(stop))
    shown = "".join([*(stop_filter.push(piece) for piece in pieces), stop_filter.close()])

    assert (shown, stop_filter.is_stopped) == expected("".join(pieces), stop)


@given(st.lists(st.text("ab\nc", max_size=5), max_size=12), st.lists(SHORT, min_size=1, max_size=4))
def test_nothing_is_held_back_that_begins_no_stop_string(pieces: list[str], stop: list[str]) -> None:
    stop_filter = StopFilter(tuple(stop))
    shown = ""
    text = ""
    for piece in pieces:
        shown += stop_filter.push(piece)
        text += piece
        if stop_filter.is_stopped:
            return
        held = text[len(shown) :]
        assert not held or any(string.startswith(held) for string in stop)


@given(
    st.lists(st.text("ab\nc", max_size=5), max_size=12),
    st.lists(SHORT, max_size=4),
    st.integers(min_value=0, max_value=5),
)
def test_a_stop_string_that_is_complete_too_early_is_text_like_any_other(
    pieces: list[str], stop: list[str], num_deaf: int
) -> None:
    stop_filter = StopFilter(tuple(stop))
    shown = "".join(stop_filter.push(piece, may_stop=index >= num_deaf) for index, piece in enumerate(pieces))
    shown += stop_filter.close()

    assert (shown, stop_filter.is_stopped) == expected("".join(pieces), stop, len("".join(pieces[:num_deaf])))


def test_a_stream_counts_the_ids_in_which_no_stop_string_counts() -> None:
    tokenizer = tokenizers.byte_level()
    ids = tokenizer.encode("fox fox fox").ids
    stream = factory_of(tokenizer).open(("fox",), min_tokens=len(ids) - 1)

    shown = "".join(stream.push(token_id) for token_id in ids) + stream.close()

    assert shown == "fox fox "
    assert stream.is_stopped


def test_an_empty_stop_string_stops_nothing() -> None:
    stop_filter = StopFilter(("",))

    assert stop_filter.push("text") == "text"
    assert not stop_filter.is_stopped


def test_a_stop_string_over_several_tokens_is_not_shown() -> None:
    tokenizer = tokenizers.byte_level()
    stream = factory_of(tokenizer).open(("the lazy",))
    shown = []
    for token_id in tokenizer.encode("fox jumps over the lazy dog").ids:
        shown.append(stream.push(token_id))
        if stream.is_stopped:
            break

    assert "".join(shown) + stream.close() == "fox jumps over "
    assert stream.is_stopped


def test_a_stop_string_of_replacement_signs_can_end_the_last_half_character() -> None:
    tokenizer = tokenizers.byte_level()
    stream = factory_of(tokenizer).open(("\ufffd",))
    stream.push(tokenizer.token_to_id("ÿ"))

    assert stream.close() == ""
    assert stream.is_stopped
