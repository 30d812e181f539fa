"""Marker tokens and grammars: a marker that the tokenizer calls ordinary is no text for a matcher."""

import json

import pytest
from tokenizers import AddedToken, Tokenizer

from api.protocol.families.detection import family_for
from api.protocol.families.grammar.output_grammar import ToolPart, output_grammar
from storage.contract import MARKER_SIGN
from tests.protocol.examples import tokenizer_json
from workers.constraint.grammars import Grammars

TEMPLATE = "{% if tools %}<tool_call>{% endif %}</think>"


def _tokenizer() -> Tokenizer:
    tokenizer = Tokenizer.from_str(tokenizer_json())
    tokenizer.add_tokens([AddedToken(text, special=False) for text in ("<tool_call>", "</tool_call>", "  ")])
    return tokenizer


def test_a_marker_token_is_written_where_the_grammar_names_it_and_nowhere_else() -> None:
    tokenizer = _tokenizer()
    end = tokenizer.token_to_id("<|im_end|>")
    bound = family_for(TEMPLATE, None, tokenizer.token_to_id)
    opening, closing = bound.token_ids["<tool_call>"], bound.token_ids["</tool_call>"]
    grammars = Grammars(tokenizer.to_str(), vocab_size=tokenizer.get_vocab_size(), eos_token_ids=[end])
    grammar = output_grammar(bound, tools=[ToolPart(name="now", part={"json_schema": {"type": "object"}})])
    assert grammar is not None

    def can_write(*pieces: str | int) -> bool:
        matcher = grammars.matcher(grammar)
        ids = [one for piece in pieces for one in ([piece] if isinstance(piece, int) else tokenizer.encode(piece).ids)]
        return all(matcher.consume_token(one) for one in ids) and matcher.is_accepting()

    assert can_write("Ok  then ", opening, '\n{"name": "now", "arguments": {}}\n', closing)
    assert can_write("Only text")
    assert not can_write("Ok", closing)
    assert not can_write("Ok", opening, "x")
    assert not can_write(opening, '\n{"name": "now", "arguments": {"a": "', closing)


def test_a_free_text_may_hold_the_letters_of_a_marker_and_not_the_token() -> None:
    tokenizer = _tokenizer()
    end = tokenizer.token_to_id("<|im_end|>")
    grammars = Grammars(tokenizer.to_str(), vocab_size=tokenizer.get_vocab_size(), eos_token_ids=[end])
    free = '{"grammars":[{"lark_grammar":"start: /(?s:.*)/"}]}'
    letters = Tokenizer.from_str(tokenizer_json()).encode("`<tool_call>`").ids

    assert not grammars.matcher(free).consume_token(tokenizer.token_to_id("<tool_call>"))
    assert grammars.matcher(free).consume_tokens(letters)


@pytest.mark.parametrize("sign", ["", MARKER_SIGN])
@pytest.mark.parametrize("letters", ["<|im_end|>", "<|endoftext|>", "<tool_call>"])
def test_no_text_that_a_grammar_asks_for_is_written_with_a_special_token(sign: str, letters: str) -> None:
    tokenizer = _tokenizer()
    end = tokenizer.token_to_id("<|im_end|>")
    grammars = Grammars(tokenizer.to_str(), vocab_size=tokenizer.get_vocab_size(), eos_token_ids=[end])
    matcher = grammars.matcher(json.dumps({"grammars": [{"json_schema": {"const": f"a{sign}{letters}"}}]}))

    forced = matcher.compute_ff_tokens()

    assert not set(forced) & tokenizer.get_added_tokens_decoder().keys()
    assert matcher.consume_tokens(forced)
    assert matcher.is_accepting()
