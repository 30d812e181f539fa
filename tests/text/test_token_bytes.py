import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from tokenizers import Tokenizer, decoders

from tests.text import tokenizers
from workers.text.token_bytes import TokenBytes

BYTE_LEVEL = tokenizers.byte_level()
BYTE_FALLBACK = tokenizers.byte_fallback()
WORD_PIECE = tokenizers.word_piece()
METASPACE = tokenizers.byte_fallback()
METASPACE.decoder = decoders.Sequence([decoders.ByteFallback(), decoders.Metaspace(), decoders.Fuse()])
BYTES = {tokenizer: TokenBytes(tokenizer) for tokenizer in (BYTE_LEVEL, BYTE_FALLBACK, METASPACE, WORD_PIECE)}
TEXTS = st.text(st.one_of(st.characters(codec="utf-8"), st.sampled_from("你好🙂👩‍👧🇩🇪 é the\n")), max_size=60)


def joined(tokenizer: Tokenizer, ids: list[int]) -> bytes:
    """The bytes of every id, one after another."""
    bytes_ = BYTES[tokenizer]
    data = b""
    is_first = True
    for token_id in ids:
        data += bytes_.of(token_id, is_first=is_first)
        is_first = is_first and not bytes_.is_spoken(token_id)
    return data


@given(TEXTS, st.sampled_from([BYTE_LEVEL, BYTE_FALLBACK, METASPACE, WORD_PIECE]))
@example(" the  the 你你🙂🙂 quick", BYTE_FALLBACK)
@example("  the", METASPACE)
@example("unbelievable jumping, Sylter!", WORD_PIECE)
@example("\ufffd", BYTE_LEVEL)
def test_the_bytes_of_a_texts_tokens_join_to_its_bytes(text: str, tokenizer: Tokenizer) -> None:
    ids = tokenizer.encode(text).ids

    assert joined(tokenizer, ids) == tokenizer.decode(ids, skip_special_tokens=True).encode()


@given(st.lists(st.integers(0, BYTE_LEVEL.get_vocab_size() + 5), max_size=120))
def test_the_bytes_of_any_byte_level_ids_read_as_their_text(ids: list[int]) -> None:
    text = BYTE_LEVEL.decode(ids, skip_special_tokens=True)

    assert joined(BYTE_LEVEL, ids).decode("utf-8", "replace") == text


@pytest.mark.parametrize("tokenizer", [BYTE_LEVEL, BYTE_FALLBACK], ids=["byte level", "byte fallback"])
def test_half_a_character_is_its_own_bytes(tokenizer: Tokenizer) -> None:
    ids = tokenizer.encode("🦊").ids
    pieces = [BYTES[tokenizer].of(token_id) for token_id in ids if tokenizer.id_to_token(token_id) != "▁"]

    assert len(pieces) > 2
    assert b"".join(pieces) == "🦊".encode()


def test_special_and_unknown_ids_have_no_bytes() -> None:
    end = BYTE_FALLBACK.token_to_id("<|im_end|>")

    assert BYTES[BYTE_FALLBACK].of(end) == b""
    assert BYTES[BYTE_FALLBACK].of(99999, is_first=True) == b""


def test_only_the_first_word_of_a_text_loses_its_space() -> None:
    the = BYTE_FALLBACK.token_to_id("▁the")

    assert BYTES[BYTE_FALLBACK].of(the, is_first=True) == b"the"
    assert BYTES[BYTE_FALLBACK].of(the) == b" the"


def test_a_token_is_read_once() -> None:
    bytes_ = BYTES[WORD_PIECE]
    fox = WORD_PIECE.token_to_id("fox")

    assert bytes_.of(fox) is bytes_.of(fox)
