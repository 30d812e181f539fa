"""Chat templates and token ids from a manifest alone."""

import pytest

from api.protocol.prompt.tokenizing import PromptTools
from storage.errors import ContextLengthExceeded, InvalidRequest
from tests.protocol.examples import CHATML, GEMMA, LLAMA3, manifest, tools

SYSTEM = {"role": "system", "content": "Be brief."}
USER = {"role": "user", "content": " hi <b>&amp; "}
ANSWER = {"role": "assistant", "content": "hello"}

# Corners of transformers' dialect: loop controls, generation tags, tojson without HTML escapes, namespaces, dicts.
DIALECT = """{%- set state = namespace(count=0, names=dict(a=1)) %}
{%- for message in messages %}
    {%- if message.role == 'system' %}{% continue %}{% endif %}
    {%- set state.count = state.count + 1 %}
    {%- if message.role == 'assistant' %}
        {%- generation %}{{ message.content }}{% endgeneration %}
    {%- else %}
        {{- message | tojson }}{{ message | tojson(indent=2) }}
    {%- endif %}
    {%- if state.count > 5 %}{% break %}{% endif %}
{%- endfor %}
{{ state.count }} {{ state.names }} {{ tools is none }} {{ enable_thinking }}
{%- if strftime_now is defined %} {{ strftime_now('%Y')[:2] }}{% endif %}
"""


@pytest.mark.parametrize("template", [CHATML, LLAMA3, DIALECT])
def test_a_template_renders_as_in_transformers(template: str) -> None:
    reference = pytest.importorskip("transformers.utils.chat_template_utils")
    messages = [SYSTEM, USER, ANSWER, USER]

    rendered, _ = reference.render_jinja_template(
        [messages], chat_template=template, add_generation_prompt=True, enable_thinking=False, bos_token="<s>"
    )

    assert tools(template).render_chat(messages) == rendered[0]


def test_a_chatml_prompt_ends_where_the_answer_begins() -> None:
    text = tools(CHATML).render_chat([SYSTEM, ANSWER])

    assert (
        text
        == "<|im_start|>system\nBe brief.<|im_end|>\n<|im_start|>assistant\nhello<|im_end|>\n<|im_start|>assistant\n"
    )


def test_the_templates_special_tokens_become_single_ids_and_none_are_added() -> None:
    prompt = tools(LLAMA3)

    ids = prompt.encode_chat([USER])

    assert prompt.decode(ids[:1]) == "<s>"
    assert "<s>" not in prompt.decode(ids[1:])


def test_a_developer_is_the_system_where_the_template_knows_no_developer() -> None:
    developer = {**SYSTEM, "role": "developer"}
    knowing = "{% for message in messages %}{{ message.role == 'developer' }}{% endfor %}"

    assert tools(CHATML).render_chat([developer]) == tools(CHATML).render_chat([SYSTEM])
    assert tools(knowing).render_chat([developer]) == "True"


@pytest.mark.parametrize(
    "mention",
    ["{# for developers #}", "{% if messages[0].role == 'developers' %}{% endif %}", "{% set x = 'developer' %}"],
)
def test_a_template_that_only_mentions_the_developer_does_not_know_that_role(mention: str) -> None:
    developer = {**SYSTEM, "role": "developer"}

    assert tools(mention + CHATML).render_chat([developer]) == tools(CHATML).render_chat([SYSTEM])


def test_a_template_that_refuses_the_developer_is_given_a_system_message() -> None:
    strict = "{% if messages[0].role == 'developer' %}{{ raise_exception('developer?') }}{% endif %}" + CHATML

    assert tools(strict).render_chat([{**SYSTEM, "role": "developer"}]) == tools(CHATML).render_chat([SYSTEM])


# As many templates: a system message stands at the beginning, or nowhere.
STRICT = (
    "{% for message in messages %}{% if message.role == 'system' and not loop.first %}"
    "{{ raise_exception('System message must be at the beginning.') }}{% endif %}{% endfor %}" + CHATML
)


def test_a_strict_template_gets_one_system_turn() -> None:
    developer = {"role": "developer", "content": "Be kind."}
    one = {"role": "system", "content": "Be brief.\n\nBe kind."}

    assert tools(STRICT).render_chat([SYSTEM, developer, USER]) == tools(CHATML).render_chat([one, USER])
    assert tools(STRICT).render_chat([SYSTEM, USER, developer, USER]) == tools(CHATML).render_chat([one, USER, USER])
    both = [SYSTEM, {**SYSTEM, "content": "Be kind."}, USER]
    assert tools(CHATML).render_chat(both).count("<|im_start|>system") == 2


def test_a_template_that_refuses_the_messages_blames_the_request() -> None:
    gemma = tools(GEMMA)

    with pytest.raises(InvalidRequest, match="System role not supported") as refusal:
        gemma.encode_chat([SYSTEM, USER], field="messages")
    with pytest.raises(InvalidRequest, match="must alternate"):
        gemma.encode_chat([USER, USER])

    assert refusal.value.param == "messages"
    assert gemma.render_chat([USER, ANSWER, USER]).startswith("<s><start_of_turn>user\nhi <b>&amp;<end_of_turn>")


BROKEN = [
    "{{ messages.__class__.__mro__ }}",
    "{{ ''.__class__.__base__.__subclasses__() }}",
    "{{ messages.append(1) }}",
    "{{ self.__init__.__globals__ }}",
    "{{ cycler.__init__.__globals__.os.popen('id').read() }}",
    "{% set state = namespace() %}{% set state.__class__ = 1 %}",
    "{{ namespace(_x=1) }}",
    "{{ ('%s' % messages).format_map(messages) }}",
    "{{ 1 / 0 }}",
    "{{ 'x' + 1 }}",
    "{{ range(10 ** 9) | list }}",
    "{{ messages[99].content.strip() }}",
    "{{ nothing.at_all }}",
    "{% include 'x' %}",
    "{% for %}",
    "{{ raise_exception(5) }}",
    "{% macro again() %}{{ again() }}{% endmacro %}{{ again() }}",
    "{{ 10 ** 100000 }}",
    "{{ strftime_now(5) }}",
    "{{ messages | tojson(indent='x' * 3, separators=5) }}",
]


@pytest.mark.parametrize("template", BROKEN)
def test_a_broken_or_malicious_template_is_a_refusal(template: str) -> None:
    with pytest.raises(InvalidRequest):
        tools(template).encode_chat([USER])


def test_a_model_without_a_template_points_to_completions() -> None:
    with pytest.raises(InvalidRequest, match="/v1/completions"):
        tools(None).encode_chat([USER])


@pytest.mark.parametrize("text", ["", "plain", "ünï 漢字 😀\n\t", "<|im_end|> stays one token", "\x00 nul"])
def test_text_survives_encoding_and_decoding(text: str) -> None:
    prompt = tools()

    assert prompt.decode(prompt.encode(text, add_special_tokens=False)) == text


def test_a_hopeless_text_is_not_encoded_to_its_end() -> None:
    prompt = tools(context_length=50)

    ids = prompt.encode("x" * 1_000_000, add_special_tokens=False)

    assert 50 < len(ids) < 2_000


def test_tokens_are_counted_above_the_context_but_not_without_a_bound() -> None:
    prompt = tools(context_length=50)

    assert prompt.count([{"role": "user", "content": "x" * 10_000}]) > 10_000
    with pytest.raises(ContextLengthExceeded, match="at least") as refusal:
        prompt.count([{"role": "user", "content": "x" * 3_000_000}])

    assert refusal.value.param == "input"


def test_an_empty_prompt_is_the_beginning_token_or_nothing() -> None:
    prompt = tools()

    assert prompt.decode(prompt.encode_prompt("")) == "<s>"
    assert tools(bos=False).encode_prompt("") == ()


def test_a_stored_truncation_and_padding_of_the_tokenizer_are_off() -> None:
    prompt = PromptTools(manifest())

    assert len(prompt.encode("x" * 700, add_special_tokens=False)) == 700
