"""Tokenizers as grammars see them: texts that spell an added token are texts, and a marker is its id alone."""

import pytest
from tokenizers import AddedToken

from tests.text import tokenizers
from workers.constraint.grammars import Grammars, GrammarUnusable

MAKERS = [tokenizers.byte_level, tokenizers.byte_fallback]


def ids_allowed(bits: bytes) -> set[int]:
    number = int.from_bytes(bits, "little")
    return {place for place in range(8 * len(bits)) if number >> place & 1}


@pytest.mark.parametrize("make", MAKERS)
def test_a_text_that_spells_an_added_token_is_written_by_ordinary_tokens(make: object) -> None:
    tokenizer = make()  # type: ignore[operator]  # one of MAKERS
    tokenizer.add_tokens([AddedToken("<tool_call>", special=False, normalized=False)])
    marker = tokenizer.token_to_id("<tool_call>")
    size = tokenizer.get_vocab_size()
    grammars = Grammars(tokenizer.to_str(), vocab_size=size, eos_token_ids=[3])
    matcher = grammars.matcher(f'start: "a <tool_call> b" <[{marker}]> "c"')
    output: list[int] = []
    for _ in range(60):
        ids = matcher.compute_ff_tokens() or [min(ids_allowed(matcher.compute_bitmask()))]
        if ids == [3]:
            break
        assert matcher.consume_tokens(ids), matcher.get_error()
        output += ids

    assert matcher.is_accepting()
    assert output.count(marker) == 1
    place = output.index(marker)
    assert tokenizer.decode(output[:place]).strip() == "a <tool_call> b"
    assert tokenizer.decode(output[place + 1 :]).strip() == "c"


def test_free_text_holds_no_marker() -> None:
    tokenizer = tokenizers.byte_level()
    tokenizer.add_tokens([AddedToken("[CALL]", special=False, normalized=False)])
    marker = tokenizer.token_to_id("[CALL]")
    grammars = Grammars(tokenizer.to_str(), vocab_size=tokenizer.get_vocab_size(), eos_token_ids=[3])

    allowed = ids_allowed(grammars.matcher("start: /(?s:.*)/").compute_bitmask())

    assert marker not in allowed
    assert 3 in allowed


def test_an_added_token_without_a_row_of_the_model_is_left_out() -> None:
    tokenizer = tokenizers.byte_level()
    num_rows = tokenizer.get_vocab_size()
    tokenizer.add_tokens([AddedToken("<image>", special=True, normalized=False)])
    grammars = Grammars(tokenizer.to_str(), vocab_size=num_rows, eos_token_ids=[3])

    allowed = ids_allowed(grammars.matcher("start: /(?s:.*)/").compute_bitmask())

    assert max(allowed) < num_rows


def test_a_tokenizer_that_grammars_cannot_read_is_reported() -> None:
    grammars = Grammars(tokenizers.word_piece().to_str(), vocab_size=400, eos_token_ids=[3])

    grammars.read_tokenizer()
    with pytest.raises(GrammarUnusable, match="tokens of this model"):
        grammars.matcher("start: /a/")
