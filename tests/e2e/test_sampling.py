"""Every sampling parameter, through the unmodified SDK down to the bundled model and back."""

import asyncio
from pathlib import Path
from typing import Any

import pytest
from openai import AsyncOpenAI, OpenAI
from openai.types import Completion
from openai.types.chat import ChatCompletion
from tokenizers import Tokenizer

from tests.e2e.platform import Platform

START = "Once upon a time there was a"
STORY = "Tell me a story about a fox."
GREEDY: dict[str, Any] = {"model": "demo", "temperature": 0}
TOKENIZER = Tokenizer.from_file(str(Path(__file__).parents[2] / "workers" / "model" / "demo" / "tokenizer.json"))


def completed(client: OpenAI, **fields: Any) -> Completion:  # Any: fields of the request
    """The answer to a greedy completion, where the fields do not say otherwise."""
    create: Any = client.completions.create  # Any: fields by name fit none of the overloads
    answer: Completion = create(**GREEDY | {"prompt": START, "max_tokens": 40} | fields)
    return answer


def chatted(client: OpenAI, **fields: Any) -> ChatCompletion:  # Any: fields of the request
    """The answer to a greedy chat, where the fields do not say otherwise."""
    create: Any = client.chat.completions.create  # Any: as above
    answer: ChatCompletion = create(**GREEDY | {"messages": [{"role": "user", "content": STORY}]} | fields)
    return answer


def text_of(completion: Completion) -> str:
    return completion.choices[0].text


def id_of(token: str) -> int:
    """The id of a text that is one token."""
    [token_id] = TOKENIZER.encode(token, add_special_tokens=False).ids
    return int(token_id)


@pytest.mark.parametrize("extra", [{"top_k": 1}, {"min_p": 1.0}, {"top_p": 0.0}], ids=["top_k", "min_p", "top_p"])
def test_the_narrowest_filter_is_greedy_at_any_temperature(client: OpenAI, extra: dict[str, float]) -> None:
    assert text_of(completed(client, temperature=2.0, extra_body=extra)) == text_of(completed(client))


def test_a_seed_fixes_the_text_and_another_one_changes_it(client: OpenAI) -> None:
    first, again, other = (text_of(completed(client, temperature=1.0, seed=seed)) for seed in (1, 1, 2))

    assert first == again
    assert first != other


@pytest.mark.parametrize(
    "fields",
    [{"presence_penalty": 2.0}, {"frequency_penalty": 2.0}, {"extra_body": {"repetition_penalty": 1.5}}],
    ids=["presence", "frequency", "repetition"],
)
def test_a_penalty_makes_words_repeat_less(client: OpenAI, fields: dict[str, Any]) -> None:
    fields = {"max_tokens": 150, **fields}
    extra = {"ignore_eos": True, **fields.pop("extra_body", {})}

    plain = text_of(completed(client, max_tokens=150, extra_body={"ignore_eos": True}))
    penalised = text_of(completed(client, extra_body=extra, **fields))

    assert len(set(penalised.split())) > len(set(plain.split()))


def test_a_bias_can_force_a_token_and_forbid_it(client: OpenAI) -> None:
    plain = text_of(completed(client, max_tokens=1))

    forced = text_of(completed(client, max_tokens=3, logit_bias={str(id_of(" little")): 100}))
    other = text_of(completed(client, max_tokens=1, logit_bias={str(id_of(plain)): -100}))

    assert forced == " little little little"
    assert other != plain


def test_a_choice_ends_before_a_stop_string_and_at_a_stop_token(client: OpenAI) -> None:
    whole = text_of(completed(client))
    word = whole.split()[5]

    by_string = completed(client, stop=[word])
    by_token = completed(client, extra_body={"stop_token_ids": [id_of(".")]})

    assert (text_of(by_string), by_string.choices[0].finish_reason) == (whole[: whole.index(word)], "stop")
    assert (text_of(by_token), by_token.choices[0].finish_reason) == (whole[: whole.index(".")], "stop")


def test_no_stop_counts_before_the_minimum(client: OpenAI) -> None:
    early = text_of(completed(client)).split()[0]

    ended = completed(client, stop=[early], extra_body={"min_tokens": 30})

    assert ended.usage is not None
    assert ended.usage.completion_tokens >= 30
    assert early in text_of(ended)


def test_a_text_may_run_on_behind_its_end(client: OpenAI) -> None:
    question = [{"role": "user", "content": "What is 12 + 30?"}]

    ended = chatted(client, messages=question)
    going_on = chatted(client, messages=question, max_completion_tokens=60, extra_body={"ignore_eos": True})

    assert ended.choices[0].finish_reason == "stop"
    assert going_on.choices[0].finish_reason == "length"
    assert going_on.usage is not None
    assert going_on.usage.completion_tokens == 60
    assert (going_on.choices[0].message.content or "").startswith(ended.choices[0].message.content or "-")


def test_choices_differ_and_the_first_is_that_of_a_single_one(client: OpenAI) -> None:
    one = completed(client, temperature=1.0, seed=5)
    three = completed(client, temperature=1.0, seed=5, n=3)

    texts = [choice.text for choice in three.choices]
    assert texts[0] == text_of(one)
    assert len(set(texts)) == 3
    assert one.usage is not None
    assert three.usage is not None
    assert three.usage.prompt_tokens == one.usage.prompt_tokens


def test_the_best_of_several_is_the_likeliest(client: OpenAI) -> None:
    all_ = completed(client, temperature=1.0, seed=5, n=4, logprobs=0)
    best = completed(client, temperature=1.0, seed=5, best_of=4)

    def mean(logprobs: Any) -> float:  # Any: the SDK's optional lists
        return float(sum(logprobs.token_logprobs) / len(logprobs.token_logprobs))

    assert text_of(best) == max(all_.choices, key=lambda choice: mean(choice.logprobs)).text
    assert best.usage is not None
    assert all_.usage is not None
    assert best.usage.completion_tokens == all_.usage.completion_tokens


def test_chat_tells_how_likely_its_tokens_were(client: OpenAI) -> None:
    [choice] = chatted(client, logprobs=True, top_logprobs=20).choices

    assert choice.logprobs is not None
    tokens = choice.logprobs.content or []
    assert b"".join(bytes(token.bytes or []) for token in tokens).decode() == choice.message.content
    for token in tokens:
        assert len(token.top_logprobs) == 20
        assert (token.token, token.logprob) == (token.top_logprobs[0].token, token.top_logprobs[0].logprob)
        ranking = [candidate.logprob for candidate in token.top_logprobs]
        assert ranking == sorted(ranking, reverse=True)
        assert ranking[0] <= 0


def test_responses_tell_the_same_as_chat(client: OpenAI) -> None:
    [choice] = chatted(client, logprobs=True, top_logprobs=2).choices
    response = client.responses.create(
        model="demo", input=STORY, temperature=0, include=["message.output_text.logprobs"], top_logprobs=2
    )

    assert choice.logprobs is not None
    reported = [(token.token, token.logprob) for token in choice.logprobs.content or []]
    [item] = response.output
    assert item.type == "message"
    [part] = item.content
    assert part.type == "output_text"
    assert [(token.token, token.logprob) for token in part.logprobs or []] == reported


def test_an_echoed_prompt_tells_how_likely_it_was(client: OpenAI) -> None:
    [read] = completed(client, echo=True, logprobs=1, max_tokens=0).choices
    [written] = completed(client, echo=True, logprobs=1).choices

    assert (read.text, read.finish_reason) == (START, "length")
    assert read.logprobs is not None
    assert written.logprobs is not None
    assert "".join(read.logprobs.tokens or []) == START
    assert "".join(written.logprobs.tokens or []) == written.text
    # The SDK's type forgets that nothing comes before the first token.
    first, *reported = list[float | None](read.logprobs.token_logprobs or [])
    assert first is None
    assert (written.logprobs.token_logprobs or [])[1 : 1 + len(reported)] == pytest.approx(reported, abs=1e-4)


MIXED: list[dict[str, Any]] = [
    {"temperature": 0.9, "seed": 1, "top_p": 0.8},
    {"temperature": 1.3, "seed": 2, "extra_body": {"top_k": 7}},
    {"temperature": 1.0, "seed": 3, "extra_body": {"min_p": 0.05}},
    {"temperature": 0.8, "seed": 4, "presence_penalty": 1.0, "frequency_penalty": 0.5},
    {"extra_body": {"repetition_penalty": 1.3, "ignore_eos": True}, "max_tokens": 90},
    {"logit_bias": {"300": 3, "301": -100}, "logprobs": 5},
    {"stop": [" the ", "bear"], "extra_body": {"min_tokens": 12}},
    {"temperature": 1.0, "seed": 8, "n": 3},
    {"temperature": 1.0, "seed": 9, "best_of": 3},
    {"echo": True, "logprobs": 2, "temperature": 0.7, "seed": 10},
    {"extra_body": {"stop_token_ids": [id_of(".")], "priority": -5}, "temperature": 0.5, "seed": 11},
    {"echo": True, "logprobs": 0, "max_tokens": 0},
]
PLAIN: list[dict[str, Any]] = [{"prompt": f"{START} {animal}"} for animal in ("fox", "hen", "cat", "dog", "bear")]


def test_all_of_them_in_one_batch_disturb_nobody(platform: Platform) -> None:
    asked = [fields for pair in zip(MIXED, PLAIN * 3, strict=False) for fields in pair]

    async def ask(client: AsyncOpenAI, fields: dict[str, Any]) -> list[dict[str, Any]]:
        create: Any = client.completions.create  # Any: as above
        answer = await create(**GREEDY | {"prompt": START, "max_tokens": 60} | fields)
        return [choice.model_dump() for choice in answer.choices]

    async def one_by_one_and_together() -> tuple[list[Any], list[Any]]:
        async with AsyncOpenAI(base_url=platform.base_url, api_key="none", max_retries=0) as client:
            alone = [await ask(client, fields) for fields in asked]
            return alone, await asyncio.gather(*(ask(client, fields) for fields in asked))

    alone, together = asyncio.run(one_by_one_and_together())

    for fields, one, other in zip(asked, alone, together, strict=True):
        assert [choice["text"] for choice in other] == [choice["text"] for choice in one], fields
        assert [choice["finish_reason"] for choice in other] == [choice["finish_reason"] for choice in one]
        for first, second in zip(one, other, strict=True):
            _assert_as_likely(first["logprobs"], second["logprobs"])


def _assert_as_likely(first: dict[str, Any] | None, second: dict[str, Any] | None) -> None:
    """The same tokens, as likely: sums in another order differ in their last bits."""
    assert (first is None) == (second is None)
    if first is not None and second is not None:
        assert second["tokens"] == first["tokens"]
        assert second["token_logprobs"][1:] == pytest.approx(first["token_logprobs"][1:], abs=1e-4)
