"""Grammars of outputs: what they let through is read without loss, and nothing else can be written after a trigger."""

import json
import random
from functools import cache

import pytest
from llguidance import LLMatcher, LLTokenizer, TokenizerWrapper

from api.protocol.answer.segments import CallArguments, CallClosed, CallOpened, Reasoning, Text
from api.protocol.families.bound_family import BoundFamily
from api.protocol.families.family_table import FAMILIES
from api.protocol.families.grammar.argument_grammar import unenforced_in
from api.protocol.families.grammar.grammar_text import Part
from api.protocol.families.grammar.output_grammar import ChoiceMode, ThoughtMode, ToolChoice, output_grammar
from storage.contract import MARKER_SIGN
from tests.protocol.families.recorded import NAMES, PARTS, RECORDED, SPACING, TOOLS, as_written, bound_to_tokens, parsed

# Ids of a vocabulary of bytes: the bytes, the end of the output, the markers.
END, FIRST_MARKER = 256, 257
BODY: Part = {
    "json_schema": {
        "type": "object",
        "properties": {"a": {"type": "integer"}},
        "required": ["a"],
        "additionalProperties": False,
        "x-guidance": SPACING,
    }
}
REQUIRED, NONE = ToolChoice(mode=ChoiceMode.REQUIRED), ToolChoice(mode=ChoiceMode.NONE)
# The first recorded answer of each family, and one with a custom tool.
FIRST = [next(one for one in RECORDED if one[0] == name) for name in NAMES]
WRITTEN = [
    pytest.param(name, state, output, has_tokens, id=f"{name}-{index}-{'tokens' if has_tokens else 'letters'}")
    for index, (name, state, output, _) in enumerate([*FIRST, *(one for one in RECORDED if "<custom=" in one[2])])
    for has_tokens in (True, False)
]
BOTH = [pytest.param(name, has_tokens, id=f"{name}-{has_tokens}") for name in NAMES for has_tokens in (True, False)]


class _Bytes:
    """A vocabulary of bytes and marker tokens."""

    eos_token_id = END
    bos_token_id = None

    def __init__(self, markers: tuple[str, ...]) -> None:
        self.tokens = [*(bytes([value]) for value in range(256)), b"</s>", *(one.encode() for one in markers)]
        self.special_token_ids = list(range(END, len(self.tokens)))

    def __call__(self, text: bytes) -> list[int]:
        return list(text)


@cache
def tokenizer_of(markers: tuple[str, ...]) -> LLTokenizer:
    wrapped = _Bytes(markers)
    return LLTokenizer(TokenizerWrapper(wrapped), n_vocab=len(wrapped.tokens), eos_token=END, slices=[])


def bound_of(name: str, *, has_tokens: bool = True) -> BoundFamily:
    return bound_to_tokens(FAMILIES[name], has_tokens=has_tokens, first_id=FIRST_MARKER)


def matcher_of(bound: BoundFamily, grammar: str | None) -> LLMatcher:
    assert grammar is not None
    matcher = LLMatcher(tokenizer_of(tuple(bound.token_ids)), grammar, log_level=0)
    assert not matcher.is_error(), matcher.get_error()
    return matcher


def ids_of(text: str, bound: BoundFamily) -> list[int]:
    """Token ids of a text in which marker tokens have their sign."""
    first, *rest = text.split(MARKER_SIGN)
    ids = list(first.encode())
    for piece in rest:
        marker = max((one for one in bound.token_ids if piece.startswith(one)), key=len)
        ids += [bound.token_ids[marker], *piece[len(marker) :].encode()]
    return ids


def accepts(bound: BoundFamily, grammar: str | None, text: str) -> bool:
    """Whether the grammar lets this whole output through."""
    matcher = matcher_of(bound, grammar)
    return all(matcher.consume_token(one) for one in ids_of(text, bound)) and matcher.is_accepting()


def answered(bound: BoundFamily, text: str) -> str:
    """The text as the family's answer."""
    return text if bound.family.answer is None else bound.family.answer.opening + text


@pytest.mark.parametrize(("name", "state", "output", "has_tokens"), WRITTEN)
def test_recorded_answers_can_be_written(name: str, state: str, output: str, has_tokens: bool) -> None:
    bound = bound_of(name, has_tokens=has_tokens)
    thoughts = ThoughtMode.OPEN if state else ThoughtMode.ALLOWED

    assert accepts(bound, output_grammar(bound, tools=PARTS, thoughts=thoughts), as_written(output, bound))


@pytest.mark.parametrize(("name", "has_tokens"), BOTH)
def test_after_a_trigger_only_a_call_can_be_written(name: str, has_tokens: bool) -> None:
    bound = bound_of(name, has_tokens=has_tokens)
    assert bound.family.calls is not None
    trigger = bound.family.calls.trigger
    before = "" if bound.family.answer is not None else "Ok. "

    matcher = matcher_of(bound, output_grammar(bound, tools=PARTS))

    assert all(matcher.consume_token(one) for one in ids_of(before + trigger, bound))
    assert not matcher.is_accepting()
    assert matcher.validate_tokens(list(b"zzz")) == 0
    assert matcher.validate_tokens(list(b"unknown")) < len("unknown")


@pytest.mark.parametrize(("name", "has_tokens"), BOTH)
def test_none_bans_the_beginning_of_a_call_and_nothing_else(name: str, has_tokens: bool) -> None:
    bound = bound_of(name, has_tokens=has_tokens)
    grammar = output_grammar(bound, tools=PARTS, choice=NONE)
    assert bound.family.calls is not None

    assert accepts(bound, grammar, answered(bound, "Any text { <"))
    assert not accepts(bound, grammar, bound.family.calls.trigger)
    if not has_tokens and bound.family.answer is None:
        assert not accepts(bound, grammar, f"Ok {bound.family.calls.trigger}")


@pytest.mark.parametrize(("name", "has_tokens"), BOTH)
def test_auto_with_a_format_allows_calls_or_that_format(name: str, has_tokens: bool) -> None:
    bound = bound_of(name, has_tokens=has_tokens)
    grammar = output_grammar(bound, tools=PARTS, body=BODY)

    assert accepts(bound, grammar, answered(bound, '{"a": 1}'))
    assert not accepts(bound, grammar, answered(bound, "Ok"))
    assert not accepts(bound, grammar, answered(bound, '{"b": 1}'))


@pytest.mark.parametrize(("name", "has_tokens"), BOTH)
def test_a_required_call_leaves_no_room_for_text(name: str, has_tokens: bool) -> None:
    bound = bound_of(name, has_tokens=has_tokens)
    matcher = matcher_of(bound, output_grammar(bound, tools=PARTS, choice=REQUIRED))

    assert not matcher.is_accepting()
    assert matcher.validate_tokens(ids_of(answered(bound, "Ok"), bound)) < len(ids_of(answered(bound, "Ok"), bound))


def test_a_named_tool_is_called_once_and_nothing_follows() -> None:
    bound = bound_of("hermes")
    grammar = output_grammar(
        bound, tools=PARTS, choice=ToolChoice(mode=ChoiceMode.REQUIRED, names=frozenset({"now"}), is_once=True)
    )
    one = '<tool_call>\n{"name": "now", "arguments": {}}\n</tool_call>'
    other = '<tool_call>\n{"name": "weather", "arguments": {"city": "x"}}\n</tool_call>'

    assert accepts(bound, grammar, as_written(one, bound))
    assert not accepts(bound, grammar, as_written(other, bound))
    assert not accepts(bound, grammar, as_written(f"{one}\n{one}", bound))
    assert not accepts(bound, grammar, as_written(f"{one}.", bound))


@pytest.mark.parametrize("has_tokens", [True, False])
def test_calls_that_are_not_parallel_are_one_and_end_the_answer(has_tokens: bool) -> None:
    bound = bound_of("hermes", has_tokens=has_tokens)
    grammar = output_grammar(bound, tools=PARTS, choice=ToolChoice(is_once=True))
    one = as_written('<tool_call>\n{"name": "now", "arguments": {}}\n</tool_call>', bound)

    assert accepts(bound, grammar, "Only text")
    assert accepts(bound, grammar, f"Ok. {one}")
    assert not accepts(bound, grammar, f"{one}\n{one}")
    assert not accepts(bound, grammar, f"{one} and")


def test_a_format_begins_behind_the_thought() -> None:
    bound = bound_of("hermes")
    open_thought = output_grammar(bound, body=BODY, thoughts=ThoughtMode.OPEN)
    allowed = output_grammar(bound, body=BODY, thoughts=ThoughtMode.ALLOWED)

    assert accepts(bound, open_thought, as_written('Any { thing</think>\n\n{"a": 1}', bound))
    assert not accepts(bound, open_thought, '{"a": 1}')
    assert accepts(bound, allowed, as_written('<think>\nx\n</think>{"a": 1}', bound))
    assert accepts(bound, allowed, '{"a": 1}')
    assert not accepts(bound, allowed, as_written("<think>\nx\n</think>x", bound))


def test_arguments_must_fit_the_schema_in_every_form() -> None:
    for name, good, bad in (
        ("qwen3_coder", "<tool_call>\n<function=weather>\n<parameter=city>\nx\n</parameter>\n<parameter=days>\n", "z"),
        ("gemma4", '<|tool_call>call:weather{city:<|"|>x<|"|>,days:', "<"),
        ("lfm2", '<|tool_call_start|>[weather(city="x", days=', '"'),
        ("hermes", '<tool_call>\n{"name": "weather", "arguments": {"city": "x", "days": ', '"'),
    ):
        bound = bound_of(name)
        matcher = matcher_of(bound, output_grammar(bound, tools=PARTS))
        assert all(matcher.consume_token(one) for one in ids_of(as_written(good, bound), bound)), name
        assert matcher.validate_tokens(list(b"12")) == 2, name
        assert matcher.validate_tokens(list(bad.encode())) == 0, name


def test_without_tools_and_format_there_is_no_grammar() -> None:
    assert output_grammar(bound_of("hermes"), thoughts=ThoughtMode.ALLOWED) is None


def _ends_of(bound: BoundFamily) -> list[list[int]]:
    """What ends a string, a tag, an object or a thought of the family."""
    form = bound.family.calls
    assert form is not None
    literals = [form.quote, '"', "}", "]", ")", form.tail, form.ending + form.closing, form.closing]
    literals += [] if form.tags is None else [form.tags.after_value]
    literals += [] if bound.family.thinking is None else [bound.family.thinking.closing]
    return [ids_of(one, bound) for one in dict.fromkeys(literals) if one]


def _random_output(matcher: LLMatcher, bound: BoundFamily, rng: random.Random) -> str:
    """A random output that the grammar lets through, in which everything ends soon."""
    names = {token_id: MARKER_SIGN + text for text, token_id in bound.token_ids.items()}
    ends = _ends_of(bound)
    out = bytearray()
    for _ in range(2000):
        if matcher.is_accepting():
            return out.decode(errors="replace")
        possible = [one for one in ends if matcher.validate_tokens(one) == len(one)]
        if possible and rng.random() < 0.3:
            chosen = rng.choice(possible)
        else:
            mask = matcher.compute_bitmask()
            allowed = [one for one in range(END + 1 + len(names)) if one != END and mask[one // 8] >> (one % 8) & 1]
            # Mostly letters that make whole characters.
            chosen = [rng.choice([one for one in allowed if one < 0x80] or allowed)]
        for token_id in chosen:
            out += names[token_id].encode() if token_id in names else bytes([token_id])
            assert matcher.consume_token(token_id)
    raise AssertionError("the output did not end")


@pytest.mark.parametrize(("name", "has_tokens"), BOTH)
def test_whatever_can_be_written_is_read_as_calls(name: str, has_tokens: bool) -> None:
    bound = bound_of(name, has_tokens=has_tokens)
    grammar = output_grammar(bound, tools=PARTS[:2], choice=REQUIRED)
    rng = random.Random(name)

    for _ in range(8):
        output = _random_output(matcher_of(bound, grammar), bound, rng)
        segments = [one for one in parsed(bound, [output], tools=TOOLS[:2]) if not isinstance(one, Reasoning)]
        if bound.family.answer is not None:
            segments = [one for one in segments if not isinstance(one, Text)]

        assert segments, output
        assert [type(one) for one in segments] == [CallOpened, CallArguments, CallClosed] * (len(segments) // 3), output
        for arguments in segments[1::3]:
            assert isinstance(arguments, CallArguments)
            assert isinstance(json.loads(arguments.text, strict=False), dict)


@pytest.mark.parametrize(("name", "has_tokens"), BOTH)
def test_text_and_calls_of_an_answer_are_read_without_loss(name: str, has_tokens: bool) -> None:
    bound = bound_of(name, has_tokens=has_tokens)
    grammar = output_grammar(bound, tools=PARTS[:2])
    form = bound.family.calls
    assert form is not None
    rng = random.Random(name)

    for index in range(6):
        text = answered(bound, "".join(rng.choices('ab <>{}[]"\\n:', k=12)).strip() + "x")
        matcher = matcher_of(bound, grammar)
        # Of families with channels an answer ends the output; elsewhere a section of calls may follow the text.
        begun = text if index % 2 or bound.family.answer is not None else text + form.trigger
        if not all(matcher.consume_token(one) for one in ids_of(begun, bound)):
            continue
        output = begun + (_random_output(matcher, bound, rng) if begun != text else "")
        segments = parsed(bound, [output], tools=TOOLS[:2])

        first, rest = segments[0], [one for one in segments[1:] if not isinstance(one, Text)]
        assert isinstance(first, Text), output
        assert first.text == text.removeprefix(answered(bound, "")).strip(), output
        assert [type(one) for one in rest] == [CallOpened, CallArguments, CallClosed] * (len(rest) // 3), output
        assert bool(rest) == (begun != text), output


def test_an_answer_of_llama_may_be_an_object_that_is_no_call() -> None:
    grammar = output_grammar(bound_of("llama3"), tools=PARTS)

    assert accepts(bound_of("llama3"), grammar, '{"type": "square", "name": "x"}')
    assert not accepts(bound_of("llama3"), grammar, '{"name": "x"}')
    assert not accepts(bound_of("llama3"), grammar, '{"type": "function", "name": "x"}')


def test_what_a_form_of_arguments_leaves_to_the_model_is_named() -> None:
    part: Part = {
        "json_schema": {
            "type": "object",
            "properties": {"a": {"type": "string", "pattern": "^x"}, "b": {"type": "integer", "minimum": 3}},
        }
    }
    named = {name: unenforced_in(form, part) for name in NAMES if (form := FAMILIES[name].calls) is not None}

    assert named["hermes"] == ()
    assert named["qwen3_coder"] == ("pattern",)
    assert named["gemma4"] == named["lfm2"] == ("minimum", "pattern")
