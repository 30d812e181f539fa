"""Prompts of real tokenizers: ids of chats and completions are those of transformers."""

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from api.protocol.chat.request import ChatRequest
from api.protocol.completions.request import CompletionRequest
from api.protocol.kinds import prepare
from storage.errors import InvalidRequest
from tests.protocol.examples import body
from tests.real.conftest import Real

Message = dict[str, str]
TEXTS = [
    "Hi",
    "  two spaces, then a tab\t and a line\nand two\n\nand three\n\n\n",
    "Grüße, e\u0301lan, ﬁn, Ⅳ, ½ and K (kelvin)",
    "你好，世界。 こんにちは 안녕하세요 Привет مرحبا שלום हिन्दी ไทย မြန်မာ",
    "🙂👩‍👩‍👧‍👦🇩🇪 \u200b\u00a0\ufeff\u2581 \x00 \x7f",
    "def f(x):\n    return {'a': [x ** 2, 12345678901234567890]}  # <b>&amp;</b>\r\n",
    "don't we'll I'M 'S 3.14 1,000,000 ---- ____ ==== <|x|> [INST <s",
    " ",
    "a" * 300,
]
# Letters that tokenizers treat in ways of their own, among all others.
LETTERS = st.one_of(st.characters(codec="utf-8"), st.sampled_from(" \n\t你🙂éÅK▁<|>[]/#'0123456789abcST"))
OFTEN = settings(
    max_examples=40,
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.function_scoped_fixture],
)


# Families whose template refuses an empty answer.
REFUSES_EMPTY_ANSWERS = {"mistral_v3", "mistral_tekken"}


def user(text: str) -> Message:
    return {"role": "user", "content": text}


def assistant(text: str) -> Message:
    return {"role": "assistant", "content": text}


def system(text: str) -> Message:
    return {"role": "system", "content": text}


def chat_ids(real: Real, messages: list[Message]) -> list[int]:
    """What transformers makes of a chat."""
    ids = real.tokenizer.apply_chat_template(
        messages, tokenize=True, add_generation_prompt=True, enable_thinking=False, return_dict=False
    )
    assert isinstance(ids, list)
    return ids


def text_ids(real: Real, text: str, **options: bool) -> list[int]:
    """What transformers makes of a text."""
    ids = real.tokenizer(text, **options)["input_ids"]
    assert isinstance(ids, list)
    return ids


@pytest.mark.parametrize("text", TEXTS, ids=range(len(TEXTS)))
def test_a_chat_has_the_ids_of_its_template_in_transformers(real: Real, text: str) -> None:
    chats = [
        [user(text)],
        [system(text), user("Hi")],
        [system("Be brief."), user(text), assistant("Yes."), user(text)],
        [user("Hi"), assistant(text), user("And now?")],
    ]

    for messages in chats:
        expected = chat_ids(real, messages)
        assert list(real.tools.encode_chat(messages)) == expected
        assert real.tools.count(messages) == len(expected)


@pytest.mark.parametrize("text", TEXTS, ids=range(len(TEXTS)))
def test_a_completion_has_the_ids_of_its_text_in_transformers(real: Real, text: str) -> None:
    assert list(real.tools.encode_prompt(text)) == text_ids(real, text)
    bare = text_ids(real, text, add_special_tokens=False)
    assert list(real.tools.encode_prompt(text, add_special_tokens=False)) == bare


@OFTEN
@given(st.text(LETTERS, max_size=60), st.text(LETTERS, max_size=20), st.text(LETTERS, min_size=1, max_size=20))
def test_any_texts_have_the_ids_that_they_have_in_transformers(real: Real, first: str, answer: str, last: str) -> None:
    if real.name in REFUSES_EMPTY_ANSWERS:
        answer = answer or "x"
    messages = [system(first), user(first), assistant(answer), user(last)]

    assert list(real.tools.encode_chat(messages)) == chat_ids(real, messages)
    assert list(real.tools.encode_prompt(last)) == text_ids(real, last)


def test_requests_are_counted_as_transformers_counts(real: Real) -> None:
    messages = [system("Be brief."), user(TEXTS[3])]
    chat = ChatRequest.parse(body(messages=messages))
    completion = CompletionRequest.parse(body(prompt=[TEXTS[1], TEXTS[4]], max_tokens=1))

    (chat_prompt,) = prepare(chat, real.tools, seed=1).spec.prompts
    prompts = prepare(completion, real.tools, seed=1).spec.prompts

    assert list(chat_prompt) == chat_ids(real, messages)
    assert list(map(list, prompts)) == [text_ids(real, TEXTS[1]), text_ids(real, TEXTS[4])]


# Whether each template knows the role itself (F009); what it does with system messages after the first (F010).
KNOWS_DEVELOPER = {"gptoss"}


def test_instructions_reach_every_template_under_any_role(real: Real) -> None:
    """F009, F010: a second system or a developer message is neither lost nor refused."""
    texts = ["Be brief.", "Speak French."]
    turns = [user("Hi"), assistant("Salut."), user("And now?")]
    chats = [
        [{"role": role, "content": text} for role, text in zip(roles, texts, strict=True)] + turns
        for roles in (
            ("system", "system"),
            ("system", "developer"),
            ("developer", "system"),
            ("developer", "developer"),
        )
    ]
    late = [system(texts[0]), *turns[:2], {"role": "developer", "content": texts[1]}, turns[2]]

    assert real.tools._template is not None
    assert real.tools._template.knows_developer == (real.name in KNOWS_DEVELOPER)
    for messages in [*chats, late]:
        prompt = real.tools.render_chat(messages)
        assert all(prompt.count(text) == 1 for text in texts)
        assert real.tools.encode_chat(messages)


def test_joined_instructions_are_one_system_message_of_transformers(real: Real) -> None:
    """F010."""
    apart = [system("Be brief."), system("Speak French."), user("Hi")]
    joined = [system("Be brief.\n\nSpeak French."), user("Hi")]

    assert real.tools._template is not None
    if not real.tools._template.takes_two_systems:
        assert list(real.tools.encode_chat(apart)) == chat_ids(real, joined)


def test_ids_are_counted_by_rows(real: Real) -> None:
    """F025: ids of padded rows are legal, ids of the tokenizer without a row are refused at once."""
    num_rows = real.loaded.limits.vocab_size

    def prepared(token_id: int) -> tuple[int, ...]:
        return prepare(CompletionRequest.parse(body(prompt=[token_id], max_tokens=1)), real.tools, seed=1).spec.prompts[
            0
        ]

    assert real.loaded.manifest.num_token_ids == num_rows
    assert prepared(num_rows - 1) == (num_rows - 1,)
    with pytest.raises(InvalidRequest, match=f"below {num_rows}"):
        prepared(num_rows)


def test_a_rendered_chat_begins_with_one_beginning(real: Real) -> None:
    """F047: of a templated text as a completion, BOS is not doubled."""
    messages = [system("Be brief."), user("Hi"), assistant("Yes?"), user("So?")]
    rendered = real.tools.render_chat(messages)

    ids = real.tools.encode_prompt(rendered, allow_special_tokens=True)

    assert list(ids) == chat_ids(real, messages)
    bare = real.tools.encode_prompt(rendered, add_special_tokens=False, allow_special_tokens=True)
    assert list(bare) == chat_ids(real, messages)
