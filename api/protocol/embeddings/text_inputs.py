"""Texts for an encoder: many at once, with the tokenizer's own special tokens, cut at the end where that is wanted."""

from collections.abc import Sequence

import msgspec
from tokenizers import Encoding, Tokenizer

from api.protocol.prompt.token_budget import CHARACTERS_PER_TOKEN
from storage.errors import InvalidRequest

# `truncate_prompt_tokens` for as many tokens as the model reads.
MAX_LEN = -1
# Cutting a text changes only tokens near the cut.
_MARGIN = 64

Text = str | tuple[str, str]


class TextInput(msgspec.Struct, frozen=True, kw_only=True):
    """What an encoder reads of one text or pair.

    second_start: where the second text of a pair begins; None of a single text
    """

    token_ids: tuple[int, ...]
    second_start: int | None = None


class TextInputs:
    """Encodes texts as sentence-transformers does: a text may also spell special tokens, which then are such."""

    def __init__(self, tokenizer: Tokenizer, context_length: int) -> None:
        """tokenizer: without truncation and padding"""
        self._tokenizer = tokenizer
        self._context_length = context_length

    def encode(self, texts: Sequence[Text], *, limit: int | None = None) -> list[TextInput]:
        """Every text as an input; of a text far beyond the context, possibly only its first tokens.

        limit: tokens to which a longer one is cut, special tokens included; of a pair, its second text is cut
        """
        starts = [self._start(text) for text in texts]
        # "Fast" leaves out offsets. A batch releases the interpreter lock.
        encodings: list[Encoding] = self._tokenizer.encode_batch_fast(starts)
        inputs = []
        for text, start, encoding in zip(texts, starts, encodings, strict=True):
            whole = encoding
            if start != text and len(encoding.ids) <= self._context_length + _MARGIN:
                (whole,) = self._tokenizer.encode_batch_fast([text])
            if limit is not None and len(whole.ids) > limit:
                whole = self._cut(start, limit)
            inputs.append(_input_of(whole, is_pair=isinstance(text, tuple)))
        return inputs

    def _start(self, text: Text) -> Text:
        """As much of a text as is surely more than the model reads."""
        end = self._context_length * CHARACTERS_PER_TOKEN
        return text[:end] if isinstance(text, str) else (text[0][:end], text[1][:end])

    def _cut(self, text: Text, limit: int) -> Encoding:
        first_text, second_text = (text, None) if isinstance(text, str) else text
        room = limit - self._tokenizer.num_special_tokens_to_add(second_text is not None)
        (first,) = self._tokenizer.encode_batch_fast([first_text], add_special_tokens=False)
        second: Encoding | None = None
        if second_text is None:
            kept = first
        else:
            (second,) = self._tokenizer.encode_batch_fast([second_text], add_special_tokens=False)
            room -= len(first.ids)
            kept = second
        if room < 1:
            raise InvalidRequest(
                f"Invalid 'truncate_prompt_tokens': {limit} tokens leave none for the text itself.",
                param="truncate_prompt_tokens",
            )
        kept.truncate(room)
        whole: Encoding = self._tokenizer.post_process(first, second)
        return whole


def _input_of(encoding: Encoding, *, is_pair: bool) -> TextInput:
    token_ids = tuple(encoding.ids)
    if not is_pair:
        return TextInput(token_ids=token_ids)
    segments: list[int] = encoding.type_ids
    # A tokenizer that does not tell the two apart has one segment.
    return TextInput(token_ids=token_ids, second_start=segments.index(1) if 1 in segments else len(token_ids))
