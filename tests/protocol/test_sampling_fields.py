"""Sampling fields: what every protocol accepts, and the engine parameters made of them."""

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec import structs

from api.protocol.chat.request import ChatRequest
from api.protocol.completions.request import CompletionRequest
from api.protocol.jobs.prepared import Prepared
from api.protocol.kinds import prepare
from api.protocol.prompt.tokenizing import PromptTools
from api.protocol.responses.included import INCLUDED_LOGPROBS
from api.protocol.responses.request import ResponseRequest
from api.protocol.shared.job_request import JobRequest as Request
from storage.contract import SamplingParams
from storage.errors import ContextLengthExceeded, InvalidRequest, UnsupportedParameter
from storage.model_manifest import GenerationDefaults
from tests.protocol.examples import body, manifest, tools

MINIMAL: dict[type[Request], dict[str, object]] = {
    ResponseRequest: {"input": "hi"},
    ChatRequest: {"messages": [{"role": "user", "content": "hi"}]},
    CompletionRequest: {"prompt": "hi"},
}
REQUESTS = list(MINIMAL)
LIMITS = {ResponseRequest: "max_output_tokens", ChatRequest: "max_tokens", CompletionRequest: "max_tokens"}
VOCABULARY = tools().vocab_size


def prepared(request_type: type[Request], is_background: bool = False, **fields: object) -> Prepared:
    raw = body(**{**MINIMAL[request_type], **fields})
    return prepare(request_type.parse(raw), tools(), seed=7, is_background=is_background)


def refused_field(request_type: type[Request], **fields: object) -> str | None:
    with pytest.raises(InvalidRequest) as refusal:
        prepared(request_type, **fields)
    assert not isinstance(refusal.value, UnsupportedParameter)
    return refusal.value.param


@pytest.mark.parametrize("request_type", REQUESTS)
def test_every_field_reaches_the_engine(request_type: type[Request]) -> None:
    fields = {
        "temperature": 0.5,
        "top_p": 0.25,
        "top_k": 9,
        "min_p": 0.125,
        "presence_penalty": -2,
        "frequency_penalty": 1.5,
        "repetition_penalty": 1.25,
        "logit_bias": {"0": -100, "17": 2.5},
        "seed": -3,
        "stop": "x",
        "stop_token_ids": [4, 5],
        "ignore_eos": True,
        "min_tokens": 3,
    }

    sampling = prepared(request_type, **fields, **{LIMITS[request_type]: 12}).spec.sampling

    assert sampling == SamplingParams(
        max_tokens=12,
        temperature=0.5,
        top_p=0.25,
        top_k=9,
        min_p=0.125,
        presence_penalty=-2.0,
        frequency_penalty=1.5,
        repetition_penalty=1.25,
        logit_bias=((0, -100.0), (17, 2.5)),
        seed=-3,
        stop=("x",),
        stop_token_ids=(4, 5),
        ignore_eos=True,
        min_tokens=3,
    )


@pytest.mark.parametrize("request_type", REQUESTS)
def test_silence_is_the_contracts_default(request_type: type[Request]) -> None:
    sampling = prepared(request_type).spec.sampling

    assert sampling == SamplingParams(max_tokens=sampling.max_tokens, seed=7)


@pytest.mark.parametrize("request_type", REQUESTS)
def test_a_models_defaults_stand_for_fields_that_a_request_does_not_name(request_type: type[Request]) -> None:
    defaults = GenerationDefaults(temperature=0.6, top_p=0.95, top_k=20, min_p=0.1, repetition_penalty=1.05)
    of_model = PromptTools(structs.replace(manifest(), generation_defaults=defaults))
    own = {"temperature": 0, "top_p": 1, "top_k": -1, "min_p": 0, "repetition_penalty": 1}

    def sampled(**fields: object) -> SamplingParams:
        request = request_type.parse(body(**{**MINIMAL[request_type], **fields}))
        return prepare(request, of_model, seed=7).spec.sampling

    silent = sampled()
    assert silent == SamplingParams(
        max_tokens=silent.max_tokens, seed=7, temperature=0.6, top_p=0.95, top_k=20, min_p=0.1, repetition_penalty=1.05
    )
    assert sampled(temperature=1.5) == structs.replace(silent, temperature=1.5)
    assert sampled(**own) == SamplingParams(max_tokens=silent.max_tokens, seed=7, temperature=0.0)


WRONG: list[tuple[str, object, str]] = [
    ("min_p", -0.1, "min_p"),
    ("min_p", 1.1, "min_p"),
    ("min_p", "0.5", "min_p"),
    ("presence_penalty", 2.1, "presence_penalty"),
    ("frequency_penalty", -2.1, "frequency_penalty"),
    ("frequency_penalty", True, "frequency_penalty"),
    ("repetition_penalty", 0, "repetition_penalty"),
    ("repetition_penalty", -1, "repetition_penalty"),
    ("repetition_penalty", 1e6, "repetition_penalty"),
    ("logit_bias", [1], "logit_bias"),
    ("logit_bias", {"1": 100.5}, "logit_bias.1"),
    ("logit_bias", {"1": "5"}, "logit_bias.1"),
    ("logit_bias", {"one": 5}, "logit_bias.one"),
    ("logit_bias", {"-1": 5}, "logit_bias.-1"),
    ("logit_bias", {"01": 5}, "logit_bias.01"),
    ("logit_bias", {"1 ": 5}, "logit_bias.1 "),
    ("logit_bias", {"١": 5}, "logit_bias.١"),
    ("logit_bias", {str(VOCABULARY): 5}, "logit_bias"),
    ("logit_bias", {"9" * 18: 5}, "logit_bias"),
    ("logit_bias", {"9" * 5000: 5}, "logit_bias." + "9" * 189 + "..."),
    ("logit_bias", {str(number): 1 for number in range(1025)}, "logit_bias"),
    ("stop_token_ids", 5, "stop_token_ids"),
    ("stop_token_ids", [-1], "stop_token_ids[0]"),
    ("stop_token_ids", [1.5], "stop_token_ids[0]"),
    ("stop_token_ids", [0, VOCABULARY], "stop_token_ids"),
    ("stop_token_ids", [10**18], "stop_token_ids"),
    ("stop_token_ids", [1] * 65, "stop_token_ids"),
    ("ignore_eos", 1, "ignore_eos"),
    ("min_tokens", -1, "min_tokens"),
    ("min_tokens", 1.0, "min_tokens"),
    ("min_tokens", 10**6, "min_tokens"),
    ("priority", 1001, "priority"),
    ("priority", -1001, "priority"),
    ("priority", 0.5, "priority"),
    ("top_k", 1.0, "top_k"),
    ("seed", "1", "seed"),
]


@pytest.mark.parametrize("request_type", REQUESTS)
@pytest.mark.parametrize(("name", "value", "param"), WRONG, ids=lambda value: str(value)[:30])
def test_a_wrong_value_is_named(request_type: type[Request], name: str, value: object, param: str) -> None:
    assert refused_field(request_type, **{name: value}) == param


@pytest.mark.parametrize("request_type", REQUESTS)
def test_a_minimum_over_the_limit_is_named(request_type: type[Request]) -> None:
    limit = LIMITS[request_type]

    assert prepared(request_type, min_tokens=5, **{limit: 5}).spec.sampling.min_tokens == 5
    assert refused_field(request_type, min_tokens=6, **{limit: 5}) == "min_tokens"


@pytest.mark.parametrize("request_type", REQUESTS)
def test_the_ends_of_a_filters_range_still_leave_a_token(request_type: type[Request]) -> None:
    sampling = prepared(request_type, top_p=0, min_p=1).spec.sampling

    assert 0 < sampling.top_p < 0.001
    assert 0.999 < sampling.min_p < 1


@pytest.mark.parametrize("request_type", REQUESTS)
def test_jobs_that_nobody_waits_for_stand_behind_unless_they_say_where(request_type: type[Request]) -> None:
    waiting = prepared(request_type).spec.priority
    alone = prepared(request_type, is_background=True).spec.priority
    asked = [prepared(request_type, is_background, priority=-1000).spec.priority for is_background in (False, True)]

    assert waiting < alone
    assert asked == [-1000, -1000]
    assert prepared(request_type, is_background=True, priority=0).spec.priority == 0


def test_log_probabilities_are_asked_for_in_each_protocols_words() -> None:
    asked = [
        prepared(ChatRequest, logprobs=True),
        prepared(ChatRequest, logprobs=True, top_logprobs=20),
        prepared(ChatRequest, logprobs=False, top_logprobs=0),
        prepared(ResponseRequest, include=[INCLUDED_LOGPROBS]),
        prepared(ResponseRequest, include=[INCLUDED_LOGPROBS], top_logprobs=20),
        prepared(ResponseRequest, include=[], top_logprobs=0),
        prepared(CompletionRequest, logprobs=0),
        prepared(CompletionRequest, logprobs=5, echo=False),
        prepared(CompletionRequest, logprobs=5, echo=True),
        prepared(CompletionRequest, echo=True),
    ]

    found = [(one.spec.sampling.logprobs, one.spec.sampling.prompt_logprobs) for one in asked]
    assert found == [
        (0, None),
        (20, None),
        (None, None),
        (0, None),
        (20, None),
        (None, None),
        (0, None),
        (5, None),
        (5, 5),
        (None, None),
    ]


WRONG_LOGPROBS: list[tuple[type[Request], dict[str, object], str]] = [
    (ChatRequest, {"logprobs": 1}, "logprobs"),
    (ChatRequest, {"logprobs": True, "top_logprobs": 21}, "top_logprobs"),
    (ChatRequest, {"logprobs": True, "top_logprobs": -1}, "top_logprobs"),
    (ChatRequest, {"logprobs": False, "top_logprobs": 1}, "top_logprobs"),
    (ChatRequest, {"top_logprobs": 1}, "top_logprobs"),
    (ResponseRequest, {"top_logprobs": 1}, "top_logprobs"),
    (ResponseRequest, {"include": [INCLUDED_LOGPROBS], "top_logprobs": 21}, "top_logprobs"),
    (ResponseRequest, {"include": INCLUDED_LOGPROBS}, "include"),
    (ResponseRequest, {"include": [1]}, "include[0]"),
    (CompletionRequest, {"logprobs": 6}, "logprobs"),
    (CompletionRequest, {"logprobs": -1}, "logprobs"),
    (CompletionRequest, {"logprobs": True}, "logprobs"),
]


@pytest.mark.parametrize(("request_type", "fields", "param"), WRONG_LOGPROBS, ids=lambda value: str(value)[:50])
def test_wrong_wishes_for_log_probabilities_are_named(
    request_type: type[Request], fields: dict[str, object], param: str
) -> None:
    assert refused_field(request_type, **fields) == param


def test_the_best_are_chosen_from_more_choices_than_are_shown() -> None:
    chosen = prepared(CompletionRequest, prompt=["a", "b"], n=2, best_of=5)
    made = prepared(CompletionRequest, n=2, best_of=3, logprobs=4)
    all_shown = prepared(CompletionRequest, n=3, best_of=3, stream=True)

    assert (chosen.spec.num_choices, chosen.spec.total_choices, chosen.spec.sampling.logprobs) == (5, 10, 0)
    assert (made.spec.num_choices, made.spec.sampling.logprobs) == (3, 4)
    assert (all_shown.spec.num_choices, all_shown.spec.sampling.logprobs) == (3, None)


WRONG_CHOICES: list[tuple[dict[str, object], str]] = [
    ({"best_of": 0}, "best_of"),
    ({"best_of": 21}, "best_of"),
    ({"best_of": 1, "n": 2}, "best_of"),
    ({"best_of": 2, "stream": True}, "best_of"),
    ({"best_of": 20, "prompt": ["x"] * 7}, "best_of"),
    ({"max_tokens": 0}, "max_tokens"),
    ({"max_tokens": 0, "echo": False}, "max_tokens"),
    ({"max_tokens": -1, "echo": True}, "max_tokens"),
    ({"max_tokens": 0, "echo": True, "min_tokens": 1}, "min_tokens"),
]


@pytest.mark.parametrize(("fields", "param"), WRONG_CHOICES, ids=lambda value: str(value)[:50])
def test_choices_that_cannot_be_made_are_named(fields: dict[str, object], param: str) -> None:
    assert refused_field(CompletionRequest, **fields) == param


def test_an_echo_alone_reads_the_prompt_and_may_fill_the_context() -> None:
    small = tools(context_length=5, bos=False)
    request = CompletionRequest.parse(body(prompt="abcde", echo=True, logprobs=1, max_tokens=0))
    one = prepare(request, small, seed=1)

    assert (one.spec.sampling.max_tokens, one.spec.sampling.prompt_logprobs) == (0, 1)
    assert one.context == {"num_prompts": 1, "prompt_texts": ["abcde"], "prompt_names": [[[0, "a"]]]}
    with pytest.raises(ContextLengthExceeded):
        prepare(CompletionRequest.parse(body(prompt="abcdef", echo=True, max_tokens=0)), small, seed=1)


_FIELDS = st.fixed_dictionaries(
    {},
    optional={
        "temperature": st.floats(0, 2),
        "top_p": st.floats(0, 1),
        "top_k": st.integers(0, 2**31 - 1),
        "min_p": st.floats(0, 1),
        "presence_penalty": st.floats(-2, 2),
        "frequency_penalty": st.integers(-2, 2),
        "repetition_penalty": st.floats(0.01, 100),
        "logit_bias": st.dictionaries(st.integers(0, VOCABULARY - 1).map(str), st.floats(-100, 100), max_size=5),
        "seed": st.integers(-(2**63), 2**63 - 1),
        "stop": st.lists(st.text("ab", min_size=1), max_size=4),
        "stop_token_ids": st.lists(st.integers(0, VOCABULARY - 1), max_size=5),
        "ignore_eos": st.booleans(),
        "min_tokens": st.integers(0, 16),
        "priority": st.integers(-1000, 1000),
    },
)


@given(fields=_FIELDS)
@pytest.mark.parametrize("request_type", REQUESTS)
def test_whatever_lies_in_range_is_taken_and_keeps_the_contract(
    request_type: type[Request], fields: dict[str, object]
) -> None:
    one = prepared(request_type, **fields)

    sampling = one.spec.sampling
    # A response's input is stored as items.
    minimal = {name: value for name, value in MINIMAL[request_type].items() if name != "input"}
    assert one.request == {"model": "demo", **minimal, **fields}
    assert 0 < sampling.top_p <= 1
    assert 0 <= sampling.min_p < 1
    assert 0 <= sampling.min_tokens <= sampling.max_tokens
    assert len({token_id for token_id, _ in sampling.logit_bias}) == len(sampling.logit_bias)
