import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from tokenizers import Tokenizer

from tests.text import tokenizers
from workers.text.stream import factory_of

BYTE_LEVEL = tokenizers.byte_level()
BYTE_FALLBACK = tokenizers.byte_fallback()
WORD_PIECE = tokenizers.word_piece()
TEXTS = st.text(st.one_of(st.characters(codec="utf-8"), st.sampled_from("你好🙂👩‍👧🇩🇪 é the\n")), max_size=60)


def pieces_of(tokenizer: Tokenizer, ids: list[int]) -> list[str]:
    stream = factory_of(tokenizer).open(())
    return [*(stream.push(token_id) for token_id in ids), stream.close()]


@given(st.lists(st.integers(0, BYTE_LEVEL.get_vocab_size() + 5), max_size=120))
@example([BYTE_LEVEL.token_to_id(token) for token in ("Ġ", "ł", "Ġ")] * 30)
def test_pieces_of_any_ids_join_to_the_decoded_whole(ids: list[int]) -> None:
    assert "".join(pieces_of(BYTE_LEVEL, ids)) == BYTE_LEVEL.decode(ids, skip_special_tokens=True)


BYTES = [BYTE_FALLBACK.token_to_id(f"<0x{byte:02X}>") for byte in (*"A🙂".encode(), 0xFF, 0xC3)]
ODD = [*BYTES, *(BYTE_FALLBACK.token_to_id(token) for token in ("▁", "▁the", "a", "<|im_end|>"))]


@given(st.lists(st.one_of(st.integers(0, BYTE_FALLBACK.get_vocab_size() + 5), st.sampled_from(ODD)), max_size=60))
@example([*BYTES[1:5], BYTES[5]])
@example([*BYTES[1:5], *BYTES[1:3]])
def test_pieces_of_any_bytes_join_to_the_decoded_whole(ids: list[int]) -> None:
    assert "".join(pieces_of(BYTE_FALLBACK, ids)) == BYTE_FALLBACK.decode(ids, skip_special_tokens=True)


@given(TEXTS)
@example("👩‍👩‍👧‍👦🇩🇪你好" * 5)
def test_no_piece_of_a_text_shows_half_a_character(text: str) -> None:
    pieces = pieces_of(BYTE_LEVEL, BYTE_LEVEL.encode(text).ids)

    assert "".join(pieces) == text
    assert all("\ufffd" not in piece for piece in pieces) or "\ufffd" in text


@given(TEXTS, st.sampled_from([BYTE_FALLBACK, WORD_PIECE]))
@example(" the  the 你你🙂🙂 quick", BYTE_FALLBACK)
def test_other_families_join_to_the_decoded_whole(text: str, tokenizer: Tokenizer) -> None:
    ids = tokenizer.encode(text).ids

    assert "".join(pieces_of(tokenizer, ids)) == tokenizer.decode(ids, skip_special_tokens=True)


@pytest.mark.parametrize("tokenizer", [BYTE_LEVEL, BYTE_FALLBACK, WORD_PIECE], ids=["level", "fallback", "pieces"])
def test_a_text_goes_on_from_the_prompt_with_its_first_space(tokenizer: Tokenizer) -> None:
    ids = tokenizer.encode("the quick the fox 你 the").ids

    for cut in range(1, len(ids)):
        prompt, answer = ids[:cut], ids[cut:]
        stream = factory_of(tokenizer).open((), prompt=prompt)
        text = "".join([*(stream.push(token_id) for token_id in answer), stream.close()])
        before = tokenizer.decode(prompt)
        if "\ufffd" not in before:
            assert before + text == tokenizer.decode(ids)


def test_a_text_after_a_special_token_begins_anew() -> None:
    the, end = BYTE_FALLBACK.encode("the").ids, BYTE_FALLBACK.token_to_id("<|im_end|>")

    stream = factory_of(BYTE_FALLBACK).open((), prompt=[*the, end])

    assert "".join([*(stream.push(token_id) for token_id in the), stream.close()]) == "the"


def test_special_and_unknown_ids_have_no_text_and_do_not_part_words() -> None:
    hello, world = BYTE_FALLBACK.encode("the").ids, BYTE_FALLBACK.encode("the").ids
    end = BYTE_FALLBACK.token_to_id("<|im_end|>")

    assert "".join(pieces_of(BYTE_FALLBACK, [*hello, end, 99999, *world])) == "the the"


def test_endless_byte_tokens_cost_linear_time() -> None:
    num_decoded = 0

    def decode(ids: list[int]) -> str:
        nonlocal num_decoded
        num_decoded += len(ids)
        return BYTE_FALLBACK.decode(ids)

    factory = factory_of(BYTE_FALLBACK)
    factory._decode = decode
    stream = factory.open(())
    text = "".join(stream.push(BYTES[0]) for _ in range(5000)) + stream.close()

    assert text == "A" * 5000
    assert num_decoded < 5000 * 3


@pytest.mark.parametrize("byte", ["ÿ", "ł"])
def test_endless_invalid_bytes_cost_linear_time(byte: str) -> None:
    invalid = BYTE_LEVEL.token_to_id(byte)
    num_decoded = 0

    def decode(ids: list[int]) -> str:
        nonlocal num_decoded
        num_decoded += len(ids)
        return BYTE_LEVEL.decode(ids)

    factory = factory_of(BYTE_LEVEL)
    factory._decode = decode
    stream = factory.open(())
    text = "".join(stream.push(invalid) for _ in range(5000)) + stream.close()

    assert text == "\ufffd" * 5000
    assert num_decoded < 5000 * 50


def test_a_stream_fed_with_emitted_ids_goes_on_where_it_was() -> None:
    ids = BYTE_LEVEL.encode("你好 world 🙂🙂 ends here").ids
    whole = pieces_of(BYTE_LEVEL, ids)
    for cut in range(len(ids)):
        stream = factory_of(BYTE_LEVEL).open(())
        for token_id in ids[:cut]:
            stream.push(token_id)
        assert [*(stream.push(token_id) for token_id in ids[cut:]), stream.close()] == whole[cut:]
