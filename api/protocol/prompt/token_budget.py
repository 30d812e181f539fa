"""Token budget: how a prompt and its output share a model's context length."""

from collections.abc import Callable, Sequence

from api.protocol.prompt.system_turn import Message, is_system
from storage.errors import ContextLengthExceeded

# A text of more characters for each token of context is taken to be too long for it.
CHARACTERS_PER_TOKEN = 16
# A truncated chat keeps at least 1/8 of the context for the answer.
_ANSWER_SHARE = 8


def output_budget(num_prompt_tokens: int, wanted: int | None, context_length: int, *, field: str) -> int:
    """The output token limit: `wanted`, or everything that the prompt leaves.

    wanted: may be 0, which only computes the prompt
    raises: ContextLengthExceeded with `field` as its param when prompt and output do not fit
    """
    room = context_length - num_prompt_tokens
    if room >= (1 if wanted is None else wanted):
        return room if wanted is None else wanted
    raise context_exceeded(num_prompt_tokens, wanted, context_length, field=field)


def context_exceeded(
    num_prompt_tokens: int, wanted: int | None, context_length: int, *, field: str
) -> ContextLengthExceeded:
    """The error for a prompt that does not fit the context, alone or with the wanted output tokens."""
    return ContextLengthExceeded(_sentence(num_prompt_tokens, wanted, context_length), param=field)


def _sentence(num_prompt_tokens: int, wanted: int | None, context_length: int) -> str:
    """OpenAI's wording."""
    limit = f"This model's maximum context length is {context_length} tokens."
    if wanted is None or num_prompt_tokens >= context_length:
        # "At least": a text far beyond the context is not tokenized to its end.
        return f"{limit} However, your input resulted in at least {num_prompt_tokens} tokens. Please reduce its length."
    total = num_prompt_tokens + wanted
    shares = f"{num_prompt_tokens} in the input, {wanted} in the output"
    return f"{limit} However, you requested {total} tokens ({shares}). Please reduce the length of the input or output."


def fitting_prompt(
    messages: Sequence[Message],
    encode: Callable[[Sequence[Message]], tuple[int, ...]],
    wanted: int | None,
    context_length: int,
) -> tuple[int, ...]:
    """Token ids of a truncated chat: as few of the oldest turns as possible are left out, at most all but the last.

    System messages stay, and the remaining chat begins with a user's message. Encodes a logarithmic number of times.
    """
    whole = encode(messages)
    if len(whole) + (wanted or 1) <= context_length:
        return whole
    room = context_length - (wanted or max(1, context_length // _ANSWER_SHARE))
    cuts = _cuts_of(messages)
    low, high, best = 0, len(cuts) - 1, whole
    while low <= high:
        middle = (low + high) // 2
        ids = encode(_without_before(messages, cuts[middle]))
        if len(ids) <= room:
            high, best = middle - 1, ids
        else:
            low = middle + 1
            best = ids if len(ids) < len(best) else best
    return best


def _cuts_of(messages: Sequence[Message]) -> list[int]:
    """Indices at which a truncated chat may begin: each user message except the first message."""
    others = [index for index, message in enumerate(messages) if not is_system(message)]
    return [index for index in others[1:] if messages[index]["role"] == "user"]


def _without_before(messages: Sequence[Message], cut: int) -> list[Message]:
    return [message for index, message in enumerate(messages) if index >= cut or is_system(message)]
