"""The inputs of an encoder: texts and token ids of a request as what the encoder reads, within its limits."""

from collections.abc import Sequence

from api.protocol.embeddings.text_inputs import MAX_LEN, Text, TextInput, TextInputs
from api.protocol.prompt.token_budget import context_exceeded
from api.protocol.prompt.tokenizing import PromptTools
from api.protocol.shared.sampling_fields import require_known_ids
from storage.errors import InvalidRequest

MAX_TOTAL_TOKENS = 300_000


def limit_of(truncate_prompt_tokens: int | None, tools: PromptTools) -> int | None:
    """The tokens to which a longer input is cut; None where it is refused."""
    if truncate_prompt_tokens is None:
        return None
    if truncate_prompt_tokens == MAX_LEN:
        return tools.context_length
    if truncate_prompt_tokens > tools.context_length:
        raise InvalidRequest(
            f"Invalid 'truncate_prompt_tokens': {truncate_prompt_tokens} is more than the {tools.context_length} "
            "tokens that the model reads.",
            param="truncate_prompt_tokens",
        )
    return truncate_prompt_tokens


def checked(inputs: Sequence[TextInput], tools: PromptTools, *, fields: Sequence[str]) -> list[TextInput]:
    """The inputs; raises ContextLengthExceeded for one that is too long, InvalidRequest for too many tokens together.

    fields: the request field of each input
    """
    total = 0
    for one, field in zip(inputs, fields, strict=True):
        num_tokens = len(one.token_ids)
        if num_tokens > tools.context_length:
            raise context_exceeded(num_tokens, None, tools.context_length, field=field)
        if not num_tokens:
            raise InvalidRequest(f"Invalid '{field}': it contains no tokens.", param=field)
        require_known_ids(one.token_ids, tools.vocab_size, field=field)
        total += num_tokens
    if total > MAX_TOTAL_TOKENS:
        field = fields[0].partition("[")[0]
        raise InvalidRequest(
            f"Invalid '{field}': a request may have {MAX_TOTAL_TOKENS} tokens in all, this one has {total}.",
            param=field,
        )
    return list(inputs)


def encoded(
    tools: PromptTools, texts: Sequence[Text], *, truncate_prompt_tokens: int | None, fields: Sequence[str]
) -> list[TextInput]:
    """Texts or pairs as inputs, checked; `fields` as in `checked`."""
    limit = limit_of(truncate_prompt_tokens, tools)
    inputs = TextInputs(tools.tokenizer, tools.context_length).encode(texts, limit=limit)
    return checked(inputs, tools, fields=fields)
