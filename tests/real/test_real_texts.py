"""Streamed text of real tokenizers is what transformers decodes."""

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from storage.contract import SamplingParams
from tests.engine.checked import ids_of, run, text_of
from tests.real.conftest import Real
from tests.real.families import FAMILIES
from tests.real.test_real_prompts import TEXTS, assistant, chat_ids, system, text_ids, user
from workers.engine.engine import Engine
from workers.engine.sequence import SequenceRequest

OFTEN = settings(
    max_examples=60,
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.function_scoped_fixture],
)


def decoded(real: Real, ids: list[int]) -> str:
    """What transformers says, special tokens left out."""
    text = real.tokenizer.decode(ids, skip_special_tokens=True, clean_up_tokenization_spaces=False)
    assert isinstance(text, str)
    return text


def streamed(real: Real, ids: list[int], prompt: list[int] | None = None, cut: int = 0) -> str:
    """The text of a stream; with `cut`, of one that goes on after so many ids, as on another worker."""
    first = real.loaded.text.open((), prompt=prompt or [])
    before = "".join(first.push(token_id) for token_id in ids[:cut])
    second = real.loaded.text.open((), prompt=prompt or [])
    assert "".join(second.push(token_id) for token_id in ids[:cut]) == before
    return before + "".join(second.push(token_id) for token_id in ids[cut:]) + second.close()


def odd_ids(real: Real) -> list[int]:
    """Ids that decoders treat in ways of their own: bytes, parts of characters, spaces, added and special tokens."""
    texts = ["🙂👩‍👧", "ü", "你", " ", "  ", "\n", "\n\n", "\t", " the", "the", "\ufffd", "▁", "'s", " ,", "</s>"]
    ids = {token_id for text in texts for token_id in text_ids(real, text, add_special_tokens=False)}
    added = sorted(real.tokenizer.get_added_vocab().values())
    ids |= {*added[:8], *added[-8:], *real.loaded.limits.eos_token_ids, real.loaded.limits.vocab_size - 1}
    fallback = [
        real.tokenizer.convert_tokens_to_ids(f"<0x{value:02X}>") for value in (0x0A, 0x41, 0x80, 0xE4, 0xF0, 0xFF)
    ]
    return sorted(ids | {token_id for token_id in fallback if token_id is not None})


@pytest.mark.parametrize("text", TEXTS, ids=range(len(TEXTS)))
def test_the_streamed_text_of_a_text_is_its_decoded_whole(real: Real, text: str) -> None:
    ids = text_ids(real, text, add_special_tokens=False)

    for cut in {0, 1, len(ids) // 2, len(ids)}:
        assert streamed(real, ids, cut=cut) == decoded(real, ids)


@OFTEN
@given(data=st.data())
def test_the_streamed_text_of_any_ids_is_their_decoded_whole(real: Real, data: st.DataObject) -> None:
    known = st.integers(0, real.loaded.limits.vocab_size - 1)
    ids = data.draw(st.lists(st.one_of(known, st.sampled_from(odd_ids(real))), max_size=60))
    cut = data.draw(st.integers(0, len(ids)))

    assert streamed(real, ids, cut=cut) == decoded(real, ids)


@OFTEN
@given(data=st.data())
def test_the_streamed_text_of_odd_ids_is_their_decoded_whole(real: Real, data: st.DataObject) -> None:
    ids = data.draw(st.lists(st.sampled_from(odd_ids(real)), max_size=30))

    assert streamed(real, ids) == decoded(real, ids)


@pytest.mark.parametrize("text", TEXTS, ids=range(len(TEXTS)))
def test_an_answer_goes_on_from_its_prompt(real: Real, text: str) -> None:
    """F044: prompt and streamed text together are the decoded whole, the first space included, wherever it is cut."""
    ids = text_ids(real, text)

    for cut in range(1, len(ids)):
        before = decoded(real, ids[:cut])
        if "\ufffd" not in before and not real.tokenizer.convert_ids_to_tokens(ids[cut - 1]).startswith("<0x"):
            assert before + streamed(real, ids[cut:], ids[:cut]) == decoded(real, ids)


@OFTEN
@given(data=st.data())
def test_the_bytes_of_tokens_join_to_the_text(real: Real, data: st.DataObject) -> None:
    ids = text_ids(real, data.draw(st.sampled_from(TEXTS)), add_special_tokens=False)
    token_bytes = real.loaded.token_bytes
    spoken = [token_id for token_id in ids if token_bytes.is_spoken(token_id)]

    joined = b"".join(token_bytes.of(token_id, is_first=place == 0) for place, token_id in enumerate(spoken))

    assert joined == decoded(real, ids).encode()


def test_what_the_engine_says_is_what_transformers_decodes(real: Real) -> None:
    prompts = [text_ids(real, TEXTS[0]), text_ids(real, TEXTS[3]), chat_ids(real, [user("Hi")])]
    requests = [
        SequenceRequest(
            sequence_id=str(salt),
            prompt=tuple(prompts[salt % 3]),
            sampling=SamplingParams(max_tokens=40, temperature=2.0, seed=salt),
        )
        for salt in range(9)
    ]

    outputs = run(Engine(real.loaded.runner, real.loaded.text, real.loaded.limits), *requests)

    for one in requests:
        got = outputs[one.sequence_id]
        assert all(0 <= token_id < real.loaded.limits.vocab_size for token_id in ids_of(got))
        # Behind a control token a text begins anew: SentencePiece drops the space before its first word.
        before = [] if one.prompt[-1] in real.control else list(one.prompt)
        assert text_of(got) == decoded(real, [*before, *ids_of(got)]).removeprefix(decoded(real, before))


# What each template writes after an answer.
ENDS_OF_TURN = {
    "qwen3": "<|im_end|>",
    "llama2": "</s>",
    "llama3_1": "<|eot_id|>",
    "gemma3": "<end_of_turn>",
    "deepseek_v3": "<｜end▁of▁sentence｜>",
    "gptoss": "<|return|>",
    "mistral_v3": "</s>",
    "mistral_tekken": "</s>",
}


def test_end_tokens_are_united(real: Real) -> None:
    """F045: those of the generation configuration and that of the template."""
    expected = {*FAMILIES[real.name].eos_token_ids, real.id_of(ENDS_OF_TURN[real.name])}

    assert real.loaded.limits.eos_token_ids == expected


def test_each_end_token_ends_an_answer_without_text(real: Real) -> None:
    """F045: several end tokens, each of which the model is made to say."""
    prompt = tuple(chat_ids(real, [system("x"), user("x"), assistant("x"), user("x")]))
    for end in sorted(real.loaded.limits.eos_token_ids):
        bias = SamplingParams(max_tokens=20, min_tokens=3, temperature=0.0, logit_bias=((end, 1000.0),))
        request = SequenceRequest(sequence_id="end", prompt=prompt, sampling=bias)

        got = run(Engine(real.loaded.runner, real.loaded.text, real.loaded.limits), request)["end"]

        assert ids_of(got)[-1] == end
        assert len(ids_of(got)) == 4
        assert got[-1].finish == "stop"
        assert real.tokenizer.convert_ids_to_tokens(end) not in text_of(got)
