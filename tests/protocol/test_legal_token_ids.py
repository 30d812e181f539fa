"""Which token ids a model takes: as many as its embedding has rows, whatever its tokenizer knows."""

import msgspec
import pytest

from api.protocol.completions.request import CompletionRequest
from api.protocol.kinds import prepare
from api.protocol.prompt.tokenizing import PromptTools
from storage.errors import InvalidRequest
from tests.protocol.examples import body, manifest

NUM_KNOWN = 259  # 256 bytes and three special tokens


def tools(num_token_ids: int | None) -> PromptTools:
    """Prompt tools of a model with so many embedding rows."""
    return PromptTools(msgspec.structs.replace(manifest(), num_token_ids=num_token_ids))


def prompt_of(prompt: object, num_token_ids: int | None, **fields: object) -> tuple[int, ...]:
    request = CompletionRequest.parse(body(prompt=prompt, **fields))
    return tuple(prepare(request, tools(num_token_ids), seed=1).spec.prompts[0])


def test_ids_of_padded_embedding_rows_are_legal() -> None:
    # As in Qwen3, whose tokenizer knows 151,669 ids while the model has 151,936 rows.
    assert prompt_of([1, 299], 300) == (1, 299)
    assert prompt_of("a", 300, logit_bias={"299": 1.0}, stop_token_ids=[299]) == prompt_of("a", 300)
    with pytest.raises(InvalidRequest, match="below 300"):
        prompt_of([1, 300], 300)


def test_an_id_beyond_the_rows_is_refused_at_once_though_the_tokenizer_knows_it() -> None:
    # As in Gemma 3 1B, whose tokenizer knows the id 262144 while the model has 262,144 rows.
    last = NUM_KNOWN - 1
    assert prompt_of([1, last], NUM_KNOWN) == (1, last)
    with pytest.raises(InvalidRequest, match=f"below {last}"):
        prompt_of([1, last], last)


def test_a_text_whose_token_the_model_lacks_is_refused_at_once() -> None:
    small = tools(NUM_KNOWN - 1)

    assert small.encode("plain text", add_special_tokens=False)
    with pytest.raises(InvalidRequest, match="does not have"):
        small.encode("text <|im_end|>", add_special_tokens=False)


def test_a_manifest_of_an_older_worker_counts_by_its_tokenizer() -> None:
    assert tools(None).vocab_size == NUM_KNOWN
